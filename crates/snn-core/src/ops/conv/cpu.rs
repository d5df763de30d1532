//! The three products of a convolution, on matrix products over blocks of images.
//!
//! All three see the same geometry: an *image* `[M, c_in, h, w]`, a *map* `[M, c_out, oh, ow]` and a kernel
//! `[c_out, c_in, kh, kw]`. `map = correlate(image, kernel)`; `image_gradient` is its adjoint, which is also the
//! forward pass of the transposed convolution; `kernel_gradient` serves both.

use candle_core::{DType, Result};
use rayon::prelude::*;

use crate::geometry::Axis;
use crate::ops::gemm::{Matrix, matmul};
use crate::ops::{Real, room};

/// Columns that a block of images should fill, so that packing the kernel is paid for.
const BLOCK_COLUMNS: usize = 512;
/// Partial sums of the kernel gradient: a constant, so that the result does not depend on the number of threads.
const PARTIALS: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) c_in: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c_out: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Sizes {
    pub(super) fn image_len(&self) -> usize {
        self.c_in * self.h * self.w
    }
    pub(super) fn map_len(&self) -> usize {
        self.c_out * self.positions()
    }
    pub(super) fn positions(&self) -> usize {
        self.oh * self.ow
    }
    /// Rows of the column matrix: one for each `(c_in, ky, kx)`.
    pub(super) fn taps(&self) -> usize {
        self.c_in * self.kh * self.kw
    }
    /// Images a block.
    fn block(&self) -> usize {
        BLOCK_COLUMNS.div_ceil(self.positions().max(1))
    }

    /// Whether there is room for the columns of a block.
    pub(super) fn room(&self, op: &str, dtype: DType) -> Result<()> {
        room(op, &[self.taps(), self.block(), self.positions()], dtype)
    }

    /// Calls `f(tap row, output row offset, range of ox, first image index)` for every line of a patch that lies
    /// inside the image; image indices then advance by `stride`.
    #[inline(always)]
    fn for_each_line(&self, mut f: impl FnMut(usize, usize, std::ops::Range<usize>, usize)) {
        for c in 0..self.c_in {
            for ky in 0..self.kh {
                for kx in 0..self.kw {
                    let tap = (c * self.kh + ky) * self.kw + kx;
                    let xs = self.inside(self.kw, kx, self.w, self.ow);
                    if xs.is_empty() {
                        continue;
                    }
                    for oy in self.inside(self.kh, ky, self.h, self.oh) {
                        let y = oy * self.stride + ky - self.padding;
                        let x = xs.start * self.stride + kx;
                        f(tap, oy * self.ow, xs.clone(), (c * self.h + y) * self.w + x - self.padding);
                    }
                }
            }
        }
    }

    /// Output positions whose input position lies inside the image.
    fn inside(&self, kernel: usize, k: usize, image: usize, map: usize) -> std::ops::Range<usize> {
        Axis { image, map, kernel, stride: self.stride, padding: self.padding }.joined(k)
    }

    /// One image to its columns `[taps, columns]`, at column `at`. `cols` holds zeros wherever nothing is written.
    fn image_to_columns<F: Real>(&self, image: &[F], cols: &mut [F], columns: usize, at: usize) {
        self.for_each_line(|tap, row, xs, from| {
            let line = &mut cols[tap * columns + at + row + xs.start..][..xs.len()];
            if self.stride == 1 {
                line.copy_from_slice(&image[from..from + xs.len()]);
            } else {
                line.iter_mut().zip(image[from..].iter().step_by(self.stride)).for_each(|(c, &v)| *c = v);
            }
        });
    }

    /// The adjoint of [`Self::image_to_columns`]: adds columns into an image.
    fn columns_to_image<F: Real>(&self, cols: &[F], columns: usize, at: usize, image: &mut [F]) {
        self.for_each_line(|tap, row, xs, from| {
            let line = &cols[tap * columns + at + row + xs.start..][..xs.len()];
            image[from..].iter_mut().step_by(self.stride).zip(line).for_each(|(v, &c)| *v += c);
        });
    }

    /// `[B, c_out, positions]` -> `[c_out, B * positions]`.
    fn gather_maps<F: Real>(&self, maps: &[F], out: &mut [F]) {
        let (p, b) = (self.positions(), maps.len() / self.map_len());
        for (i, plane) in maps.chunks_exact(p).enumerate() {
            let (image, channel) = (i / self.c_out, i % self.c_out);
            out[(channel * b + image) * p..][..p].copy_from_slice(plane);
        }
    }

    /// `[c_out, B * positions]` -> `[B, c_out, positions]`.
    fn scatter_maps<F: Real>(&self, cols: &[F], maps: &mut [F]) {
        let (p, b) = (self.positions(), maps.len() / self.map_len());
        for (i, plane) in maps.chunks_exact_mut(p).enumerate() {
            let (image, channel) = (i / self.c_out, i % self.c_out);
            plane.copy_from_slice(&cols[(channel * b + image) * p..][..p]);
        }
    }

    fn kernel<'a, F>(&self, kernel: &'a [F]) -> Matrix<'a, F> {
        Matrix::row_major(kernel, self.c_out, self.taps())
    }
}

/// A buffer that is grown once a thread and zeroed when asked.
fn sized<F: Real>(buffer: &mut Vec<F>, len: usize, zeroed: bool) -> &mut [F] {
    if zeroed {
        buffer.clear();
    }
    buffer.resize(len, F::from_f64(0.));
    &mut buffer[..len]
}

/// `map = correlate(image, kernel)`.
pub(super) fn correlate<F: Real>(g: &Sizes, images: &[F], kernel: &[F]) -> Vec<F> {
    let m = images.len() / g.image_len();
    let mut maps = vec![F::from_f64(0.); m * g.map_len()];
    let block = g.block();
    maps.par_chunks_mut(block * g.map_len()).zip(images.par_chunks(block * g.image_len())).for_each_init(
        || (Vec::new(), Vec::new()),
        |(cols, product), (maps, images)| {
            let columns = maps.len() / g.c_out;
            let cols = sized(cols, g.taps() * columns, true);
            for (i, image) in images.chunks_exact(g.image_len()).enumerate() {
                g.image_to_columns(image, cols, columns, i * g.positions());
            }
            let product = sized(product, maps.len(), false);
            matmul(product, g.kernel(kernel), Matrix::row_major(cols, g.taps(), columns), false);
            g.scatter_maps(product, maps);
        },
    );
    maps
}

/// The adjoint of [`correlate`] in the image.
pub(super) fn image_gradient<F: Real>(g: &Sizes, maps: &[F], kernel: &[F]) -> Vec<F> {
    let m = maps.len() / g.map_len();
    let mut images = vec![F::from_f64(0.); m * g.image_len()];
    let block = g.block();
    images.par_chunks_mut(block * g.image_len()).zip(maps.par_chunks(block * g.map_len())).for_each_init(
        || (Vec::new(), Vec::new()),
        |(cols, gathered), (images, maps)| {
            let columns = maps.len() / g.c_out;
            let gathered = sized(gathered, maps.len(), false);
            g.gather_maps(maps, gathered);
            let cols = sized(cols, g.taps() * columns, false);
            matmul(cols, g.kernel(kernel).transposed(), Matrix::row_major(gathered, g.c_out, columns), false);
            for (i, image) in images.chunks_exact_mut(g.image_len()).enumerate() {
                g.columns_to_image(cols, columns, i * g.positions(), image);
            }
        },
    );
    images
}

/// The adjoint of [`correlate`] in the kernel.
pub(super) fn kernel_gradient<F: Real>(g: &Sizes, images: &[F], maps: &[F]) -> Vec<F> {
    let len = g.c_out * g.taps();
    let blocks = (images.len() / g.image_len()).div_ceil(g.block());
    let share = blocks.div_ceil(PARTIALS).max(1) * g.block();
    let partials: Vec<Vec<F>> = images
        .par_chunks(share * g.image_len())
        .zip(maps.par_chunks(share * g.map_len()))
        .map(|(images, maps)| kernel_gradient_share(g, images, maps))
        .collect();
    let mut total = vec![F::from_f64(0.); len];
    for partial in partials {
        total.iter_mut().zip(partial).for_each(|(t, p)| *t += p);
    }
    total
}

fn kernel_gradient_share<F: Real>(g: &Sizes, images: &[F], maps: &[F]) -> Vec<F> {
    let mut grad = vec![F::from_f64(0.); g.c_out * g.taps()];
    let (mut cols, mut gathered) = (Vec::new(), Vec::new());
    let block = g.block();
    for (images, maps) in images.chunks(block * g.image_len()).zip(maps.chunks(block * g.map_len())) {
        let columns = maps.len() / g.c_out;
        let cols = sized(&mut cols, g.taps() * columns, true);
        for (i, image) in images.chunks_exact(g.image_len()).enumerate() {
            g.image_to_columns(image, cols, columns, i * g.positions());
        }
        let gathered = sized(&mut gathered, maps.len(), false);
        g.gather_maps(maps, gathered);
        let cols = Matrix::row_major(cols, g.taps(), columns).transposed();
        matmul(&mut grad, Matrix::row_major(gathered, g.c_out, columns), cols, true);
    }
    grad
}
