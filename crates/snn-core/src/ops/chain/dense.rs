//! The same products on matrix products, for inputs that are not sparse, and for the dense gradient of the input.
//!
//! Rows are positions, columns channels. A map can be *gathered* by its receiving side (a row of columns for each
//! output position, zeros where a tap falls into the padding) or *scattered* from its sending side; a convolution is
//! dense in taps on its target side, a transposed one on its source side, so each is gathered there.

use super::links::{Kind, Links, NOWHERE};
use crate::ops::gemm::{Matrix, matmul};

/// Buffers that a thread keeps.
#[derive(Default)]
pub(super) struct Scratch {
    columns: Vec<f32>,
    product: Vec<f32>,
}

impl Scratch {
    /// Two buffers of these lengths, their contents whatever they were.
    pub(super) fn two(&mut self, a: usize, b: usize) -> (&mut [f32], &mut [f32]) {
        self.columns.resize(a.max(self.columns.len()), 0.);
        self.product.resize(b.max(self.product.len()), 0.);
        (&mut self.columns[..a], &mut self.product[..b])
    }
}

/// One direction of a layer: from rows of `from` channels to rows of `to` channels.
pub(super) struct Direction<'a> {
    /// `[tap][to position]` -> from position.
    sender_of: &'a [u32],
    senders: usize,
    receivers: usize,
    taps: usize,
    from: usize,
    to: usize,
    /// Whether the receiving side has all its taps.
    gathered: bool,
}

impl<'a> Direction<'a> {
    /// Source to target.
    pub(super) fn forward(links: &'a Links, channels: (usize, usize)) -> Self {
        Self {
            sender_of: &links.source_of,
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
            let columns = self.gather(rows, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.receivers, self.taps * self.from);
            matmul(out, columns, Matrix::row_major(weights, self.taps * self.from, self.to), false);
        } else {
            let (m, n) = (steps * self.senders, self.taps * self.to);
            scratch.product.resize(m * n, 0.);
            let weights = Matrix::row_major(weights, self.from, n);
            matmul(&mut scratch.product, Matrix::row_major(rows, m, self.from), weights, false);
            out.fill(0.);
            self.scatter(&scratch.product, out);
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
            let columns = self.gather(rows, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.receivers, self.taps * self.from);
            matmul(
                into,
                columns.transposed(),
                Matrix::row_major(grad, steps * self.receivers, self.to),
                true,
            );
        } else {
            let columns = self.gather_adjoint(grad, &mut scratch.columns);
            let columns = Matrix::row_major(columns, steps * self.senders, self.taps * self.to);
            let rows = Matrix::row_major(rows, steps * self.senders, self.from);
            matmul(into, rows.transposed(), columns, true);
        }
    }

    /// `[steps * receivers, taps * from]`.
    fn gather<'b>(&self, rows: &[f32], columns: &'b mut Vec<f32>) -> &'b [f32] {
        let (steps, c) = (rows.len() / (self.senders * self.from), self.from);
        columns.clear();
        columns.resize(steps * self.receivers * self.taps * c, 0.);
        let width = self.taps * c;
        for (columns, rows) in
            columns.chunks_exact_mut(self.receivers * width).zip(rows.chunks_exact(self.senders * c))
        {
            for (tap, senders) in self.sender_of.chunks_exact(self.receivers).enumerate() {
                for (line, &sender) in columns.chunks_exact_mut(width).zip(senders) {
                    if sender != NOWHERE {
                        line[tap * c..][..c].copy_from_slice(&rows[sender as usize * c..][..c]);
                    }
                }
            }
        }
        columns
    }

    /// The gradient rows seen from the senders, `[steps * senders, taps * to]`.
    fn gather_adjoint<'b>(&self, grad: &[f32], columns: &'b mut Vec<f32>) -> &'b [f32] {
        let (steps, c) = (grad.len() / (self.receivers * self.to), self.to);
        columns.clear();
        columns.resize(steps * self.senders * self.taps * c, 0.);
        let width = self.taps * c;
        for (columns, grad) in
            columns.chunks_exact_mut(self.senders * width).zip(grad.chunks_exact(self.receivers * c))
        {
            for (tap, senders) in self.sender_of.chunks_exact(self.receivers).enumerate() {
                for (row, &sender) in grad.chunks_exact(c).zip(senders) {
                    if sender != NOWHERE {
                        columns[sender as usize * width + tap * c..][..c].copy_from_slice(row);
                    }
                }
            }
        }
        columns
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
