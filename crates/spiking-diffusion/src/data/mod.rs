//! Images and labels in memory: read from files, drawn by a program, or handed in by the caller.

mod cifar;
#[cfg(feature = "download")]
mod download;
mod folder;
mod gzip;
#[cfg(feature = "huggingface")]
mod huggingface;
pub mod idx;
mod idx_split;
mod sets;
mod split;
pub(crate) mod synthetic;

use std::path::Path;

use sha2::{Digest, Sha256};

pub use sets::{DataSet, Partial};
pub use split::Split;
pub use synthetic::synthetic_digits;

use crate::error::{Error, Result};

/// A data set: two splits of images of one shape.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its name, as in reports and default folders.
    pub name: String,
    /// Whether a program drew it.
    pub synthetic: bool,
    /// What its files lack of the official ones, if they do.
    pub partial: Option<String>,
    /// What networks are trained on.
    pub train: Split,
    /// What they are measured on.
    pub test: Split,
}

impl Dataset {
    /// Joins two splits.
    ///
    /// # Errors
    /// The splits' images have different shapes.
    /// # Examples
    /// ```
    /// use spiking_diffusion::data::{Dataset, Split};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let grey = |n: usize| Split::new(vec![128; n * 64], vec![0; n], (1, 8, 8));
    /// let data = Dataset::new("grey", grey(100)?, grey(10)?)?;
    /// assert_eq!((data.train.len(), data.image()), (100, (1, 8, 8)));
    /// # Ok(()) }
    /// ```
    pub fn new(name: impl Into<String>, train: Split, test: Split) -> Result<Self> {
        if train.image() != test.image() {
            let shapes = format!("{:?} and {:?}", train.image(), test.image());
            return Err(Error::config("data", shapes, "training and test images must have one shape"));
        }
        Ok(Self { name: name.into(), synthetic: false, partial: None, train, test })
    }

    /// `(channels, height, width)` of every image.
    pub fn image(&self) -> (usize, usize, usize) {
        self.train.image()
    }

    /// SHA-256 of all pixels and labels.
    pub(crate) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        [&self.train, &self.test].into_iter().for_each(|split| split.hash(&mut hash));
        format!("{:x}", hash.finalize())
    }

    /// With at most the first `n` training images. The test images stay.
    ///
    /// # Errors
    /// `n = 0`.
    pub fn limit(self, n: usize) -> Result<Self> {
        Ok(Self { train: self.train.first(n)?, ..self })
    }
}

/// MNIST from a [folder](DataSet::load); without one, the [built-in digits](synthetic_digits).
///
/// # Errors
/// A folder was named and is wrong in any way: it never falls back.
pub fn mnist(folder: Option<&Path>) -> Result<Dataset> {
    DataSet::Mnist.load(folder, Partial::Reject)
}

/// Fashion-MNIST from a [folder](DataSet::load).
///
/// # Errors
/// See [`DataSet::load`].
pub fn fashion_mnist(folder: &Path) -> Result<Dataset> {
    DataSet::FashionMnist.load(Some(folder), Partial::Reject)
}

/// KMNIST from a [folder](DataSet::load).
///
/// # Errors
/// See [`DataSet::load`].
pub fn kmnist(folder: &Path) -> Result<Dataset> {
    DataSet::Kmnist.load(Some(folder), Partial::Reject)
}

/// EMNIST Letters from a [folder](DataSet::load), upright, labels 0 (A) to 25 (Z).
///
/// # Errors
/// See [`DataSet::load`].
pub fn letters(folder: &Path) -> Result<Dataset> {
    DataSet::Letters.load(Some(folder), Partial::Reject)
}

/// CIFAR-10 from a [folder](DataSet::load), `[3, 32, 32]` in the order red, green, blue.
///
/// # Errors
/// See [`DataSet::load`].
pub fn cifar10(folder: &Path) -> Result<Dataset> {
    DataSet::Cifar10.load(Some(folder), Partial::Reject)
}
