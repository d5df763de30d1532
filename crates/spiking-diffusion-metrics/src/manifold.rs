//! Precision, recall, density and coverage by nearest neighbours.

use candle_core::Tensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::input::{self, Rows, check_finite};
use crate::{Error, Result};

/// Rows of one block of distances: `BLOCK x BLOCK` values a thread are all that is held of them.
const BLOCK: usize = 256;

/// Says whether a sample exactly on the surface of a ball lies in it.
///
/// This makes a difference where features repeat: a ball around a sample with `k` copies has radius 0, and only a
/// closed ball of this radius holds anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ball {
    /// `<`, as in the `prdc` package.
    Open,
    /// `<=`, as in the code of Kynkäänniemi et al. and in torch-fidelity.
    Closed,
}

/// The result of [`prdc`]: how well two sets of features cover each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prdc {
    /// The share of the generated samples that lie among the real ones, in `[0, 1]`.
    pub precision: f64,
    /// The share of the real samples that lie among the generated ones, in `[0, 1]`.
    pub recall: f64,
    /// The number of real balls that a generated sample lies in, on average, divided by `k`; may exceed 1.
    pub density: f64,
    /// The share of the real balls that hold a generated sample, in `[0, 1]`.
    pub coverage: f64,
}

/// Tells the quality of generated samples from their variety: improved precision and recall (Kynkäänniemi et al., 2019),
/// density and coverage (Naeem et al., 2020).
///
/// With `r_i` the distance of real sample `x_i` to its `k`-th nearest other real sample, and `s_j` the same for
/// the generated samples `y_j`:
///
/// - `precision = mean over j of [some i has |x_i - y_j| < r_i]`
/// - `recall = mean over i of [some j has |x_i - y_j| < s_j]`
/// - `density = mean over j of #{i : |x_i - y_j| < r_i} / k`
/// - `coverage = mean over i of [min over j of |x_i - y_j| < r_i]`
///
/// With [`Ball::Closed`], `<=` stands for `<`. The papers take `k = 3` for precision and recall, and `k = 5` for
/// density and coverage.
///
/// Distances are computed as `|x|^2 + |y|^2 - 2 x . y` in `f64` around the mean of the real samples, in blocks of fixed
/// size, so that memory does not grow with `N M` and the result does not depend on the number of threads.
///
/// # Shapes
/// `real: [N, D]`, `generated: [M, D]`.
///
/// # Errors
/// Returns an error if the numbers of features differ, if a feature or its square is not finite, if `k` is 0, or if a set has
/// no more than `k` rows.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::{Ball, prdc};
///
/// let real = Tensor::new(&[[0.0], [1.0], [10.0], [11.0]], &Device::Cpu)?;
/// let generated = Tensor::new(&[[0.25], [0.75]], &Device::Cpu)?; // one of the two modes
/// let found = prdc(&real, &generated, 1, Ball::Open)?;
/// assert_eq!((found.precision, found.recall, found.density, found.coverage), (1.0, 0.5, 2.0, 0.5));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn prdc(real: &Tensor, generated: &Tensor, k: usize, ball: Ball) -> Result<Prdc> {
    let (x, y) = input::feature_pair(real, generated, ["real features", "generated features"])?;
    prdc_of_rows(&x, &y, k, ball)
}

/// [`prdc`] of rows that have been checked.
pub(crate) fn prdc_of_rows(x: &Rows, y: &Rows, k: usize, ball: Ball) -> Result<Prdc> {
    if k == 0 {
        return Err(Error::config("k", 0, "must be at least 1"));
    }
    for (what, rows) in [("real samples", x.rows), ("generated samples", y.rows)] {
        if rows <= k {
            return Err(Error::TooFew { what, need: k.saturating_add(1), got: rows });
        }
    }
    let centre = x.column_means();
    let (x, y) = (Points::new(x, &centre), Points::new(y, &centre));
    check_finite(&x.squares, 1, "squared lengths of real features", 0)?;
    check_finite(&y.squares, 1, "squared lengths of generated features", 0)?;
    let (radii_x, radii_y) = (x.radii(k), y.radii(k));
    let inside = |distance: f64, radius: f64| match ball {
        Ball::Open => distance < radius,
        Ball::Closed => distance <= radius,
    };
    let balls = y.fold(&x, 0usize, |hits, _, i, d| *hits += usize::from(inside(d, radii_x[i])));
    let covered = x.fold(&y, (false, false), |found, i, j, d| {
        found.0 |= inside(d, radii_y[j]);
        found.1 |= inside(d, radii_x[i]);
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

/// Points as seen from `centre`, and their squared lengths: from the mean of one set, distances are the same and
/// the squares of a common offset cancel nothing.
struct Points<'a> {
    rows: &'a Rows,
    centre: &'a [f64],
    squares: Vec<f64>,
}

impl<'a> Points<'a> {
    fn new(rows: &'a Rows, centre: &'a [f64]) -> Self {
        let square = |row: &[f64]| row.iter().zip(centre).map(|(v, m)| (v - m) * (v - m)).sum();
        let squares = rows.values.chunks_exact(rows.cols).map(square).collect();
        Self { rows, centre, squares }
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
        others: &Points<'_>,
        start: S,
        visit: impl Fn(&mut S, usize, usize, f64) + Sync,
    ) -> Vec<S> {
        let mut states = vec![start; self.rows.rows];
        states.par_chunks_mut(BLOCK).enumerate().for_each(|(block, states)| {
            let first = block * BLOCK;
            let points = self.block(first, states.len());
            for first_other in (0..others.rows.rows).step_by(BLOCK) {
                let distances = self.distances(first, &points, others, first_other);
                for (j, column) in distances.col_iter().enumerate() {
                    for ((i, distance), state) in column.iter().enumerate().zip(states.iter_mut()) {
                        visit(state, first + i, first_other + j, *distance);
                    }
                }
            }
        });
        states
    }

    /// Squared distances of `points`, row `first` and those behind it, to the next block of `others`, none of them
    /// negative.
    fn distances(&self, first: usize, points: &[f64], others: &Points<'_>, first_other: usize) -> Mat<f64> {
        let cols = self.rows.cols;
        let (count, other_count) = (points.len() / cols, BLOCK.min(others.rows.rows - first_other));
        let mut out = Mat::from_fn(count, other_count, |i, j| {
            self.squares[first + i] + others.squares[first_other + j]
        });
        let other_points = others.block(first_other, other_count);
        let a = MatRef::from_row_major_slice(points, count, cols);
        let b = MatRef::from_row_major_slice(&other_points, other_count, cols);
        matmul(out.as_mut(), Accum::Add, a, b.transpose(), -2.0, Par::Seq);
        out.col_iter_mut().for_each(|column| column.iter_mut().for_each(|d| *d = d.max(0.0)));
        out
    }

    /// `count` points, row-major.
    fn block(&self, first: usize, count: usize) -> Vec<f64> {
        let cols = self.rows.cols;
        input::less(&self.rows.values[first * cols..(first + count) * cols], self.centre)
    }
}
