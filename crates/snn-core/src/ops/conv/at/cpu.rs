//! The columns that some positions see, and their products with the weight.

use rayon::prelude::*;

use super::At;
use crate::ops::gemm::{Matrix, matmul};
use crate::ops::{Real, threads};

/// Rows of the weight's gradient that a thread makes at once.
const BLOCK: usize = 64;
/// Items whose positions are one product of a gradient.
const GROUP: usize = 8;
/// Forward, where it makes no difference to a row how many there are, at most so many, of about so many numbers: each product lays the
/// weight out anew.
const MOST: usize = 64;
const NUMBERS: usize = 1 << 20;

/// The rows from which on `gemm` sums each row of a product in the same order, however many there are: it has other kernels for a
/// single row and for results of up to 256 numbers, and cuts sums of more than 512 terms elsewhere where neither side is above 64.
fn least_rows(c_out: usize, width: usize) -> usize {
    let few = if c_out <= 64 && width > 512 { 65 } else { 2 };
    few.max(256 / c_out + 1)
}

impl At {
    pub(super) fn correlate<F: Real>(&self, xs: &[F], weight: &[F]) -> Vec<F> {
        let ([_, c_out], width) = (self.channels, self.width());
        let mut ys = vec![F::from_f64(0.); self.rows() * c_out];
        let item = self.rows().div_ceil(self.positions.len().max(1)) * width;
        let most = (NUMBERS / item.max(1)).clamp(GROUP, MOST);
        let group = self.positions.len().div_ceil(threads()).clamp(GROUP, most);
        let images = xs.par_chunks((group * self.image_len()).max(1));
        let groups = self.groups(group, &mut ys, c_out).zip(images);
        groups.filter(|((_, ys), _)| !ys.is_empty()).for_each(|((at, ys), xs)| {
            let (rows, least) = (ys.len() / c_out, least_rows(c_out, width));
            let mut columns = Vec::with_capacity(rows.max(least) * width);
            self.append_columns(xs, at, &mut columns);
            let weight = Matrix::row_major(weight, c_out, width).transposed();
            if rows >= least {
                return matmul(ys, Matrix::row_major(&columns, rows, width), weight, false);
            }
            columns.resize(least * width, F::from_f64(0.));
            let mut padded = vec![F::from_f64(0.); least * c_out];
            matmul(&mut padded, Matrix::row_major(&columns, least, width), weight, false);
            ys.copy_from_slice(&padded[..ys.len()]);
        });
        ys
    }

    pub(super) fn image_gradient<F: Real>(&self, grad: &[F], weight: &[F]) -> Vec<F> {
        let ([_, c_out], width) = (self.channels, self.width());
        let mut columns = vec![F::from_f64(0.); self.rows() * width];
        let mut images = vec![F::from_f64(0.); self.positions.len() * self.image_len()];
        let mut starts = Vec::new();
        self.positions.chunks(GROUP).fold(0, |start, at| {
            starts.push(start);
            start + at.iter().map(Vec::len).sum::<usize>()
        });
        let size = self.image_len().max(1);
        let groups =
            self.groups(GROUP, &mut columns, width).zip(images.par_chunks_mut(GROUP * size)).zip(starts);
        groups.filter(|(((_, columns), _), _)| !columns.is_empty()).for_each(
            |(((at, columns), images), start)| {
                let grad = Matrix::row_major(&grad[start * c_out..], columns.len() / width, c_out);
                matmul(columns, grad, Matrix::row_major(weight, c_out, width), false);
                let mut columns = columns.chunks_exact(width);
                for (at, image) in at.iter().zip(images.chunks_exact_mut(size)) {
                    for (&p, column) in at.iter().zip(&mut columns) {
                        self.add_column(column, p as usize, image);
                    }
                }
            },
        );
        images
    }

    pub(super) fn kernel_gradient<F: Real>(&self, xs: &[F], grad: &[F]) -> Vec<F> {
        let ([_, c_out], width, rows) = (self.channels, self.width(), self.rows());
        let groups = self.positions.par_chunks(GROUP).zip(xs.par_chunks((GROUP * self.image_len()).max(1)));
        let columns: Vec<Vec<F>> = groups
            .map(|(at, xs)| {
                let mut columns = Vec::with_capacity(at.iter().map(Vec::len).sum::<usize>() * width);
                self.append_columns(xs, at, &mut columns);
                columns
            })
            .collect();
        let columns = columns.concat();
        let mut kernel = vec![F::from_f64(0.); c_out * width];
        if rows > 0 {
            kernel.par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, kernel)| {
                let of_block = Matrix::row_major(&grad[block * BLOCK..], rows, kernel.len() / width);
                let columns = Matrix::row_major(&columns, rows, width);
                matmul(kernel, of_block.with_row_stride(c_out).transposed(), columns, false);
            });
        }
        kernel
    }

    /// The positions of each group of so many items, and its part of rows of this width.
    fn groups<'a, F: Real>(
        &'a self,
        group: usize,
        mut rows: &'a mut [F],
        width: usize,
    ) -> impl IndexedParallelIterator<Item = (&'a [Vec<u32>], &'a mut [F])> {
        let mut groups = Vec::with_capacity(self.positions.len().div_ceil(group));
        for at in self.positions.chunks(group) {
            let count: usize = at.iter().map(Vec::len).sum();
            let (own, others) = std::mem::take(&mut rows).split_at_mut(count * width);
            groups.push((at, own));
            rows = others;
        }
        groups.into_par_iter()
    }

    /// Appends what all positions of these items see.
    fn append_columns<F: Real>(&self, xs: &[F], at: &[Vec<u32>], into: &mut Vec<F>) {
        for (at, xs) in at.iter().zip(xs.chunks_exact(self.image_len().max(1))) {
            at.iter().for_each(|&p| self.append_column(xs, p as usize, into));
        }
    }

    /// Where each tap of position `p` lies in a plane of the image, if it does.
    fn taps(&self, p: usize) -> Vec<Option<usize>> {
        let [rows, columns] = self.axes;
        let (oy, ox) = (p / columns.map, p % columns.map);
        let seen = |tap: usize| {
            let y = rows.image_at(oy, tap / columns.kernel)?;
            Some(y * columns.image + columns.image_at(ox, tap % columns.kernel)?)
        };
        (0..rows.kernel * columns.kernel).map(seen).collect()
    }

    /// Appends what position `p` sees: `[C_in, taps]`, as the weight's rows are ordered.
    fn append_column<F: Real>(&self, xs: &[F], p: usize, into: &mut Vec<F>) {
        let taps = self.taps(p);
        if let [Some(q)] = taps[..] {
            return into.extend(xs.iter().skip(q).step_by(self.axes[0].image * self.axes[1].image));
        }
        for plane in xs.chunks_exact(self.axes[0].image * self.axes[1].image) {
            into.extend(taps.iter().map(|seen| seen.map_or(F::from_f64(0.), |q| plane[q])));
        }
    }

    /// The adjoint: adds to each place what `p` saw of it.
    fn add_column<F: Real>(&self, column: &[F], p: usize, image: &mut [F]) {
        let taps = self.taps(p);
        let planes = image.chunks_exact_mut(self.axes[0].image * self.axes[1].image);
        for (plane, column) in planes.zip(column.chunks_exact(taps.len())) {
            for (seen, &x) in taps.iter().zip(column) {
                if let Some(q) = *seen {
                    plane[q] += x;
                }
            }
        }
    }
}
