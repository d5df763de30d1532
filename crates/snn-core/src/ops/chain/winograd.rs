//! The dense input gradient of a 3x3 convolution of stride 1 by Winograd's minimal filtering.
//!
//! `F(m, 3)` computes `m` outputs of a three-tap filter with `m + 2` multiplications instead of `3 m`: polynomials are
//! multiplied at the points below and at infinity. Nested over rows and columns; the products at each of the
//! `(m + 2)^2` points are one matrix product over channels. With `m = 7` a 7x7 map is one tile, and needs 81
//! multiplications instead of 441; the points are chosen for accuracy (relative error about 2e-5 in f32).

use rayon::prelude::*;

use super::dense::Scratch;
use super::simd;
use crate::ops::gemm::{Matrix, matmul};

/// Channels that a transform handles at once.
const LANES: usize = 16;
/// Tiles that a block should have, so that streaming the transformed weights is paid for.
const BLOCK_TILES: usize = 64;

const POINTS_4: [f64; 5] = [0., 1., -1., 2., -2.];
const POINTS_7: [f64; 8] = [0., 1., -1., 0.5, -0.5, 2., -2., 0.25];

/// The transforms of `F(m, 3)`, row-major.
struct Transform {
    /// Outputs a tile.
    m: usize,
    /// Inputs a tile, and points.
    n: usize,
    /// `[n, n]`: data to points.
    data: Vec<f32>,
    /// `[n, 3]`: filter to points.
    filter: Vec<f64>,
    /// `[m, n]`: points to outputs.
    output: Vec<f32>,
}

impl Transform {
    fn new(points: &[f64]) -> Self {
        let (n, m) = (points.len() + 1, points.len() - 1);
        let mut t = Self { m, n, data: vec![0.; n * n], filter: vec![0.; n * 3], output: vec![0.; m * n] };
        for (j, &point) in points.iter().enumerate() {
            let others: Vec<f64> = points.iter().copied().filter(|&other| other != point).collect();
            let polynomial = from_roots(&others);
            let norm: f64 = others.iter().map(|other| point - other).product();
            // Powers of two between data and filter, so that rows of both are of like size.
            let size: f64 = polynomial.iter().map(|c| c.abs()).sum();
            let filter_size = (1. + point.abs() + point * point) / norm.abs();
            let balance = ((size / filter_size).log2() / 2.).round().exp2();
            for (i, c) in polynomial.iter().enumerate() {
                t.data[j * n + i] = (c / balance) as f32;
            }
            for i in 0..3 {
                t.filter[j * 3 + i] = point.powi(i as i32) / norm * balance;
            }
            for i in 0..m {
                t.output[i * n + j] = point.powi(i as i32) as f32;
            }
        }
        // The point at infinity.
        for (i, c) in from_roots(points).iter().enumerate() {
            t.data[(n - 1) * n + i] = *c as f32;
        }
        t.filter[(n - 1) * 3 + 2] = 1.;
        t.output[(m - 1) * n + n - 1] = 1.;
        t
    }
}

impl Transform {
    /// `out[point][to] = (G taps G^T)[point]` for `to` filters, `taps: [9, to]`.
    #[inline(always)]
    fn filters(&self, taps: &[f64], to: usize, out: &mut [f32]) {
        let n = self.n;
        let mut half = vec![0f64; 3 * to]; // one row of points, three taps in v left
        for i in 0..n {
            let g = &self.filter[i * 3..][..3];
            for (k, half) in half.iter_mut().enumerate() {
                *half = g[0] * taps[k] + g[1] * taps[3 * to + k] + g[2] * taps[6 * to + k];
            }
            for j in 0..n {
                let g = &self.filter[j * 3..][..3];
                for (k, out) in out[(i * n + j) * to..][..to].iter_mut().enumerate() {
                    *out = (g[0] * half[k] + g[1] * half[to + k] + g[2] * half[2 * to + k]) as f32;
                }
            }
        }
    }
}

/// Coefficients of `prod (x - root)`, lowest first.
fn from_roots(roots: &[f64]) -> Vec<f64> {
    roots.iter().fold(vec![1.], |c, root| {
        let at = |i: usize| c.get(i).copied().unwrap_or(0.);
        (0..=c.len()).map(|i| if i == 0 { 0. } else { at(i - 1) } - root * at(i)).collect()
    })
}

/// A 3x3 product over maps of one size, with its weights transformed.
pub(super) struct Winograd {
    transform: Transform,
    height: usize,
    width: usize,
    from: usize,
    to: usize,
    /// `[from, n^2, to]`.
    weights: Vec<f32>,
}

impl Winograd {
    /// `out[y, x, to] = sum_{u, v, from} weight(from, 3 u + v, to) rows[y + u - 1, x + v - 1, from]`, the map padded
    /// with zeros.
    pub(super) fn new(
        (height, width): (usize, usize),
        (from, to): (usize, usize),
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let cost = |m: usize| (height.div_ceil(m) * (m + 2)) * (width.div_ceil(m) * (m + 2));
        let transform = Transform::new(if cost(7) < cost(4) { &POINTS_7 } else { &POINTS_4 });
        let points = transform.n * transform.n;
        let mut weights = vec![0f32; from * points * to];
        weights.par_chunks_mut(points * to).enumerate().for_each(|(f, weights)| {
            let taps: Vec<f64> = (0..9 * to).map(|i| f64::from(weight(f, i / to, i % to))).collect();
            simd(|| transform.filters(&taps, to, weights));
        });
        Self { transform, height, width, from, to, weights }
    }

    /// Maps that [`run`](Self::run) is best called with.
    pub(super) fn maps_a_block(&self) -> usize {
        BLOCK_TILES.div_ceil(self.tiles())
    }

    fn tiles(&self) -> usize {
        self.height.div_ceil(self.transform.m) * self.width.div_ceil(self.transform.m)
    }

    /// `rows: [maps, height * width, from]` -> `out: [maps, height * width, to]`.
    #[inline(always)]
    pub(super) fn run(&self, rows: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let (n, from, to) = (self.transform.n, self.from, self.to);
        let positions = self.height * self.width;
        let tiles = rows.len() / (positions * from) * self.tiles();
        let (data, product) = scratch.two(n * n * tiles * from, n * n * tiles * to);
        for (map, rows) in rows.chunks_exact(positions * from).enumerate() {
            for tile in 0..self.tiles() {
                for c in (0..from).step_by(LANES) {
                    self.points(rows, tile, c, data, (map * self.tiles() + tile, tiles));
                }
            }
        }
        let points = product.chunks_exact_mut(tiles * to).zip(data.chunks_exact(tiles * from));
        for (point, (product, data)) in points.enumerate() {
            let weights =
                Matrix::row_major(&self.weights[point * to..], from, to).with_row_stride(n * n * to);
            matmul(product, Matrix::row_major(data, tiles, from), weights, false);
        }
        for (map, out) in out.chunks_exact_mut(positions * to).enumerate() {
            for tile in 0..self.tiles() {
                for c in (0..to).step_by(LANES) {
                    self.outputs(product, tile, c, out, (map * self.tiles() + tile, tiles));
                }
            }
        }
    }

    /// First row and column of a tile's outputs.
    fn corner(&self, tile: usize) -> (usize, usize) {
        let across = self.width.div_ceil(self.transform.m);
        (tile / across * self.transform.m, tile % across * self.transform.m)
    }

    /// Channels `c..c + LANES` of one tile: `data[point][tile][c] = (B d B^T)[point]`.
    #[inline(always)]
    fn points(&self, rows: &[f32], tile: usize, c: usize, data: &mut [f32], at: (usize, usize)) {
        let (n, from) = (self.transform.n, self.from);
        let lanes = LANES.min(from - c);
        let (y0, x0) = self.corner(tile);
        // The tile begins one row and one column before its outputs; what lies outside the map is zero.
        let inside = |start: usize, len: usize| (1 - start.min(1))..(len + 1 - start).min(n);
        let (ys, xs) = (inside(y0, self.height), inside(x0, self.width));
        let mut half = [[[0f32; LANES]; MAX]; MAX]; // [x][point of y]
        for x in xs.clone() {
            let mut column = [[0f32; LANES]; MAX];
            for y in ys.clone() {
                let position = (y0 + y - 1) * self.width + x0 + x - 1;
                column[y][..lanes].copy_from_slice(&rows[position * from + c..][..lanes]);
            }
            for (i, half) in half[x][..n].iter_mut().enumerate() {
                for y in ys.clone() {
                    multiply_add(half, self.transform.data[i * n + y], &column[y]);
                }
            }
        }
        for i in 0..n {
            for j in 0..n {
                let mut sum = [0f32; LANES];
                for x in xs.clone() {
                    multiply_add(&mut sum, self.transform.data[j * n + x], &half[x][i]);
                }
                data[((i * n + j) * at.1 + at.0) * from + c..][..lanes].copy_from_slice(&sum[..lanes]);
            }
        }
    }

    /// Channels `c..c + LANES` of one tile: `out = A^T product A`.
    #[inline(always)]
    fn outputs(&self, product: &[f32], tile: usize, c: usize, out: &mut [f32], at: (usize, usize)) {
        let (n, m, to) = (self.transform.n, self.transform.m, self.to);
        let lanes = LANES.min(to - c);
        let (y0, x0) = self.corner(tile);
        let (high, wide) = (m.min(self.height - y0), m.min(self.width - x0));
        let mut half = [[[0f32; LANES]; MAX]; MAX]; // [point of x][y]
        for j in 0..n {
            let mut column = [[0f32; LANES]; MAX];
            for (i, value) in column[..n].iter_mut().enumerate() {
                let row = ((i * n + j) * at.1 + at.0) * to + c;
                value[..lanes].copy_from_slice(&product[row..][..lanes]);
            }
            for (y, half) in half[j][..high].iter_mut().enumerate() {
                for (i, column) in column[..n].iter().enumerate() {
                    multiply_add(half, self.transform.output[y * n + i], column);
                }
            }
        }
        for y in 0..high {
            for x in 0..wide {
                let mut sum = [0f32; LANES];
                for (j, half) in half[..n].iter().enumerate() {
                    multiply_add(&mut sum, self.transform.output[x * n + j], &half[y]);
                }
                let position = (y0 + y) * self.width + x0 + x;
                out[position * to + c..][..lanes].copy_from_slice(&sum[..lanes]);
            }
        }
    }
}

/// The largest `n`.
const MAX: usize = POINTS_7.len() + 1;

#[inline(always)]
fn multiply_add(sum: &mut [f32; LANES], a: f32, b: &[f32; LANES]) {
    for i in 0..LANES {
        sum[i] += a * b[i];
    }
}
