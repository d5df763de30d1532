//! Kernel distance.

mod table;

use std::collections::HashSet;

use candle_core::Tensor;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, ColRef, Mat, Par};
use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::input::{self, Rows};
use crate::spread::mean_and_std;
use crate::{Error, Result};

/// The rows of the first and of the second feature set that are compared with each other.
pub type SubsetPair = (Vec<usize>, Vec<usize>);

/// The result of [`kernel_distance`]: its mean and population standard deviation over the subsets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KernelDistance {
    /// The mean over the subsets, which is reported as KID.
    pub mean: f64,
    /// The standard deviation over the subsets, with `ddof = 0`. It is not an error of the mean.
    pub std: f64,
}

/// Measures how far two sets of features are apart, by a kernel distance that small sets do not bias. It is KID if the
/// features are Inception's.
///
/// It is the unbiased squared maximum mean discrepancy with `k(x, y) = (x . y / D + 1)^3`, of each pair of subsets
/// `x` (`m` rows of `a`) and `y` (`n` rows of `b`):
///
/// `MMD^2 = sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) -
/// 2 sum_{i, j} k(x_i, y_j) / (m n)`
///
/// Being unbiased, it may be negative, and it is not clipped. It is computed in `f64`, the subsets in parallel, and
/// does not depend on the number of threads. torch-fidelity's protocol is 100 subsets of 1,000 rows, which
/// [`random_subsets`] draws.
///
/// # Shapes
/// `a: [N, D]`, `b: [M, D]`.
///
/// # Errors
/// Returns an error if the numbers of features differ; if a feature is not finite, or so large that the distance is not; if
/// there are no subsets; or if a subset has fewer than two rows, a row twice, or a row that does not exist.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::kernel_distance;
///
/// let a = Tensor::new(&[[0.0], [0.0]], &Device::Cpu)?; // k = 1 within a, and between a and b
/// let b = Tensor::new(&[[1.0], [1.0]], &Device::Cpu)?; // k = 8 within b
/// let kid = kernel_distance(&a, &b, &[(vec![0, 1], vec![0, 1])])?;
/// assert_eq!((kid.mean, kid.std), (1.0 + 8.0 - 2.0, 0.0));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn kernel_distance(a: &Tensor, b: &Tensor, subsets: &[SubsetPair]) -> Result<KernelDistance> {
    let (a, b) = input::feature_pair(a, b, ["first features", "second features"])?;
    distance_of_rows(&a, &b, subsets)
}

/// [`kernel_distance`] of rows that have been checked.
pub(crate) fn distance_of_rows(a: &Rows, b: &Rows, subsets: &[SubsetPair]) -> Result<KernelDistance> {
    if subsets.is_empty() {
        return Err(Error::TooFew { what: "subsets", need: 1, got: 0 });
    }
    for (number, (of_a, of_b)) in subsets.iter().enumerate() {
        check_subset(of_a, a.rows, number, "a")?;
        check_subset(of_b, b.rows, number, "b")?;
    }
    let distances = match table::is_less_work(a, b, subsets) {
        true => table::distances(a, b, subsets),
        false => subsets.par_iter().map(|(of_a, of_b)| mmd(&gather(a, of_a), &gather(b, of_b))).collect(),
    };
    if let Some(subset) = distances.iter().position(|distance| !distance.is_finite()) {
        let message = format!("the distance is {}: the features are too large", distances[subset]);
        return Err(Error::Subset { subset, side: "a and b", message });
    }
    let (mean, std) = mean_and_std(&distances);
    Ok(KernelDistance { mean, std })
}

/// Draws the subsets for [`kernel_distance`]: independent pairs, each of `size` distinct rows drawn uniformly.
///
/// # Errors
/// Returns an error if `subsets` is 0 or more than memory can hold, or if `size` is below 2 or more than `n_a` or `n_b`.
///
/// # Examples
/// ```
/// use rand::SeedableRng;
/// use spiking_diffusion_metrics::random_subsets;
///
/// let mut rng = rand::rngs::StdRng::seed_from_u64(0);
/// let subsets = random_subsets(50, 40, 10, 20, &mut rng)?;
/// assert_eq!((subsets.len(), subsets[0].0.len(), subsets[0].1.len()), (10, 20, 20));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn random_subsets(
    n_a: usize,
    n_b: usize,
    subsets: usize,
    size: usize,
    rng: &mut impl Rng,
) -> Result<Vec<SubsetPair>> {
    if subsets == 0 {
        return Err(Error::config("subsets", subsets, "must be at least 1"));
    }
    if size < 2 {
        return Err(Error::config("size", size, "a subset needs at least 2 rows"));
    }
    if size > n_a.min(n_b) {
        return Err(Error::config("size", size, format!("more than the {n_a} or the {n_b} rows there are")));
    }
    // Two lists of `size` indices each, and what holds them.
    let elements =
        size.checked_add(3).and_then(|size| size.checked_mul(2)).and_then(|size| size.checked_mul(subsets));
    input::check_memory("subsets", subsets, elements)?;
    let mut draw = |rows| rand::seq::index::sample(rng, rows, size).into_vec();
    Ok((0..subsets).map(|_| (draw(n_a), draw(n_b))).collect())
}

fn check_subset(indices: &[usize], rows: usize, subset: usize, side: &'static str) -> Result<()> {
    let reject = |message: String| Err(Error::Subset { subset, side, message });
    if indices.len() < 2 {
        return reject(format!("{} rows, need at least 2", indices.len()));
    }
    if let Some(index) = indices.iter().find(|index| **index >= rows) {
        return reject(format!("row {index} of {rows}"));
    }
    let mut seen = HashSet::with_capacity(indices.len());
    match indices.iter().find(|index| !seen.insert(**index)) {
        Some(index) => reject(format!("row {index} twice")),
        None => Ok(()),
    }
}

/// The rows of a subset, as the columns of a matrix (each contiguous).
fn gather(features: &Rows, indices: &[usize]) -> Mat<f64> {
    let mut columns = Mat::zeros(features.cols, indices.len());
    for (i, index) in indices.iter().enumerate() {
        columns.col_mut(i).iter_mut().zip(features.row(*index)).for_each(|(to, from)| *to = *from);
    }
    columns
}

/// Unbiased squared maximum mean discrepancy between the columns of `x` and those of `y`.
fn mmd(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let sums = [kernel_sum_within(x), kernel_sum_within(y), kernel_sum_between(x, y)];
    unbiased(sums, x.ncols(), y.ncols())
}

/// From the sums of the kernel within both subsets (no row with itself) and between them.
fn unbiased([xx, yy, xy]: [f64; 3], m: usize, n: usize) -> f64 {
    let (m, n) = (m as f64, n as f64);
    xx / (m * (m - 1.0)) + yy / (n * (n - 1.0)) - 2.0 * xy / (m * n)
}

/// Sum of `(x_i . y_j / D + 1)^3` over all `i` and `j`.
fn kernel_sum_between(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let mut gram = Mat::zeros(x.ncols(), y.ncols());
    matmul(gram.as_mut(), Accum::Replace, x.transpose(), y, 1.0 / x.nrows() as f64, Par::Seq);
    gram.col_iter().map(|column| column.iter().map(kernel).sum::<f64>()).sum()
}

/// Sum of `(x_i . x_j / D + 1)^3` over all `i != j`: twice what lies below the diagonal.
fn kernel_sum_within(x: &Mat<f64>) -> f64 {
    use BlockStructure::{Rectangular, StrictTriangularLower};
    let mut gram = Mat::zeros(x.ncols(), x.ncols());
    let (scale, half) = (1.0 / x.nrows() as f64, StrictTriangularLower);
    let into = gram.as_mut();
    triangular::matmul(
        into,
        half,
        Accum::Replace,
        x.transpose(),
        Rectangular,
        x,
        Rectangular,
        scale,
        Par::Seq,
    );
    let below = |(j, column): (usize, ColRef<'_, f64>)| column.iter().skip(j + 1).map(kernel).sum::<f64>();
    2.0 * gram.col_iter().enumerate().map(below).sum::<f64>()
}

/// The kernel of vectors whose product is `dot` times their length.
fn kernel(dot: &f64) -> f64 {
    (dot + 1.0).powi(3)
}
