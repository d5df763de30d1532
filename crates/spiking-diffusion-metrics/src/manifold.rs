//! Precision, recall, density and coverage by nearest neighbours.

use candle_core::Tensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;
use serde::Serialize;

use crate::input::{self, Rows};
use crate::{Error, Result};

/// Rows of one block of distances: `BLOCK x BLOCK` values a thread are all that is held of them.
const BLOCK: usize = 256;

/// How well two sets of features cover each other; see [`prdc`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prdc {
    /// Share of the generated samples that lie among the real ones, in `[0, 1]`.
    pub precision: f64,
    /// Share of the real samples that lie among the generated ones, in `[0, 1]`.
    pub recall: f64,
    /// Real balls that hold a generated sample, on average, divided by `k`; may exceed 1.
    pub density: f64,
    /// Share of the real balls that hold a generated sample, in `[0, 1]`.
    pub coverage: f64,
}

/// Improved precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020).
///
/// With `r_i` the distance of real sample `x_i` to its `k`-th nearest other real sample, and `s_j` the same for
/// the generated samples `y_j`:
///
/// - `precision = mean over j of [some i has |x_i - y_j| < r_i]`
/// - `recall = mean over i of [some j has |x_i - y_j| < s_j]`
/// - `density = mean over j of #{i : |x_i - y_j| < r_i} / k`
/// - `coverage = mean over i of [min over j of |x_i - y_j| < r_i]`
///
/// As in the `prdc` package; torch-fidelity counts a sample exactly on a ball (`<=`) as inside. The papers take
/// `k = 3` for precision and recall, and `k = 5` for density and coverage.
///
/// Distances are `|x|^2 + |y|^2 - 2 x . y` in `f64` around the mean of the real samples, in blocks of fixed
/// size: memory does not grow with `N M`, and the result does not depend on the number of threads.
///
/// # Shapes
/// `real: [N, D]`, `generated: [M, D]`.
///
/// # Errors
/// If the numbers of features differ, a feature is not finite, `k` is 0, or a set has no more than `k` rows.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::prdc;
///
/// let real = Tensor::new(&[[0.0], [1.0], [10.0], [11.0]], &Device::Cpu)?;
/// let generated = Tensor::new(&[[0.25], [0.75]], &Device::Cpu)?; // one of the two modes
/// let found = prdc(&real, &generated, 1)?;
/// assert_eq!((found.precision, found.recall, found.density, found.coverage), (1.0, 0.5, 2.0, 0.5));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn prdc(real: &Tensor, generated: &Tensor, k: usize) -> Result<Prdc> {
    let (mut x, mut y) =
        (input::features(real, "real features", 0)?, input::features(generated, "generated features", 0)?);
    if x.cols != y.cols {
        return Err(Error::Mismatch { what: "feature dimensions", left: vec![x.cols], right: vec![y.cols] });
    }
    if k == 0 {
        return Err(Error::config("k", 0, "must be at least 1"));
    }
    for (what, rows) in [("real samples", x.rows), ("generated samples", y.rows)] {
        if rows <= k {
            return Err(Error::TooFew { what, need: k + 1, got: rows });
        }
    }
    centre(&mut x, &mut y);
    let (x, y) = (Points::new(x), Points::new(y));
    let (radii_x, radii_y) = (x.radii(k), y.radii(k));
    let balls = y.fold(&x, 0usize, |hits, _, i, d| *hits += usize::from(d < radii_x[i]));
    let covered = x.fold(&y, (false, false), |found, i, j, d| {
        found.0 |= d < radii_y[j];
        found.1 |= d < radii_x[i];
    });
    Ok(Prdc {
        precision: share(&balls, |hits| *hits > 0),
        recall: share(&covered, |found| found.0),
        density: balls.iter().sum::<usize>() as f64 / (k * balls.len()) as f64,
        coverage: share(&covered, |found| found.1),
    })
}

fn share<T>(of: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    of.iter().filter(|one| holds(one)).count() as f64 / of.len() as f64
}

/// Moves both sets by the mean of the first: distances stay, and squares of a common offset cancel nothing.
fn centre(x: &mut Rows, y: &mut Rows) {
    let mean = x.column_means();
    for row in x.values.chunks_exact_mut(x.cols).chain(y.values.chunks_exact_mut(y.cols)) {
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
    }
}

/// Points, and their squared lengths.
struct Points {
    rows: Rows,
    squares: Vec<f64>,
}

impl Points {
    fn new(rows: Rows) -> Self {
        let squares = rows.iter().map(|row| row.iter().map(|v| v * v).sum()).collect();
        Self { rows, squares }
    }

    /// Squared distance of each point to its `k`-th nearest other point.
    fn radii(&self, k: usize) -> Vec<f64> {
        let nearest = self.fold(self, Vec::with_capacity(k + 1), |nearest: &mut Vec<f64>, i, j, d| {
            if i != j && (nearest.len() < k || d < nearest[k - 1]) {
                nearest.insert(nearest.partition_point(|other| *other <= d), d);
                nearest.truncate(k);
            }
        });
        nearest.iter().map(|nearest| nearest[k - 1]).collect()
    }

    /// For each point `i`, `visit(state, i, j, squared distance)` of every point `j` of `others`, in order.
    fn fold<S: Clone + Send + Sync>(
        &self,
        others: &Self,
        start: S,
        visit: impl Fn(&mut S, usize, usize, f64) + Sync,
    ) -> Vec<S> {
        let mut states = vec![start; self.rows.rows];
        states.par_chunks_mut(BLOCK).enumerate().for_each(|(block, states)| {
            let first = block * BLOCK;
            for first_other in (0..others.rows.rows).step_by(BLOCK) {
                let distances = self.distances(first, states.len(), others, first_other);
                for (j, column) in distances.col_iter().enumerate() {
                    for ((i, distance), state) in column.iter().enumerate().zip(states.iter_mut()) {
                        visit(state, first + i, first_other + j, *distance);
                    }
                }
            }
        });
        states
    }

    /// Squared distances of `count` points to the next block of `others`, none of them negative.
    fn distances(&self, first: usize, count: usize, others: &Self, first_other: usize) -> Mat<f64> {
        let other_count = BLOCK.min(others.rows.rows - first_other);
        let mut out = Mat::from_fn(count, other_count, |i, j| {
            self.squares[first + i] + others.squares[first_other + j]
        });
        let (a, b) = (self.block(first, count), others.block(first_other, other_count));
        matmul(out.as_mut(), Accum::Add, a, b.transpose(), -2.0, Par::Seq);
        out.col_iter_mut().for_each(|column| column.iter_mut().for_each(|d| *d = d.max(0.0)));
        out
    }

    fn block(&self, first: usize, count: usize) -> MatRef<'_, f64> {
        let cols = self.rows.cols;
        MatRef::from_row_major_slice(&self.rows.values[first * cols..(first + count) * cols], count, cols)
    }
}
