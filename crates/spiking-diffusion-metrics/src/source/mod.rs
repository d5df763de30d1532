//! Where images come from, a batch at a time.

mod file;
#[cfg(feature = "images")]
mod folder;

use candle_core::{DType, Tensor};

pub use file::TensorFile;
#[cfg(feature = "images")]
pub use folder::ImageFolder;

use crate::Result;

/// Gives a set of images batch by batch, so that it need not be in memory: a tensor, a file, a folder, or a source of your
/// own.
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
    /// The number of images.
    fn count(&self) -> usize;

    /// Reads the images `start .. start + count`, as `[count, C, H, W]`.
    ///
    /// # Errors
    /// Returns an error if the images cannot be read or are not all of one size.
    fn read(&self, start: usize, count: usize) -> Result<Tensor>;

    /// Reads the same images in the same order as tensors `[n, C, H, W]` of one size each, for extractors that
    /// [take any size](crate::FeatureExtractor::takes_any_size).
    ///
    /// By default this is one tensor, by [`read`](Self::read). A source of images of several sizes needs an implementation of its
    /// own, and a source that wraps another passes the call on.
    ///
    /// # Errors
    /// Returns an error if the images cannot be read.
    fn read_sizes(&self, start: usize, count: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.read(start, count)?])
    }
}

/// A source of images `[N, C, H, W]` that are in memory.
impl ImageSource for Tensor {
    fn count(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor> {
        self.dims4()?;
        Ok(self.narrow(0, start, count)?)
    }
}

/// Takes the first channel of images whose channels are all equal, as those of a grey image in a file are; none where they differ.
///
/// # Shapes
/// `images: [N, C, H, W]` -> `[N, 1, H, W]`.
/// # Errors
/// Returns an error if there is no channel, or if a tensor operation fails.
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::one_channel;
///
/// let grey = Tensor::ones((2, 3, 4, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(one_channel(&grey)?.unwrap().dims(), [2, 1, 4, 4]);
/// let red = grey.pad_with_zeros(1, 0, 1)?;
/// assert!(one_channel(&red)?.is_none());
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn one_channel(images: &Tensor) -> Result<Option<Tensor>> {
    let first = images.narrow(1, 0, 1)?;
    let differ = images.broadcast_ne(&first)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
    Ok((differ == 0.).then_some(first))
}
