//! What can go wrong in `absorbing-diffusion`.

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
    /// A tensor has another shape than the other arguments require.
    #[error("{what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The argument, or what returned it.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The right shape.
        expected: Vec<usize>,
    },
    /// An element of a tensor has a value that makes no sense: a code outside the codebook, a NaN logit.
    #[error("{what} {at} is {value}, expected {expected}")]
    Value {
        /// What the element is.
        what: &'static str,
        /// Where it is.
        at: String,
        /// The offending value.
        value: String,
        /// What it should have been.
        expected: String,
    },
}

impl Error {
    pub(crate) fn config(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        snn_core::Error::config(field, value, reason).into()
    }

    pub(crate) fn value(
        what: &'static str,
        at: impl ToString,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { what, at: at.to_string(), value: value.to_string(), expected: expected.into() }
    }

    pub(crate) fn check_shape(what: &'static str, got: &[usize], expected: &[usize]) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        Err(Self::Shape { what, got: got.to_vec(), expected: expected.to_vec() })
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            Error::Core(error) => error.into(),
            other => Self::wrap(other),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
