//! Where images come from, a batch at a time.

mod file;
#[cfg(feature = "images")]
mod folder;

use candle_core::Tensor;

pub use file::TensorFile;
#[cfg(feature = "images")]
pub use folder::ImageFolder;

use crate::Result;

/// A set of images that need not be in memory: a tensor, a file, a folder.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::{FeatureStats, ImageSource, Pixels, Result};
///
/// /// As many black images as one likes.
/// struct Night(usize);
///
/// impl ImageSource for Night {
///     fn count(&self) -> usize {
///         self.0
///     }
///     fn read(&self, _start: usize, count: usize) -> Result<Tensor> {
///         Ok(Tensor::zeros((count, 1, 2, 2), DType::F32, &Device::Cpu)?)
///     }
/// }
///
/// let stats = FeatureStats::from_images(&Pixels::new(1, 2, 2), &Night(100_000), 1000)?;
/// assert_eq!(stats.count(), Some(100_000));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub trait ImageSource {
    /// Number of images.
    fn count(&self) -> usize;

    /// The images `start .. start + count`, as `[count, C, H, W]`.
    ///
    /// # Errors
    /// If they cannot be read, or are not all of one size.
    fn read(&self, start: usize, count: usize) -> Result<Tensor>;

    /// The same images in the same order as tensors `[n, C, H, W]` of one size each, for extractors that
    /// [take any size](crate::FeatureExtractor::takes_any_size).
    ///
    /// As it is, one tensor by [`read`](Self::read). A source of images of several sizes has its own; one that wraps another
    /// passes it on.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_sizes(&self, start: usize, count: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.read(start, count)?])
    }
}

/// Images `[N, C, H, W]` in memory.
impl ImageSource for Tensor {
    fn count(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor> {
        self.dims4()?;
        Ok(self.narrow(0, start, count)?)
    }
}
