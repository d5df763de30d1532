//! What can go wrong in a run.

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
    /// A training or a run's folder: something went off to infinity, was stopped, or cannot be used.
    #[error(transparent)]
    Training(#[from] snn_train::Error),
    /// The autoencoder rejected something.
    #[error(transparent)]
    VqSvae(#[from] vq_svae::Error),
    /// The FSVAE rejected something.
    #[error(transparent)]
    Fsvae(#[from] fsvae::Error),
    /// The diffusion or its denoiser rejected something.
    #[error(transparent)]
    Diffusion(#[from] absorbing_diffusion::Error),
    /// A metric could not be computed.
    #[error(transparent)]
    Metrics(#[from] spiking_diffusion_metrics::Error),
    /// A data file is missing, damaged, or does not fit the others.
    #[error("{}: {message}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, with the offending value.
        message: String,
    },
    /// A data set could not be loaded from the network.
    #[error("{set}: {source}; or {advice}")]
    Download {
        /// The data set.
        set: &'static str,
        /// Which file, from where to where, and what went wrong.
        source: Box<spiking_diffusion_metrics::Error>,
        /// What to put where instead.
        advice: String,
    },
}

impl Error {
    /// Makes the error of a config field whose value makes no sense.
    pub fn config(field: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        snn_core::Error::config(field, value, reason).into()
    }

    /// Makes the error of a data file that cannot be used.
    pub fn data(path: &Path, message: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), message: message.into() }
    }

    /// Makes the error of a run's folder or file that cannot be used.
    pub fn run(path: &Path, message: impl Into<String>) -> Self {
        snn_train::Error::run(path, message).into()
    }

    /// Makes the error of a failed file operation, for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| snn_core::Error::io(path)(source).into()
    }
}

/// Refuses to write over a file.
pub(crate) fn absent(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::run(
            path,
            "is there already, and is not overwritten: name another file, or another folder",
        ));
    }
    Ok(())
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
