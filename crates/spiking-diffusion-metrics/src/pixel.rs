//! Pixel metrics between images that belong together: a reconstruction and its original.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::input::{self, Rows};
use crate::{Error, Result};

/// Measures how far each image is from its original, by the mean squared error.
///
/// `mse[n] = mean over (c, h, w) of (a - b)^2`, computed in `f64`.
///
/// # Shapes
/// `a`, `b`: `[N, C, H, W]`, floating point -> `N` values; [`mean`] gives the number of a table.
///
/// # Errors
/// Returns an error if the shapes differ or have an empty axis, or if a pixel is not finite.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::mse;
///
/// let a = Tensor::new(&[[[[0.0, 1.0]]]], &Device::Cpu)?; // [1, 1, 1, 2]
/// let b = Tensor::new(&[[[[0.0, 0.5]]]], &Device::Cpu)?;
/// assert_eq!(mse(&a, &b)?, [0.125]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let (a, b) = image_pair(a, b)?;
    let one = |n: usize| {
        let (a, b) = (a.row(n), b.row(n));
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64
    };
    Ok((0..a.rows).into_par_iter().map(one).collect())
}

/// Measures how close each image is to its original, by the peak signal-to-noise ratio in decibels.
///
/// `psnr[n] = 10 log10(data_range^2 / mse[n])`, infinite for equal images. Its average over images is
/// scikit-image's number; torchmetrics' default is one ratio of the error averaged over all images, which
/// [`mse`] gives.
///
/// `data_range` is the largest pixel minus the smallest of the image format: 1 for `[0, 1]`.
///
/// # Shapes
/// `a`, `b`: `[N, C, H, W]`, floating point -> `N` values.
///
/// # Errors
/// Returns the errors of [`mse`], and an error if `data_range` or its square is not a positive number.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::psnr;
///
/// let a = Tensor::new(&[[[[0.0, 1.0]]]], &Device::Cpu)?;
/// let b = Tensor::new(&[[[[0.1, 0.9]]]], &Device::Cpu)?;
/// assert!((psnr(&a, &b, 1.0)?[0] - 20.0).abs() < 1e-9);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn psnr(a: &Tensor, b: &Tensor, data_range: f64) -> Result<Vec<f64>> {
    input::check_square("data_range", data_range)?;
    Ok(mse(a, b)?.into_iter().map(|e| 10.0 * (data_range * data_range / e).log10()).collect())
}

/// Averages the values of the images into the number of a table, adding them in the order of the images.
///
/// `mean = sum over n of values[n] / N`
///
/// # Errors
/// Returns an error if there are no values.
///
/// # Examples
/// ```
/// assert_eq!(spiking_diffusion_metrics::mean(&[1.0, 2.0])?, 1.5);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn mean(values: &[f64]) -> Result<f64> {
    if values.is_empty() {
        return Err(Error::TooFew { what: "values to average", need: 1, got: 0 });
    }
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

/// Both image tensors, checked to be of the same shape.
pub(crate) fn image_pair(a: &Tensor, b: &Tensor) -> Result<(Rows, Rows)> {
    if a.dims() != b.dims() {
        let (left, right) = (a.dims().to_vec(), b.dims().to_vec());
        return Err(Error::Mismatch { what: "image shapes", left, right });
    }
    Ok((input::images(a, "first images")?, input::images(b, "second images")?))
}
