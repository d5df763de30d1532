//! How a long job tells somebody how far it is. Libraries never print.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// Follows a long job, to show how far it is and to stop it. By default, every method does nothing.
pub trait Progress {
    /// Is called when a stage of `total` units begins, of which an earlier run has done `done`.
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        let _ = (stage, total, done);
    }
    /// Is called when `done` units are done; `loss` is the latest loss, if the stage has one.
    fn advance(&mut self, done: usize, loss: Option<f64>) {
        let _ = (done, loss);
    }
    /// Is called when the stage is over.
    fn end(&mut self) {}
    /// Is called with something that is worth a line of text.
    fn message(&mut self, text: &str) {
        let _ = text;
    }
    /// Says whether the job is to stop at its next good moment; a training writes a checkpoint first. It is asked after every
    /// step, and so should be cheap.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Stops a stage here if that was asked for: call it where nothing is lost by stopping.
///
/// # Errors
/// Returns [`Error::Stopped`] if a stop is requested.
pub fn go_on(progress: &dyn Progress, stage: &str, done: usize, total: usize) -> Result<()> {
    if progress.stop_requested() {
        return Err(Error::Stopped { stage: stage.to_owned(), done, total });
    }
    Ok(())
}

/// [`go_on`] for jobs that are stopped by a [`ControlFlow`].
pub fn flow(progress: &dyn Progress) -> ControlFlow<()> {
    if progress.stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// A [`Progress`] for when nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
