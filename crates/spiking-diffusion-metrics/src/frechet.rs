//! Fréchet distance between Gaussians.

use candle_core::Tensor;
use faer::{Mat, MatRef, Side};

use crate::input::{self, Rows};
use crate::stats::check_count;
use crate::{Error, FeatureStats, Result};

/// Eigenvalues below minus this fraction of the largest are no rounding: the matrix is not a covariance.
const INDEFINITE: f64 = 1e-3;

/// Eigenvalues whose smallest is more than this fraction of the largest have roots to ten digits of the largest.
const REGULAR: f64 = 1e-11;

/// Measures how far two sets of features are apart, by the Fréchet distance between their Gaussians. It is FID if the
/// features are Inception's.
///
/// `d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))`, in `f64`.
///
/// With `S = F F^T` from the symmetric eigen-decompositions, the last trace is the sum of the singular values
/// of `F_a^T F_b`. It is real by construction, and the square roots are taken before anything cancels, so that fewer
/// samples than features (a singular `S`) cost no precision and need no offset on the diagonal. Eigenvalues
/// that are rounding (negative, or below `D eps` times the largest) count as 0. Covariances that are far from singular
/// take a faster way to the same number: the roots of the eigenvalues of `L^T S_b L`, where `S_a = L L^T`.
///
/// The distance is not clipped: identical statistics give 0 up to rounding, of either sign. The estimate from `N` samples is
/// biased by `O(1 / N)`, so compare only numbers with the same `N`.
///
/// # Errors
/// Returns an error if the numbers of features differ, if a covariance has a clearly negative eigenvalue, or if a
/// decomposition does not converge.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{FeatureStats, frechet_distance};
///
/// let a = FeatureStats::new(vec![0.0, 0.0], vec![1.0, 0.0, 0.0, 1.0], None)?;
/// let b = FeatureStats::new(vec![3.0, 0.0], vec![4.0, 0.0, 0.0, 1.0], None)?;
/// assert!((frechet_distance(&a, &b)? - (9.0 + (2.0 - 1.0f64).powi(2))).abs() < 1e-12);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn frechet_distance(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    input::same_dims(a.dims(), b.dims())?;
    let gap = squared_gap(a.mean(), b.mean());
    finite(gap + trace(a) + trace(b) - 2.0 * trace_of_root(a, b)?)
}

/// Refuses a distance that is none, as of numbers whose squares no f64 holds.
fn finite(distance: f64) -> Result<f64> {
    match distance.is_finite() {
        true => Ok(distance),
        false => {
            Err(Error::NonFinite { what: "distance of the statistics", row: 0, column: 0, value: distance })
        }
    }
}

/// Computes [`frechet_distance`] from features in memory, which is less work when there are few samples.
///
/// The number is the same as that of the sets' [`FeatureStats`]. If neither set has more samples than
/// features, `tr((S_a S_b)^(1/2))` is the sum of the singular values of `A B^T`, where the rows of `A` are the
/// centred samples over `sqrt(N - 1)`: an `N x M` matrix, and no covariance is formed.
///
/// # Shapes
/// `a: [N, D]`, `b: [M, D]`.
///
/// # Errors
/// Returns an error if the numbers of features differ, if a feature is not finite, if a set has fewer than two rows, or if a
/// decomposition does not converge.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::frechet_distance_of_features;
///
/// let a = Tensor::new(&[[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]], &Device::Cpu)?;
/// let b = (&a + 2.0)?;
/// assert!((frechet_distance_of_features(&a, &b)? - 12.0).abs() < 1e-12);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn frechet_distance_of_features(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (x, y) = input::feature_pair(a, b, ["first features", "second features"])?;
    distance_of_rows(&x, &y)
}

/// [`frechet_distance_of_features`] of rows that have been checked.
pub(crate) fn distance_of_rows(x: &Rows, y: &Rows) -> Result<f64> {
    if x.rows.max(y.rows) > x.cols {
        return frechet_distance(&FeatureStats::from_rows(x)?, &FeatureStats::from_rows(y)?);
    }
    let ((mean_x, x), (mean_y, y)) = (centred(x)?, centred(y)?);
    let cross = &x * y.transpose();
    let singular = cross.singular_values().map_err(no_convergence)?;
    let traces = x.squared_norm_l2() + y.squared_norm_l2();
    finite(squared_gap(&mean_x, &mean_y) + traces - 2.0 * singular.iter().sum::<f64>())
}

/// Computes the number that the Spiking-Diffusion paper prints as FID, which is not the Fréchet distance, for comparison with
/// the paper's Table 1 only.
///
/// `d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr(U s^(1/2) V^T)` with `S_a S_b = U s V^T`, a singular value
/// decomposition. `U s^(1/2) V^T` squares to `S_a S_b` only if the two covariances commute; otherwise the number
/// differs from the distance.
///
/// # Errors
/// Returns an error if the numbers of features differ or if the decomposition does not converge.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{FeatureStats, frechet_distance, frechet_distance_paper};
///
/// let a = FeatureStats::new(vec![0.0, 0.0], vec![2.0, 1.0, 1.0, 3.0], None)?;
/// let b = FeatureStats::new(vec![0.0, 0.0], vec![5.0, -2.0, -2.0, 1.0], None)?;
/// assert!((frechet_distance_paper(&a, &a)?).abs() < 1e-12);
/// assert!((frechet_distance_paper(&a, &b)? - frechet_distance(&a, &b)?).abs() > 0.1);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn frechet_distance_paper(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    input::same_dims(a.dims(), b.dims())?;
    let dims = a.dims();
    let matrix = |s: &FeatureStats| MatRef::from_row_major_slice(s.covariance(), dims, dims).to_owned();
    let product = matrix(a) * matrix(b);
    let svd = product.svd().map_err(no_convergence)?;
    let (u, s, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let along = |i: usize| u.col(i).iter().zip(v.col(i).iter()).map(|(u, v)| u * v).sum::<f64>();
    let root: f64 = (0..dims).map(|i| s[i].max(0.0).sqrt() * along(i)).sum();
    finite(squared_gap(a.mean(), b.mean()) + trace(a) + trace(b) - 2.0 * root)
}

fn squared_gap(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The mean, and the centred samples over `sqrt(N - 1)` as rows.
fn centred(rows: &Rows) -> Result<(Vec<f64>, Mat<f64>)> {
    check_count(Some(rows.rows as u64))?;
    let (mean, scale) = (rows.column_means(), ((rows.rows - 1) as f64).sqrt());
    let matrix = Mat::from_fn(rows.rows, rows.cols, |n, d| (rows.row(n)[d] - mean[d]) / scale);
    Ok((mean, matrix))
}

fn trace(stats: &FeatureStats) -> f64 {
    stats.covariance().iter().step_by(stats.dims() + 1).sum()
}

/// `tr((S_a S_b)^(1/2))`.
fn trace_of_root(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    match regular_trace_of_root(a, b)? {
        Some(trace) => Ok(trace),
        None => singular_trace_of_root(a, b),
    }
}

/// Sum of the roots of the eigenvalues of `L^T S_b L` with `S_a = L L^T`, in half the time of singular values; `None`
/// if the roots would lose too many digits.
fn regular_trace_of_root(a: &FeatureStats, b: &FeatureStats) -> Result<Option<f64>> {
    let Ok(cholesky) = covariance(a).llt(Side::Lower) else { return Ok(None) };
    let inner = cholesky.L().transpose() * covariance(b) * cholesky.L();
    let values = inner.self_adjoint_eigenvalues(Side::Lower).map_err(no_convergence)?;
    // Ascending order.
    let is_regular = values[0] > REGULAR * values[values.len() - 1];
    Ok(is_regular.then(|| values.iter().map(|value| value.sqrt()).sum()))
}

/// Sum of the singular values of `F_a^T F_b`.
fn singular_trace_of_root(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    let (left, right) = rayon::join(|| factor(covariance(a)), || factor(covariance(b)));
    let cross = left?.transpose() * right?;
    if cross.nrows() == 0 || cross.ncols() == 0 {
        return Ok(0.0);
    }
    let singular = cross.singular_values().map_err(no_convergence)?;
    Ok(singular.iter().sum())
}

fn covariance(stats: &FeatureStats) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(stats.covariance(), stats.dims(), stats.dims())
}

/// `F [D, rank]` with `F F^T = S`: the eigenvectors, each times the square root of its eigenvalue.
fn factor(covariance: MatRef<'_, f64>) -> Result<Mat<f64>> {
    let dims = covariance.nrows();
    let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(no_convergence)?;
    let (values, vectors) = (eigen.S().column_vector(), eigen.U());
    let (smallest, largest) = (values[0], values[dims - 1].max(0.0));
    if smallest < -INDEFINITE * largest {
        return Err(Error::Covariance(format!("eigenvalue {smallest} beside a largest of {largest}")));
    }
    let rounding = dims as f64 * f64::EPSILON * largest;
    // Ascending order: what counts comes last.
    let skip = (0..dims).take_while(|i| values[*i] <= rounding).count();
    Ok(Mat::from_fn(dims, dims - skip, |row, i| vectors[(row, skip + i)] * values[skip + i].sqrt()))
}

fn no_convergence(error: impl std::fmt::Debug) -> Error {
    Error::Covariance(format!("decomposition failed: {error:?}"))
}
