//! Mean and covariance of features.

use candle_core::Tensor;

use crate::features::for_each_batch;
use crate::input::{Rows, check_finite};
use crate::{Error, FeatureExtractor, FeatureStatsBuilder, ImageSource, Result};

/// Holds all that the Fréchet distance needs of a set of features: its mean and unbiased covariance.
///
/// `mean = sum_n x[n] / N`, `covariance = sum_n (x[n] - mean) (x[n] - mean)^T / (N - 1)`, in `f64`.
///
/// [`read_npz`](FeatureStats::read_npz) and [`write_npz`](FeatureStats::write_npz) exchange statistics with pytorch-fid.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::FeatureStats;
///
/// let stats = FeatureStats::from_features(&Tensor::new(&[[0.0, 1.0], [2.0, 1.0]], &Device::Cpu)?)?;
/// assert_eq!(stats.mean(), [1.0, 1.0]);
/// assert_eq!(stats.covariance(), [2.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStats {
    mean: Vec<f64>,
    covariance: Vec<f64>,
    count: Option<u64>,
}

impl FeatureStats {
    /// Takes statistics that are already known: `mean [D]`, row-major `covariance [D, D]`, and how many samples they
    /// are of, if that is known.
    ///
    /// # Errors
    /// Returns an error if `D` is 0, if the sizes do not fit, if a value is not finite, if the covariance is not symmetric
    /// (to 1e-6 of its largest element) or has a negative diagonal, or if `count` is below 2.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::FeatureStats;
    ///
    /// let standard_normal = FeatureStats::new(vec![0.0, 0.0], vec![1.0, 0.0, 0.0, 1.0], None)?;
    /// assert_eq!(standard_normal.dims(), 2);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn new(mean: Vec<f64>, covariance: Vec<f64>, count: Option<u64>) -> Result<Self> {
        check_mean(&mean)?;
        check_covariance(&covariance, mean.len())?;
        check_count(count)?;
        Ok(Self { mean, covariance, count })
    }

    /// Computes the statistics of features `[N, D]` that are in memory; [`FeatureStatsBuilder`] takes them batch by batch.
    ///
    /// # Errors
    /// Returns an error if `N < 2`, if `D` is 0, or if a feature is not finite.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use spiking_diffusion_metrics::FeatureStats;
    ///
    /// let features = Tensor::new(&[[1f32], [3.0], [5.0]], &Device::Cpu)?;
    /// assert_eq!(FeatureStats::from_features(&features)?.covariance(), [4.0]);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn from_features(features: &Tensor) -> Result<Self> {
        // A tensor of another rank is rejected by `update`, by name.
        let mut builder = FeatureStatsBuilder::new(features.dims().get(1).copied().unwrap_or(1))?;
        builder.update(features)?;
        builder.finish()
    }

    /// [`from_features`](Self::from_features) of rows that have been checked.
    pub(crate) fn from_rows(rows: &Rows) -> Result<Self> {
        let mut builder = FeatureStatsBuilder::new(rows.cols)?;
        builder.add(rows)?;
        builder.finish()
    }

    /// Computes the statistics of the features of images `[N, C, H, W]`, with no more than one batch of images and features in
    /// memory.
    ///
    /// # Errors
    /// Returns the errors of [`extract_batches`](crate::extract_batches) and of [`FeatureStats::from_features`].
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use spiking_diffusion_metrics::{FeatureStats, Pixels};
    ///
    /// let images = Tensor::zeros((5, 1, 2, 2), DType::F32, &Device::Cpu)?;
    /// let stats = FeatureStats::from_images(&Pixels::new(1, 2, 2), &images, 2)?;
    /// assert_eq!((stats.dims(), stats.count()), (4, Some(5)));
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn from_images(
        extractor: &dyn FeatureExtractor,
        images: &dyn ImageSource,
        batch_size: usize,
    ) -> Result<Self> {
        let mut builder = FeatureStatsBuilder::new(extractor.dims())?;
        for_each_batch(extractor, images, batch_size, |features| builder.update(&features))?;
        builder.finish()
    }

    /// The number of features `D`.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    /// The mean, `[D]`.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance, `[D, D]`, row-major.
    #[must_use]
    pub fn covariance(&self) -> &[f64] {
        &self.covariance
    }

    /// The number of samples; `None` if the statistics come from a file that does not say.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.count
    }
}

/// Rejects a mean that is empty or not finite.
pub(crate) fn check_mean(mean: &[f64]) -> Result<()> {
    if mean.is_empty() {
        return Err(Error::TooFew { what: "features", need: 1, got: 0 });
    }
    check_finite(mean, mean.len(), "mean", 0)
}

/// Rejects a matrix that is not `dims x dims`, finite, symmetric and non-negative on its diagonal.
pub(crate) fn check_covariance(covariance: &[f64], dims: usize) -> Result<()> {
    if Some(covariance.len()) != dims.checked_mul(dims) {
        let expected = format!("[{dims}, {dims}]");
        return Err(Error::Shape { what: "covariance", expected, got: vec![covariance.len()] });
    }
    check_finite(covariance, dims, "covariance", 0)?;
    if let Some(i) = (0..dims).find(|i| covariance[i * dims + i] < 0.0) {
        let value = covariance[i * dims + i];
        return Err(Error::Covariance(format!("negative variance {value} of feature {i}")));
    }
    check_symmetric(covariance, dims)
}

/// Rejects a number of samples that have no covariance.
pub(crate) fn check_count(count: Option<u64>) -> Result<()> {
    match count {
        Some(got @ 0..=1) => Err(Error::TooFew { what: "samples", need: 2, got: got as usize }),
        _ => Ok(()),
    }
}

fn check_symmetric(covariance: &[f64], dims: usize) -> Result<()> {
    let largest = covariance.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
    for row in 0..dims {
        for column in 0..row {
            let (lower, upper) = (covariance[row * dims + column], covariance[column * dims + row]);
            if (lower - upper).abs() > 1e-6 * largest {
                let message = format!("not symmetric at ({row}, {column}): {lower} and {upper}");
                return Err(Error::Covariance(message));
            }
        }
    }
    Ok(())
}
