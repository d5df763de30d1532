//! How a long job tells somebody how far it is. Libraries never print.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// Listens to a run. All methods do nothing unless implemented.
pub trait Progress {
    /// A stage of `total` units begins, `done` of which an earlier run has done.
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        let _ = (stage, total, done);
    }
    /// `done` units are done; `loss` is the latest, where the stage has one.
    fn advance(&mut self, done: usize, loss: Option<f64>) {
        let _ = (done, loss);
    }
    /// The stage is over.
    fn end(&mut self) {}
    /// Something worth a line.
    fn message(&mut self, text: &str) {
        let _ = text;
    }
    /// Whether the job is to stop at its next good moment: a training writes a checkpoint first. Asked after every step,
    /// so it should be cheap.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Ends a stage here if that was asked for.
///
/// # Errors
/// Returns [`Error::Stopped`] if a stop is requested.
pub fn go_on(progress: &dyn Progress, stage: &str, done: usize, total: usize) -> Result<()> {
    if progress.stop_requested() {
        return Err(Error::Stopped { stage: stage.to_owned(), done, total });
    }
    Ok(())
}

/// [`go_on`] for those who stop by [`ControlFlow`].
pub fn flow(progress: &dyn Progress) -> ControlFlow<()> {
    if progress.stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
