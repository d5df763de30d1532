//! The dense input gradient of a 3x3 convolution of stride 1 by Winograd's minimal filtering.
//!
//! `F(m, 3)` computes `m` outputs of a three-tap filter with `m + 2` multiplications instead of `3 m`: polynomials are
//! multiplied at the points below and at infinity. Nested over rows and columns; the products at each of the
//! `(m + 2)^2` points are one matrix product over channels. With `m = 7` a 7x7 map is one tile, and needs 81
//! multiplications instead of 441; the points are chosen for accuracy. Measured relative error in f32: 2e-5
//! with 16 source channels, 5e-5 with 256, 8e-5 with 512.

use rayon::prelude::*;

use super::memory::Buffer;
use super::scratch::Scratch;
use crate::ops::columns;
use crate::ops::gemm::{Matrix, matmul};
use crate::ops::simd::vectorised;

/// Channels that a transform handles at once.
const LANES: usize = 16;
/// Tiles that a block should have, so that streaming the transformed weights is paid for.
const BLOCK_TILES: usize = 64;

/// Channels summed at a stretch: rounding grows with a sum's length, and more slowly with the number of sums.
const SUMMED: usize = 128;
/// Floats between the values of one point and the next: without them, where tiles and channels are powers of two, those of all points
/// would fall into one set of the caches.
const PAD: usize = 48;

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

vectorised! {
    /// `out[point][to] = (G taps G^T)[point]` for `to` filters, `taps: [9, to]`, `g: [n, 3]`.
    fn filters(g: &[f64], taps: &[f64], to: usize, out: &mut [&mut [f32]]) {
        let n = g.len() / 3;
        let mut half = vec![0f64; 3 * to]; // one row of points, three taps in v left
        for i in 0..n {
            let row = &g[i * 3..][..3];
            for (k, half) in half.iter_mut().enumerate() {
                *half = row[0] * taps[k] + row[1] * taps[3 * to + k] + row[2] * taps[6 * to + k];
            }
            for j in 0..n {
                let row = &g[j * 3..][..3];
                for (k, out) in out[i * n + j].iter_mut().enumerate() {
                    *out = (row[0] * half[k] + row[1] * half[to + k] + row[2] * half[2 * to + k]) as f32;
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
    /// `[n^2, from, to]`: a point's lie together, or fetching them costs more than multiplying.
    weights: Buffer,
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
        let mut weights = Buffer::new(points * from * to);
        columns(&mut weights, from * to, to).into_par_iter().enumerate().for_each(|(f, mut weights)| {
            let taps: Vec<f64> = (0..9 * to).map(|i| f64::from(weight(f, i / to, i % to))).collect();
            filters(&transform.filter, &taps, to, &mut weights);
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
    pub(super) fn run(&self, rows: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let (n, from, to) = (self.transform.n, self.from, self.to);
        let tiles = rows.len() / (self.height * self.width * from) * self.tiles();
        let (apart, product_apart) = (tiles * from + PAD, tiles * to + PAD);
        let (data, product) = scratch.two(n * n * apart, n * n * product_apart);
        let grid = |channels: usize| Grid {
            height: self.height,
            width: self.width,
            m: self.transform.m,
            across: self.width.div_ceil(self.transform.m),
            tiles: self.tiles(),
            channels,
            apart: tiles * channels + PAD,
        };
        if n == 9 {
            points::<9>(&grid(from), &self.transform.data, rows, data);
        } else {
            points::<6>(&grid(from), &self.transform.data, rows, data);
        }
        for (point, (product, data)) in
            product.chunks_exact_mut(product_apart).zip(data.chunks_exact(apart)).enumerate()
        {
            let product = &mut product[..tiles * to];
            for (first, part) in (0..from).step_by(SUMMED).map(|first| (first, SUMMED.min(from - first))) {
                let weights =
                    Matrix::row_major(&self.weights[(point * from + first) * to..][..part * to], part, to);
                let data = Matrix::row_major(&data[first..tiles * from], tiles, part).with_row_stride(from);
                matmul(product, data, weights, first > 0);
            }
        }
        if n == 9 {
            outputs::<9>(&grid(to), &self.transform.output, product, out);
        } else {
            outputs::<6>(&grid(to), &self.transform.output, product, out);
        }
    }
}

/// Maps cut into tiles.
struct Grid {
    height: usize,
    width: usize,
    /// Outputs a tile, in both directions.
    m: usize,
    /// Tiles in a row, and in a map.
    across: usize,
    tiles: usize,
    channels: usize,
    /// From one point's values to the next point's.
    apart: usize,
}

impl Grid {
    /// First row and column of a tile's outputs.
    #[inline(always)]
    fn corner(&self, tile: usize) -> (usize, usize) {
        (tile / self.across * self.m, tile % self.across * self.m)
    }
}

vectorised! {
    /// `data[point][tile][c] = (B d B^T)[point]`, points lying `apart`, of every tile `d` of `rows: [maps, positions, channels]`.
    fn points<const N: usize>(grid: &Grid, transform: &[f32], rows: &[f32], data: &mut [f32]) {
        let channels = grid.channels;
        let size = grid.height * grid.width * channels;
        let all = rows.len() / size * grid.tiles;
        for tile in 0..all {
            let (rows, (y0, x0)) = (&rows[tile / grid.tiles * size..][..size], grid.corner(tile % grid.tiles));
            for c in (0..channels).step_by(LANES) {
                let lanes = LANES.min(channels - c);
                let mut half = [[[0f32; LANES]; N]; N]; // [x][point of y]
                for (x, half) in half.iter_mut().enumerate() {
                    let mut column = [[0f32; LANES]; N];
                    for (y, value) in column.iter_mut().enumerate() {
                        // A tile begins a row and a column before its outputs; outside the map is zero.
                        let (row, col) = ((y0 + y).wrapping_sub(1), (x0 + x).wrapping_sub(1));
                        if row < grid.height && col < grid.width {
                            let at = (row * grid.width + col) * channels + c;
                            copy(value, &rows[at..], lanes);
                        }
                    }
                    for (i, half) in half.iter_mut().enumerate() {
                        *half = combination(&transform[i * N..][..N], &column);
                    }
                }
                for i in 0..N {
                    let row: [[f32; LANES]; N] = std::array::from_fn(|x| half[x][i]);
                    for j in 0..N {
                        let sum = combination(&transform[j * N..][..N], &row);
                        copy(&mut data[(i * N + j) * grid.apart + tile * channels + c..], &sum, lanes);
                    }
                }
            }
        }
    }
}

vectorised! {
    /// `out = A^T product A` of every tile; the adjoint layout of [`points`].
    fn outputs<const N: usize>(grid: &Grid, transform: &[f32], product: &[f32], out: &mut [f32]) {
        let channels = grid.channels;
        let size = grid.height * grid.width * channels;
        let all = out.len() / size * grid.tiles;
        for tile in 0..all {
            let (out, (y0, x0)) = (&mut out[tile / grid.tiles * size..][..size], grid.corner(tile % grid.tiles));
            let (high, wide) = (grid.m.min(grid.height - y0), grid.m.min(grid.width - x0));
            for c in (0..channels).step_by(LANES) {
                let lanes = LANES.min(channels - c);
                let mut half = [[[0f32; LANES]; N]; N]; // [y][point of x]
                for j in 0..N {
                    let mut column = [[0f32; LANES]; N];
                    for (i, value) in column.iter_mut().enumerate() {
                        let at = (i * N + j) * grid.apart + tile * channels + c;
                        copy(value, &product[at..], lanes);
                    }
                    for (y, half) in half[..high].iter_mut().enumerate() {
                        half[j] = combination(&transform[y * N..][..N], &column);
                    }
                }
                for (y, half) in half[..high].iter().enumerate() {
                    for x in 0..wide {
                        let sum = combination(&transform[x * N..][..N], half);
                        let at = ((y0 + y) * grid.width + x0 + x) * channels + c;
                        copy(&mut out[at..], &sum, lanes);
                    }
                }
            }
        }
    }
}

/// `sum_i factors[i] values[i]`.
#[inline(always)]
fn combination<const N: usize>(factors: &[f32], values: &[[f32; LANES]; N]) -> [f32; LANES] {
    let mut sum = [0f32; LANES];
    for (factor, value) in factors.iter().zip(values) {
        for i in 0..LANES {
            sum[i] += factor * value[i];
        }
    }
    sum
}

/// The first `lanes` values; a whole vector of them without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32], lanes: usize) {
    match (to.first_chunk_mut::<LANES>(), from.first_chunk::<LANES>()) {
        (Some(to), Some(from)) if lanes == LANES => *to = *from,
        _ => to[..lanes].copy_from_slice(&from[..lanes]),
    }
}
