//! Images and labels in memory: read from files, drawn by a program, or handed in by the caller.

mod cifar;
mod dataset;
#[cfg(feature = "download")]
pub(crate) mod download;
mod folder;
mod gzip;
#[cfg(feature = "huggingface")]
mod huggingface;
pub mod idx;
mod idx_split;
mod known;
mod load;
mod partial;
mod split;
pub(crate) mod synthetic;

use std::path::Path;

pub use dataset::Dataset;
pub use known::KnownSet;
pub use partial::Partial;
pub use split::Split;
pub use synthetic::synthetic_digits;

use crate::error::Result;

/// Loads MNIST from a [folder](KnownSet::load); without one, the [built-in digits](synthetic_digits).
///
/// # Errors
/// Returns an error if a folder was named and is wrong in any way: it never falls back.
pub fn mnist(folder: Option<&Path>) -> Result<Dataset> {
    KnownSet::Mnist.load(folder, Partial::Reject)
}
