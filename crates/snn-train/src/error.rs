//! What can go wrong in a training.

use std::path::{Path, PathBuf};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A config value, a file or a checkpoint was rejected; the message names it.
    #[error(transparent)]
    Core(#[from] snn_core::Error),
    /// A run's folder or one of its files cannot be used.
    #[error("{}: {message}", path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A worker cannot speak with the others, or what they have does not fit.
    #[error("worker {rank} of {size}: {message}")]
    Worker {
        /// The worker that found it.
        rank: usize,
        /// The number of workers.
        size: usize,
        /// What is wrong.
        message: String,
    },
    /// A training has diverged. Its last good checkpoint, if there is one, is still there.
    #[error("{stage}: the {what} of step {step} is {value}; {}", kept_checkpoint(kept.as_deref()))]
    NotFinite {
        /// The stage.
        stage: String,
        /// What is not finite, such as the loss.
        what: &'static str,
        /// The step, counted from 0.
        step: usize,
        /// The value that is not finite.
        value: f64,
        /// The last good checkpoint, if there is one.
        kept: Option<PathBuf>,
    },
    /// A stop was [asked for](crate::Progress::stop_requested). What has been done so far is kept.
    #[error("stopped in stage `{stage}` at {done} of {total}")]
    Stopped {
        /// The stage.
        stage: String,
        /// How many of its steps, images, passes or kilobytes are done.
        done: usize,
        /// How many there are in all.
        total: usize,
    },
}

fn kept_checkpoint(path: Option<&Path>) -> String {
    match path {
        Some(path) => format!(
            "{} still holds the last good state; start again in another folder with a lower learning rate",
            path.display()
        ),
        None => "no checkpoint had been written yet; start again with a lower learning rate".to_owned(),
    }
}

impl Error {
    /// Makes the error of a config field whose value makes no sense.
    pub fn config(field: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        snn_core::Error::config(field, value, reason).into()
    }

    /// Puts `parent` in front of the field's name, for a config that is a field of another one.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        match self {
            Self::Core(e) => e.within(parent).into(),
            other => other,
        }
    }

    /// Makes the error of a run's folder or file that cannot be used.
    pub fn run(path: &Path, message: impl Into<String>) -> Self {
        Self::Run { path: path.to_owned(), message: message.into() }
    }

    /// Makes the error of a worker that cannot go on with the others.
    pub fn worker(workers: &dyn crate::Collective, message: impl Into<String>) -> Self {
        Self::Worker { rank: workers.rank(), size: workers.size(), message: message.into() }
    }

    /// Makes the error of a failed file operation, for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| snn_core::Error::io(path)(source).into()
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
