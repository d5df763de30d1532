//! The columns that some positions see, and one product with the weight.

use rayon::prelude::*;

use super::At;
use crate::ops::Real;
use crate::ops::gemm::{Matrix, matmul};

impl At<'_> {
    pub(super) fn forward<F: Real>(&self, xs: &[F], weight: &[F], (c_out, rows): (usize, usize)) -> Vec<F> {
        let (mut ys, width) = (vec![F::from_f64(0.); rows * c_out], weight.len() / c_out);
        let size = xs.len() / self.positions.len().max(1);
        let (mut items, mut rest) = (Vec::with_capacity(self.positions.len()), &mut ys[..]);
        for (xs, at) in xs.chunks_exact(size.max(1)).zip(self.positions) {
            let (ys, others) = std::mem::take(&mut rest).split_at_mut(at.len() * c_out);
            items.push((xs, at, ys));
            rest = others;
        }
        items.into_par_iter().filter(|(_, at, _)| !at.is_empty()).for_each(|(xs, at, ys)| {
            let mut columns = Vec::with_capacity(at.len() * width);
            at.iter().for_each(|&p| self.append_column(xs, p as usize, &mut columns));
            let weight = Matrix::row_major(weight, c_out, width).transposed();
            matmul(ys, Matrix::row_major(&columns, at.len(), width), weight, false);
        });
        ys
    }

    /// Appends what position `p` sees: `[C_in, taps]`, as the weight's rows are ordered.
    fn append_column<F: Real>(&self, xs: &[F], p: usize, into: &mut Vec<F>) {
        let [rows, columns] = self.axes;
        let (oy, ox) = (p / columns.map, p % columns.map);
        let seen = |tap: usize| {
            let y = rows.image_at(oy, tap / columns.kernel)?;
            Some(y * columns.image + columns.image_at(ox, tap % columns.kernel)?)
        };
        let taps: Vec<_> = (0..rows.kernel * columns.kernel).map(seen).collect();
        for plane in xs.chunks_exact(rows.image * columns.image) {
            into.extend(taps.iter().map(|seen| seen.map_or(F::from_f64(0.), |q| plane[q])));
        }
    }
}
