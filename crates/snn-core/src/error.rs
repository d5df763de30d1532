//! What can go wrong in `snn-core`.

use std::path::{Path, PathBuf};

/// The errors of this crate. Functions of tensors alone return Candle's own `Result` instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A config field has a value that makes no sense.
    #[error("config field `{field}` = {value}: {reason}")]
    Config {
        /// Dotted name of the field.
        field: String,
        /// The offending value.
        value: String,
        /// Why it was rejected.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint does not fit what is being loaded.
    #[error("checkpoint {}: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The tensor or field, its value, and what was expected.
        message: String,
    },
}

impl Error {
    /// Makes the error of a config field whose value makes no sense.
    pub fn config(field: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), value: value.to_string(), reason: reason.into() }
    }

    /// Puts `parent` in front of the field's name, for a config that is a field of another one.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        if let Self::Config { field, .. } = &mut self {
            *field = format!("{parent}.{field}");
        }
        self
    }

    /// Puts `to` in the place of `from` at the beginning of the field's name, for a config that is called otherwise where it is a field.
    #[must_use]
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        if let Self::Config { field, .. } = &mut self
            && let Some(rest) = field.strip_prefix(from)
        {
            *field = format!("{to}{rest}");
        }
        self
    }

    /// Makes the error of a checkpoint that does not fit.
    pub fn checkpoint(path: &Path, message: impl ToString) -> Self {
        Self::Checkpoint { path: path.to_owned(), message: message.to_string() }
    }

    /// Makes the error of a failed file operation, for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Lets functions that return Candle's `Result` pass these errors on. The message stays.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
