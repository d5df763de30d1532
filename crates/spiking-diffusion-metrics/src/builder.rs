//! Feature statistics, batch by batch.

use candle_core::Tensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::input::{self, Rows};
use crate::stats::check_count;
use crate::{Error, FeatureStats, Result};

/// Rows that are centred at a time.
const PART: usize = 1024;

/// Collects [`FeatureStats`] from features that are never all in memory: from batches, and from other builders.
///
/// It holds the count `n`, the mean `m` and the scatter `M = sum_i (x[i] - m) (x[i] - m)^T`. Two builders merge
/// into `m = m_a + (m_b - m_a) n_b / n`, `M = M_a + M_b + (m_b - m_a) (m_b - m_a)^T n_a n_b / n` (Chan et al.,
/// 1979): a large mean costs no precision, and the order of the batches matters to rounding only.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::FeatureStatsBuilder;
///
/// let mut builder = FeatureStatsBuilder::new(1)?;
/// builder.update(&Tensor::new(&[[1f32], [3.0]], &Device::Cpu)?)?;
/// builder.update(&Tensor::new(&[[5f32]], &Device::Cpu)?)?;
/// let stats = builder.finish()?;
/// assert_eq!((stats.mean(), stats.covariance(), stats.count()), (&[3.0][..], &[4.0][..], Some(3)));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FeatureStatsBuilder {
    count: u64,
    mean: Vec<f64>,
    scatter: Mat<f64>,
}

impl FeatureStatsBuilder {
    /// A builder for samples of `dims` features, of which it has none yet.
    ///
    /// # Errors
    /// Returns an error if `dims` is 0 or if there is no memory for so large a covariance.
    ///
    /// # Examples
    /// ```
    /// let builder = spiking_diffusion_metrics::FeatureStatsBuilder::new(2048)?;
    /// assert_eq!((builder.dims(), builder.count()), (2048, 0));
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn new(dims: usize) -> Result<Self> {
        if dims == 0 {
            return Err(Error::TooFew { what: "features", need: 1, got: 0 });
        }
        input::check_memory("dims", dims, dims.checked_mul(dims))?;
        Ok(Self { count: 0, mean: vec![0.0; dims], scatter: Mat::zeros(dims, dims) })
    }

    /// The number of features `D`.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    /// The number of samples so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds the samples of a batch `[N, D]`. A batch without rows changes nothing.
    ///
    /// # Errors
    /// Returns an error, and leaves the builder as it was, if the features have another shape or if one is not finite. The row
    /// that the error names is counted over the samples of earlier batches too.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use spiking_diffusion_metrics::FeatureStatsBuilder;
    ///
    /// let mut builder = FeatureStatsBuilder::new(2)?;
    /// let error = builder.update(&Tensor::new(&[[0.0, f64::NAN]], &Device::Cpu)?).unwrap_err();
    /// assert_eq!(error.to_string(), "features: row 0, column 1 is NaN");
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn update(&mut self, features: &Tensor) -> Result<()> {
        self.add(&input::features(features, "features", self.count as usize)?)
    }

    /// [`update`](Self::update) with rows that have been checked.
    pub(crate) fn add(&mut self, batch: &Rows) -> Result<()> {
        input::same_dims(self.dims(), batch.cols)?;
        for part in batch.values.chunks(PART * batch.cols) {
            let (mean, rows) = (input::column_means(part, batch.cols), part.len() / batch.cols);
            let centred = input::less(part, &mean);
            self.add_scatter(MatRef::from_row_major_slice(&centred, rows, batch.cols), 1.0);
            self.shift_mean(&mean, rows as u64);
        }
        Ok(())
    }

    /// Adds the samples of another builder.
    ///
    /// # Errors
    /// Returns an error if the other builder has another number of features.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use spiking_diffusion_metrics::FeatureStatsBuilder;
    ///
    /// let (mut left, mut right) = (FeatureStatsBuilder::new(1)?, FeatureStatsBuilder::new(1)?);
    /// left.update(&Tensor::new(&[[1f32], [3.0]], &Device::Cpu)?)?;
    /// right.update(&Tensor::new(&[[5f32]], &Device::Cpu)?)?;
    /// left.merge(&right)?;
    /// assert_eq!(left.finish()?.covariance(), [4.0]);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        input::same_dims(self.dims(), other.dims())?;
        if other.count > 0 {
            self.scatter += &other.scatter;
            self.shift_mean(&other.mean, other.count);
        }
        Ok(())
    }

    /// Computes the statistics of the samples so far. The builder can take more samples afterwards.
    ///
    /// # Errors
    /// Returns an error if there are fewer than two samples.
    ///
    /// # Examples
    /// ```
    /// let builder = spiking_diffusion_metrics::FeatureStatsBuilder::new(8)?;
    /// assert_eq!(builder.finish().unwrap_err().to_string(), "samples: got 0, need at least 2");
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn finish(&self) -> Result<FeatureStats> {
        check_count(Some(self.count))?;
        let (dims, scale) = (self.dims(), (self.count - 1) as f64);
        let element = |i: usize| {
            let (row, column) = (i / dims, i % dims);
            self.scatter[(row.max(column), row.min(column))] / scale
        };
        FeatureStats::new(self.mean.clone(), (0..dims * dims).map(element).collect(), Some(self.count))
    }

    /// `M += weight X^T X` for rows `X` that have been centred.
    fn add_scatter(&mut self, rows: MatRef<'_, f64>, weight: f64) {
        matmul(self.scatter.as_mut(), Accum::Add, rows.transpose(), rows, weight, Par::Seq);
    }

    /// Takes in the mean of `count` further samples, and adds the scatter between the two means.
    fn shift_mean(&mut self, mean: &[f64], count: u64) {
        let (old, new) = (self.count as f64, count as f64);
        let gap: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.add_scatter(MatRef::from_row_major_slice(&gap, 1, gap.len()), old * new / (old + new));
        self.mean.iter_mut().zip(&gap).for_each(|(m, g)| *m += g * (new / (old + new)));
        self.count += count;
    }
}
