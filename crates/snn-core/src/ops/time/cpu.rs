//! Sums over time and potentials on the CPU.

use rayon::prelude::*;

use super::{CHUNK, PspDistances, PspGradients, WeightedSums};
use crate::ops::{Real, columns};

impl WeightedSums {
    /// Weights by output row and input row.
    pub(super) fn forward<F: Real>(&self, xs: &[F], neurons: usize) -> Vec<F> {
        let mut ys = vec![F::from_f64(0.); self.weights.len() * neurons];
        columns(&mut ys, neurons, CHUNK).into_par_iter().enumerate().for_each(|(i, ys)| {
            for (ys, weights) in ys.into_iter().zip(&self.weights) {
                for (xs, weight) in xs.chunks_exact(neurons).zip(weights) {
                    let (weight, xs) = (F::from_f64(*weight), &xs[i * CHUNK..][..ys.len()]);
                    ys.iter_mut().zip(xs).for_each(|(y, &x)| *y += weight * x);
                }
            }
        });
        ys
    }
}

impl PspDistances {
    pub(super) fn forward<F: Real>(
        &self,
        a: &[F],
        b: &[F],
        (from, n, neurons, steps): (usize, usize, usize, usize),
    ) -> f64 {
        let (decay, gain) = (F::from_f64(1. - 1. / self.tau), F::from_f64(1. / self.tau));
        let (mut potential, mut squares) = (vec![F::from_f64(0.); n], vec![F::from_f64(0.); n]);
        for t in 0..steps {
            let (a, b) = (&a[t * neurons + from..][..n], &b[t * neurons + from..][..n]);
            for (((p, s), &a), &b) in potential.iter_mut().zip(&mut squares).zip(a).zip(b) {
                *p = decay * *p + gain * (a - b);
                *s += *p * *p;
            }
        }
        squares.iter().map(|s| s.to_f64()).sum()
    }
}

impl PspGradients {
    /// `q[t] = 2 p[t] + (1 - 1/tau) q[t+1]`, and `q[t] / tau` is the gradient; into the `rows` of neurons from `from`.
    pub(super) fn forward<F: Real>(
        &self,
        a: &[F],
        b: &[F],
        (from, neurons): (usize, usize),
        mut rows: Vec<&mut [F]>,
    ) {
        let (decay, gain) = (F::from_f64(1. - 1. / self.tau), F::from_f64(1. / self.tau));
        let (zero, two) = (F::from_f64(0.), F::from_f64(2.));
        let [first, second] = self.scales.map(|scale| F::from_f64(scale / self.tau));
        let steps = rows.len() / 2;
        let (rows, others) = rows.split_at_mut(steps);
        let mut last = [zero; CHUNK];
        for (t, row) in rows.iter_mut().enumerate() {
            let at = t * neurons + from;
            let (a, b) = (&a[at..][..row.len()], &b[at..][..row.len()]);
            for (((p, last), &a), &b) in row.iter_mut().zip(&mut last).zip(a).zip(b) {
                *last = decay * *last + gain * (a - b);
                *p = *last;
            }
        }
        last.fill(zero);
        for (row, other) in rows.iter_mut().zip(others).rev() {
            for ((p, other), q) in row.iter_mut().zip(other.iter_mut()).zip(&mut last) {
                *q = two * *p + decay * *q;
                (*p, *other) = (*q * first, *q * second);
            }
        }
    }
}
