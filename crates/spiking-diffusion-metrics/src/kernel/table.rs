//! The kernel of all pairs of rows, computed once for all subsets: less work where subsets overlap much.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{SubsetPair, kernel, unbiased};
use crate::input::Rows;

/// Pairs that a table may have: 256 MiB.
const MOST: usize = 1 << 25;
/// Rows a task: constant, so that no number depends on the number of threads.
const BLOCK: usize = 256;

/// Whether all pairs are fewer than those of the subsets, and a table of them is not too large.
pub(super) fn is_less_work(a: &Rows, b: &Rows, subsets: &[SubsetPair]) -> bool {
    let pairs = |(a, b): &SubsetPair| (a.len() * a.len() + b.len() * b.len()) / 2 + a.len() * b.len();
    let largest = a.rows.max(b.rows);
    largest * largest <= MOST
        && a.rows * a.rows + b.rows * b.rows + a.rows * b.rows < subsets.iter().map(pairs).sum()
}

/// The distance of each pair of subsets; one table is in memory at a time.
pub(super) fn distances(a: &Rows, b: &Rows, subsets: &[SubsetPair]) -> Vec<f64> {
    let (first, second) = (|pair: &SubsetPair| pair.0.clone(), |pair: &SubsetPair| pair.1.clone());
    let xx = sums(a, a, subsets, first, first);
    let yy = sums(b, b, subsets, second, second);
    let xy = sums(a, b, subsets, first, second);
    let within = |sums: &(f64, f64)| sums.0 - sums.1;
    let each = xx.iter().zip(&yy).zip(&xy).zip(subsets);
    each.map(|(((xx, yy), xy), (x, y))| unbiased([within(xx), within(yy), xy.0], x.len(), y.len())).collect()
}

/// For each pair of subsets the sum of the kernel over all its pairs of rows, and over those of a row with itself (of
/// meaning where both sets are the same).
fn sums(
    a: &Rows,
    b: &Rows,
    subsets: &[SubsetPair],
    left: fn(&SubsetPair) -> Vec<usize>,
    right: fn(&SubsetPair) -> Vec<usize>,
) -> Vec<(f64, f64)> {
    let table = kernels(a, b);
    let of = |pair: &SubsetPair| {
        let (left, right) = (left(pair), right(pair));
        left.iter().fold((0.0, 0.0), |(all, own), &i| {
            let row = &table[i * b.rows..][..b.rows];
            (all + right.iter().map(|&j| row[j]).sum::<f64>(), own + row.get(i).copied().unwrap_or(0.0))
        })
    };
    subsets.par_iter().map(of).collect()
}

/// `[a.rows, b.rows]`, row by row.
fn kernels(a: &Rows, b: &Rows) -> Vec<f64> {
    let mut table = vec![0.0; a.rows * b.rows];
    let y = MatRef::from_row_major_slice(&b.values, b.rows, b.cols);
    let blocks = table.par_chunks_mut(BLOCK * b.rows).zip(a.values.par_chunks(BLOCK * a.cols));
    blocks.for_each(|(table, x)| {
        let rows = x.len() / a.cols;
        let (x, into) = (
            MatRef::from_row_major_slice(x, rows, a.cols),
            MatMut::from_row_major_slice_mut(table, rows, b.rows),
        );
        matmul(into, Accum::Replace, x, y.transpose(), 1.0 / a.cols as f64, Par::Seq);
        table.iter_mut().for_each(|value| *value = kernel(value));
    });
    table
}
