//! The same products on matrix products, for inputs that are not sparse, and for the dense gradient of the input.
//!
//! Rows are positions, columns channels. A map can be *gathered* by its receiving side (a row of columns for each
//! output position, zeros where a tap falls into the padding) or *scattered* from its sending side; a convolution is
//! dense in taps on its target side, a transposed one on its source side, so each is gathered there.

use super::scratch::{Scratch, lend};
use crate::geometry::{Kind, Links, NOWHERE};
use crate::ops::gemm::{Matrix, matmul};

/// One direction of a layer: from rows of `from` channels to rows of `to` channels.
pub(super) struct Direction<'a> {
    /// `[tap][to position]` -> from position.
    pub(super) sender_of: &'a [u32],
    /// `[tap][from position]` -> to position.
    receiver_of: &'a [u32],
    pub(super) senders: usize,
    pub(super) receivers: usize,
    pub(super) taps: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Whether the receiving side has all its taps.
    pub(super) gathered: bool,
}

impl<'a> Direction<'a> {
    /// Source to target.
    pub(super) fn forward(links: &'a Links, channels: (usize, usize)) -> Self {
        Self {
            sender_of: &links.source_of,
            receiver_of: &links.target_of,
            senders: links.sources,
            receivers: links.targets,
            taps: links.taps,
            from: channels.0,
            to: channels.1,
            gathered: links.kind == Kind::Conv,
        }
    }

    /// Target to source: the adjoint.
    pub(super) fn backward(links: &'a Links, channels: (usize, usize)) -> Self {
        Self {
            sender_of: &links.target_of,
            receiver_of: &links.source_of,
            senders: links.targets,
            receivers: links.sources,
            taps: links.taps,
            from: channels.1,
            to: channels.0,
            gathered: links.kind == Kind::Transposed,
        }
    }

    /// The weights as [`run`](Self::run) wants them, from `weight(from, tap, to)`.
    pub(super) fn pack(&self, weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        let (taps, from, to) = (self.taps, self.from, self.to);
        let mut packed = vec![0.; taps * from * to];
        for tap in 0..taps {
            for f in 0..from {
                for t in 0..to {
                    let at =
                        if self.gathered { (tap * from + f) * to + t } else { (f * taps + tap) * to + t };
                    packed[at] = weight(f, tap, t);
                }
            }
        }
        packed
    }

    /// `out = W rows`, `rows: [steps * senders, from]`, `out: [steps * receivers, to]`.
    pub(super) fn run(&self, rows: &[f32], weights: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let steps = rows.len() / (self.senders * self.from);
        if self.taps == 1 && self.is_identity() {
            let rows = Matrix::row_major(rows, steps * self.senders, self.from);
            matmul(out, rows, Matrix::row_major(weights, self.from, self.to), false);
        } else if self.gathered {
            let columns =
                gather(self.sender_of, rows, (self.senders, self.receivers), self.from, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.receivers, self.taps * self.from);
            matmul(out, columns, Matrix::row_major(weights, self.taps * self.from, self.to), false);
        } else {
            let (m, n) = (steps * self.senders, self.taps * self.to);
            let product = lend(&mut scratch.product, m * n);
            let weights = Matrix::row_major(weights, self.from, n);
            matmul(product, Matrix::row_major(rows, m, self.from), weights, false);
            out.fill(0.);
            self.scatter(product, out);
        }
    }

    /// Whether the first tap joins every position to itself; a 1x1 kernel with stride and padding may not.
    fn is_identity(&self) -> bool {
        let mut senders = self.sender_of[..self.receivers].iter().enumerate();
        self.senders == self.receivers && senders.all(|(p, &q)| p as u32 == q)
    }

    /// Adds to the weight gradient `[from * taps * to]`, laid out as [`pack`](Self::pack) does, what comes of these rows
    /// and the gradient of what [`run`](Self::run) makes of them.
    pub(super) fn weight_gradient(
        &self,
        rows: &[f32],
        grad: &[f32],
        into: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let steps = rows.len() / (self.senders * self.from);
        if self.gathered {
            let columns =
                gather(self.sender_of, rows, (self.senders, self.receivers), self.from, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.receivers, self.taps * self.from);
            matmul(
                into,
                columns.transposed(),
                Matrix::row_major(grad, steps * self.receivers, self.to),
                true,
            );
        } else {
            let columns =
                gather(self.receiver_of, grad, (self.receivers, self.senders), self.to, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.senders, self.taps * self.to);
            let rows = Matrix::row_major(rows, steps * self.senders, self.from);
            matmul(into, rows.transposed(), columns, true);
        }
    }

    /// `product: [steps * senders, taps * to]`, added into `out: [steps * receivers, to]`.
    fn scatter(&self, product: &[f32], out: &mut [f32]) {
        let (c, width) = (self.to, self.taps * self.to);
        for (out, product) in
            out.chunks_exact_mut(self.receivers * c).zip(product.chunks_exact(self.senders * width))
        {
            for (tap, senders) in self.sender_of.chunks_exact(self.receivers).enumerate() {
                for (row, &sender) in out.chunks_exact_mut(c).zip(senders) {
                    if sender != NOWHERE {
                        let part = &product[sender as usize * width + tap * c..][..c];
                        row.iter_mut().zip(part).for_each(|(o, p)| *o += p);
                    }
                }
            }
        }
    }
}

/// Rows of `c` channels at `from` positions as columns `[steps * to, taps * c]`: what each tap of each `to` position sees, by
/// `table: [tap][to position]`.
fn gather<'b>(
    table: &[u32],
    rows: &[f32],
    (from, to): (usize, usize),
    c: usize,
    columns: &'b mut Vec<f32>,
) -> &'b [f32] {
    let (steps, width) = (rows.len() / (from * c), table.len() / to * c);
    let columns = lend(columns, steps * to * width);
    if c == 1 {
        for (columns, rows) in columns.chunks_exact_mut(to * width).zip(rows.chunks_exact(from)) {
            for (tap, places) in table.chunks_exact(to).enumerate() {
                for (line, &place) in columns.chunks_exact_mut(width).zip(places) {
                    line[tap] = if place == NOWHERE { 0. } else { rows[place as usize] };
                }
            }
        }
        return columns;
    }
    for (columns, rows) in columns.chunks_exact_mut(to * width).zip(rows.chunks_exact(from * c)) {
        for (tap, places) in table.chunks_exact(to).enumerate() {
            for (line, &place) in columns.chunks_exact_mut(width).zip(places) {
                let column = &mut line[tap * c..][..c];
                match place {
                    NOWHERE => column.fill(0.),
                    _ => column.copy_from_slice(&rows[place as usize * c..][..c]),
                }
            }
        }
    }
    columns
}
