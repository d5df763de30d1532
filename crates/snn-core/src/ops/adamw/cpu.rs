//! The two passes of a step on the CPU, in the order of the twin's roundings.

use candle_core::{CpuStorage, Layout, Result, bail};
use rayon::prelude::*;

use super::Step;
use crate::ops::Real;

/// Elements a task.
const CHUNK: usize = 16_384;

/// The elements of a contiguous operand, to be changed.
pub(super) fn elements<'a, F: Real>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [F]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("adamw: operand of shape {:?} is not contiguous", layout.shape())
    };
    match F::slice_mut(storage) {
        Some(values) => Ok(&mut values[start..end]),
        None => bail!("adamw: an operand is not {:?}", F::DTYPE),
    }
}

/// `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`.
pub(super) fn moments<F: Real>(by: Step, m: &mut [F], v: &mut [F], grad: &[F]) {
    let [b1, b2, c1, c2] = [by.beta1, by.beta2, 1. - by.beta1, 1. - by.beta2].map(F::from_f64);
    // Candle's products with a number add a zero, which turns -0 into 0.
    let zero = F::from_f64(0.);
    let chunks = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)).zip(grad.par_chunks(CHUNK));
    chunks.for_each(|((m, v), grad)| {
        for ((m, v), &g) in m.iter_mut().zip(v).zip(grad) {
            *m = (*m * b1 + zero) + (g * c1 + zero);
            *v = (*v * b2 + zero) + (g * g * c2 + zero);
        }
    });
}

/// `p <- keep p - step_size m / (sqrt(v) / root + eps)`.
pub(super) fn descent<F: Real>(by: Step, param: &mut [F], m: &[F], v: &[F]) {
    let [keep, size, inverse, eps] = [by.keep, by.step_size, 1. / by.root, by.eps].map(F::from_f64);
    let zero = F::from_f64(0.);
    let chunks = param.par_chunks_mut(CHUNK).zip(m.par_chunks(CHUNK)).zip(v.par_chunks(CHUNK));
    chunks.for_each(|((param, m), v)| {
        for ((p, &m), &v) in param.iter_mut().zip(m).zip(v) {
            let update = (m * size + zero) / ((v.sqrt() * inverse + zero) + eps);
            *p = (*p * keep + zero) - update;
        }
    });
}
