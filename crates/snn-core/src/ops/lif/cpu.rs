//! The LIF recurrence over blocks of neurons: membranes live in a small buffer and are never stored.

use rayon::prelude::*;

use super::neuron::{Neuron, by_division};
use crate::LifConfig;
use crate::ops::{Real, columns};

/// Neurons a block: `T` membranes of a block stay in the first-level cache during the backward pass.
const BLOCK: usize = 256;

/// The input current: one for each time step, or one for all of them.
#[derive(Clone, Copy)]
pub(super) struct Input<'a, F> {
    pub(super) xs: &'a [F],
    pub(super) neurons: usize,
    pub(super) time_steps: usize,
    pub(super) constant: bool,
}

impl<'a, F: Copy> Input<'a, F> {
    fn at(&self, t: usize, from: usize, len: usize) -> &'a [F] {
        let start = if self.constant { from } else { t * self.neurons + from };
        &self.xs[start..start + len]
    }
}

/// `Theta`, or `g` where that is asked for, and the potential behind it.
#[inline(always)]
fn fire<F: Real>(cfg: &LifConfig, neuron: &Neuron<F>, smooth: bool, h: F) -> (F, F) {
    if smooth {
        let s = cfg.surrogate.value_of(neuron.excess(h));
        return (s, neuron.reset_in_part(h, s));
    }
    let s = neuron.fire(h);
    (s, neuron.reset(h, s))
}

pub(super) fn forward<F: Real>(cfg: &LifConfig, smooth: bool, input: Input<'_, F>) -> Vec<F> {
    let neuron = Neuron::<F>::new(cfg);
    by_division!(neuron, DIVIDES => forward_by::<F, DIVIDES>(cfg, &neuron, smooth, input))
}

fn forward_by<F: Real, const DIVIDES: bool>(
    cfg: &LifConfig,
    neuron: &Neuron<F>,
    smooth: bool,
    input: Input<'_, F>,
) -> Vec<F> {
    let fire = |h| fire(cfg, neuron, smooth, h);
    let mut spikes = vec![F::from_f64(0.); input.time_steps * input.neurons];
    columns(&mut spikes, input.neurons, BLOCK).into_par_iter().enumerate().for_each(|(i, rows)| {
        let mut v = [neuron.v_reset; BLOCK];
        for (t, row) in rows.into_iter().enumerate() {
            let xs = input.at(t, i * BLOCK, row.len());
            for ((s, v), &x) in row.iter_mut().zip(&mut v).zip(xs) {
                let h = neuron.charge::<DIVIDES>(*v, x);
                (*s, *v) = fire(h);
            }
        }
    });
    spikes
}

/// Backward through time (REFERENCE: gradient of the spikes in, of the input out). The membrane is recomputed.
pub(super) fn backward<F: Real>(
    cfg: &LifConfig,
    smooth: bool,
    input: Input<'_, F>,
    grad_spikes: &[F],
) -> Vec<F> {
    let neuron = Neuron::<F>::new(cfg);
    by_division!(neuron, DIVIDES => backward_by::<F, DIVIDES>(cfg, &neuron, smooth, input, grad_spikes))
}

fn backward_by<F: Real, const DIVIDES: bool>(
    cfg: &LifConfig,
    neuron: &Neuron<F>,
    smooth: bool,
    input: Input<'_, F>,
    grad_spikes: &[F],
) -> Vec<F> {
    let fire = |h| fire(cfg, neuron, smooth, h);
    let (zero, steps, n) = (F::from_f64(0.), input.time_steps, input.neurons);
    let mut grad = vec![zero; if input.constant { n } else { steps * n }];
    columns(&mut grad, n, BLOCK).into_par_iter().enumerate().for_each_init(
        || vec![[zero; BLOCK]; steps],
        |membrane, (i, mut rows)| {
            let (from, len) = (i * BLOCK, rows.first().map_or(0, |row| row.len()));
            let mut v = [neuron.v_reset; BLOCK];
            for (t, hs) in membrane.iter_mut().enumerate() {
                for ((h, v), &x) in hs.iter_mut().zip(&mut v).zip(input.at(t, from, len)) {
                    *h = neuron.charge::<DIVIDES>(*v, x);
                    *v = fire(*h).1;
                }
            }
            let mut gv = [zero; BLOCK];
            for (t, hs) in membrane.iter().enumerate().rev() {
                let row = &mut rows[if input.constant { 0 } else { t }];
                let gs = &grad_spikes[t * n + from..t * n + from + len];
                for (((gx, gv), &h), &gs) in row.iter_mut().zip(&mut gv).zip(hs).zip(gs) {
                    let slope = cfg.surrogate.derivative_of(neuron.excess(h));
                    let gh = neuron.charge_gradient(h, fire(h).0, slope, gs, *gv);
                    let (drive, leak) = neuron.discharge::<DIVIDES>(gh);
                    // Written, not added, where no time step came before: reading fresh memory costs a page fault.
                    *gx = if input.constant && t + 1 < steps { *gx + drive } else { drive };
                    *gv = leak;
                }
            }
        },
    );
    grad
}
