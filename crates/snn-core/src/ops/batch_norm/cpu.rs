//! Per-channel sums and maps over `[M, C, S]`. Sums run in f64, in an order that does not depend on the threads.

use rayon::prelude::*;

use crate::ops::Real;

/// `[M, C, S]` seen as planes of `S` elements.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) channels: usize,
    pub(super) size: usize,
}

/// Elements a task.
const GRAIN: usize = 1 << 15;
const LANES: usize = 8;

impl Planes {
    fn images_a_task(&self) -> usize {
        GRAIN.div_ceil((self.channels * self.size).max(1))
    }

    /// `sum (x - pivot)` and `sum (x - pivot)^2` of each channel.
    pub(super) fn sum_around<F: Real>(&self, xs: &[F], pivots: &[f64]) -> Vec<(f64, f64)> {
        self.sum(xs, xs, |c, x, _| {
            let d = x - pivots[c];
            (d, d * d)
        })
    }

    /// `sum g` and `sum g (x - mean)` of each channel.
    pub(super) fn sum_products<F: Real>(&self, xs: &[F], gs: &[F], means: &[f64]) -> Vec<(f64, f64)> {
        self.sum(xs, gs, |c, x, g| (g, g * (x - means[c])))
    }

    /// Sums two quantities of every element pair of each channel.
    fn sum<F: Real>(
        &self,
        a: &[F],
        b: &[F],
        f: impl Fn(usize, f64, f64) -> (f64, f64) + Sync,
    ) -> Vec<(f64, f64)> {
        let chunk = (self.images_a_task() * self.channels * self.size).max(1);
        let partials: Vec<Vec<(f64, f64)>> = a
            .par_chunks(chunk)
            .zip(b.par_chunks(chunk))
            .map(|(a, b)| {
                let mut sums = vec![(0., 0.); self.channels];
                for (i, (a, b)) in a.chunks_exact(self.size).zip(b.chunks_exact(self.size)).enumerate() {
                    let c = i % self.channels;
                    let (first, second) = sum_plane(a, b, &|a, b| f(c, a, b));
                    sums[c] = (sums[c].0 + first, sums[c].1 + second);
                }
                sums
            })
            .collect();
        let mut total = vec![(0., 0.); self.channels];
        for partial in partials {
            total.iter_mut().zip(partial).for_each(|(t, p)| *t = (t.0 + p.0, t.1 + p.1));
        }
        total
    }

    /// `out = p a + q (b - m) + r` for every element, `[p, q, m, r]` by channel.
    pub(super) fn map<F: Real>(&self, a: &[F], b: &[F], coefficients: &[[F; 4]]) -> Vec<F> {
        let mut out = vec![F::from_f64(0.); a.len()];
        let chunk = (self.images_a_task() * self.channels * self.size).max(1);
        out.par_chunks_mut(chunk).zip(a.par_chunks(chunk)).zip(b.par_chunks(chunk)).for_each(
            |((out, a), b)| {
                let planes = out
                    .chunks_exact_mut(self.size)
                    .zip(a.chunks_exact(self.size))
                    .zip(b.chunks_exact(self.size));
                for (i, ((out, a), b)) in planes.enumerate() {
                    let [p, q, m, r] = coefficients[i % self.channels];
                    out.iter_mut().zip(a).zip(b).for_each(|((o, &a), &b)| *o = p * a + q * (b - m) + r);
                }
            },
        );
        out
    }

    /// `out = p (a - m) + r` for every element, `[m, p, r]` by channel.
    pub(super) fn affine<F: Real>(&self, a: &[F], coefficients: &[[F; 3]]) -> Vec<F> {
        let mut out = vec![F::from_f64(0.); a.len()];
        let chunk = (self.images_a_task() * self.channels * self.size).max(1);
        out.par_chunks_mut(chunk).zip(a.par_chunks(chunk)).for_each(|(out, a)| {
            for (i, (out, a)) in out.chunks_exact_mut(self.size).zip(a.chunks_exact(self.size)).enumerate() {
                let [m, p, r] = coefficients[i % self.channels];
                out.iter_mut().zip(a).for_each(|(o, &a)| *o = p * (a - m) + r);
            }
        });
        out
    }
}

#[inline(always)]
fn sum_plane<F: Real>(a: &[F], b: &[F], f: &impl Fn(f64, f64) -> (f64, f64)) -> (f64, f64) {
    let (mut first, mut second) = ([0f64; LANES], [0f64; LANES]);
    let mut add = |i: usize, a: F, b: F| {
        let (x, y) = f(a.to_f64(), b.to_f64());
        first[i] += x;
        second[i] += y;
    };
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (i, (&a, &b)) in a_lanes.remainder().iter().zip(b_lanes.remainder()).enumerate() {
        add(i, a, b);
    }
    for (a, b) in a_lanes.zip(b_lanes) {
        for i in 0..LANES {
            add(i, a[i], b[i]);
        }
    }
    (first.iter().sum(), second.iter().sum())
}
