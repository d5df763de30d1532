//! Fréchet distance between Gaussians.

use faer::{Mat, MatRef, Side};

use crate::{Error, FeatureStats, Result};

/// Eigenvalues below minus this fraction of the largest are no rounding: the matrix is not a covariance.
const INDEFINITE: f64 = 1e-3;

/// Fréchet distance between the Gaussians of two sets of features; FID if the features are Inception's.
///
/// `d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))`, in `f64`.
///
/// With `S = F F^T` from the symmetric eigen-decompositions, the last trace is the sum of the singular values
/// of `F_a^T F_b`: real by construction, and the square roots are taken before anything cancels, so that fewer
/// samples than features (a singular `S`) cost no precision and need no offset on the diagonal. Eigenvalues
/// that are rounding (negative, or below `D eps` times the largest) count as 0.
///
/// Not clipped: identical statistics give 0 up to rounding, of either sign. The estimate from `N` samples is
/// biased by `O(1 / N)`, so compare only numbers with the same `N`.
///
/// # Errors
/// If the numbers of features differ, a covariance has a clearly negative eigenvalue, or a decomposition does
/// not converge.
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
    if a.dims() != b.dims() {
        let (left, right) = (vec![a.dims()], vec![b.dims()]);
        return Err(Error::Mismatch { what: "feature dimensions", left, right });
    }
    let gap: f64 = a.mean().iter().zip(b.mean()).map(|(a, b)| (a - b) * (a - b)).sum();
    Ok(gap + trace(a) + trace(b) - 2.0 * trace_of_root(a, b)?)
}

fn trace(stats: &FeatureStats) -> f64 {
    stats.covariance().iter().step_by(stats.dims() + 1).sum()
}

/// `tr((S_a S_b)^(1/2))`.
fn trace_of_root(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    let (left, right) = rayon::join(|| factor(a), || factor(b));
    let cross = left?.transpose() * right?;
    if cross.nrows() == 0 || cross.ncols() == 0 {
        return Ok(0.0);
    }
    let singular = cross.singular_values().map_err(no_convergence)?;
    Ok(singular.iter().sum())
}

/// `F [D, rank]` with `F F^T = S`: the eigenvectors, each times the square root of its eigenvalue.
fn factor(stats: &FeatureStats) -> Result<Mat<f64>> {
    let dims = stats.dims();
    let covariance = MatRef::from_row_major_slice(stats.covariance(), dims, dims);
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
