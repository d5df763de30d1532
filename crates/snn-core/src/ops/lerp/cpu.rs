//! Interpolation and its gradient on the CPU.

use rayon::prelude::*;

use crate::ops::Real;

/// Elements a task: constant, so that sums are formed alike on any number of threads.
const CHUNK: usize = 4096;

/// `k pair[0] + (1 - k) pair[1]`.
pub(super) fn forward<F: Real>(pair: &[F], k: F) -> Vec<F> {
    let (a, b) = pair.split_at(pair.len() / 2);
    a.par_iter().zip(b).map(|(&a, &b)| b + (a - b) * k).collect()
}

/// The gradient of the pair and, behind it, of `k`.
pub(super) fn gradient<F: Real>(pair: &[F], grad: &[F], k: f64) -> Vec<F> {
    let n = grad.len();
    let (a, b) = pair.split_at(n);
    let shares = [F::from_f64(k), F::from_f64(1. - k)];
    let mut both = vec![F::from_f64(0.); 2 * n + 1];
    for (into, share) in both.chunks_exact_mut(n.max(1)).zip(shares) {
        into.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)).for_each(|(into, grad)| {
            into.iter_mut().zip(grad).for_each(|(i, &g)| *i = share * g);
        });
    }
    let chunks = grad.par_chunks(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    let sums: Vec<f64> = chunks
        .map(|((grad, a), b)| grad.iter().zip(a).zip(b).map(|((&g, &a), &b)| (g * (a - b)).to_f64()).sum())
        .collect();
    both[2 * n] = F::from_f64(sums.iter().sum());
    both
}
