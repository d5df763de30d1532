//! What can go wrong in this crate.

use std::path::{Path, PathBuf};

use candle_core::DType;

/// The errors of this crate. Each message names the argument, field or file at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The training of a classifier failed, or was stopped.
    #[error(transparent)]
    Training(#[from] snn_train::Error),
    /// Parameters could not be made.
    #[error(transparent)]
    Core(#[from] snn_core::Error),
    /// An argument has the wrong number of axes or the wrong sizes.
    #[error("{what}: expected {expected}, got {got:?}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// Two arguments that belong together have different shapes.
    #[error("{what} differ: {left:?} and {right:?}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// Shape of the first argument.
        left: Vec<usize>,
        /// Shape of the second argument.
        right: Vec<usize>,
    },
    /// An argument is an integer tensor where a floating-point one is needed.
    #[error("{what}: expected a floating-point tensor, got {got:?}")]
    DType {
        /// The argument.
        what: &'static str,
        /// Its type.
        got: DType,
    },
    /// An argument holds a NaN or an infinity.
    #[error("{what}: row {row}, column {column} is {value}")]
    NonFinite {
        /// The argument.
        what: &'static str,
        /// The sample (for images, the index of the image).
        row: usize,
        /// The feature (for images, the index into the flattened `C x H x W` pixels).
        column: usize,
        /// The offending value.
        value: f64,
    },
    /// There are too few samples for the quantity that is asked for.
    #[error("{what}: got {got}, need at least {need}")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// How many there must be.
        need: usize,
        /// How many there are.
        got: usize,
    },
    /// A configuration field or a scalar argument has a value that makes no sense.
    #[error("`{field}` = {value}: {reason}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The offending value.
        value: String,
        /// Why it was rejected.
        reason: String,
    },
    /// A subset of rows cannot be used.
    #[error("subset {subset} of `{side}`: {message}")]
    Subset {
        /// Position in the list of subsets.
        subset: usize,
        /// Which of the two feature sets.
        side: &'static str,
        /// The offending index, and what is wrong with it.
        message: String,
    },
    /// A matrix is not a covariance, or its spectrum could not be computed.
    #[error("covariance: {0}")]
    Covariance(String),
    /// A file could not be opened, written or renamed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be loaded from the network.
    #[error("{url}: {message}; the file belongs at {}, whoever brings it there", destination.display())]
    Download {
        /// Where it was to come from.
        url: String,
        /// Where it was to go.
        destination: PathBuf,
        /// What the server or the network said.
        message: String,
    },
    /// Something was stopped by the caller.
    #[error("stopped: {what}")]
    Stopped {
        /// What was stopped, and what is left of it.
        what: String,
    },
    /// The content of a file is not what it should be.
    #[error("{}: `{field}`: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The field, or `archive` for the file as a whole.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    pub(crate) fn config(field: &'static str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { field, value: value.to_string(), reason: reason.into() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, field: &str, message: impl ToString) -> Self {
        Self::File { path: path.to_owned(), field: field.to_owned(), message: message.to_string() }
    }
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
