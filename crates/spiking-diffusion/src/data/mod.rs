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

/// Loads Fashion-MNIST from a [folder](KnownSet::load).
///
/// # Errors
/// Returns the errors of [`KnownSet::load`].
pub fn fashion_mnist(folder: &Path) -> Result<Dataset> {
    KnownSet::FashionMnist.load(Some(folder), Partial::Reject)
}

/// Loads KMNIST from a [folder](KnownSet::load).
///
/// # Errors
/// Returns the errors of [`KnownSet::load`].
pub fn kmnist(folder: &Path) -> Result<Dataset> {
    KnownSet::Kmnist.load(Some(folder), Partial::Reject)
}

/// Loads EMNIST Letters from a [folder](KnownSet::load), upright, labels 0 (A) to 25 (Z).
///
/// # Errors
/// Returns the errors of [`KnownSet::load`].
pub fn letters(folder: &Path) -> Result<Dataset> {
    KnownSet::Letters.load(Some(folder), Partial::Reject)
}

/// Loads CIFAR-10 from a [folder](KnownSet::load), `[3, 32, 32]` in the order red, green, blue.
///
/// # Errors
/// Returns the errors of [`KnownSet::load`].
pub fn cifar10(folder: &Path) -> Result<Dataset> {
    KnownSet::Cifar10.load(Some(folder), Partial::Reject)
}
