//! What can go wrong in `vq-svae`.

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
}

impl Error {
    pub(crate) fn config(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        snn_core::Error::config(format!("vqsvae.{field}"), value, reason).into()
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            Error::Core(error) => error.into(),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
