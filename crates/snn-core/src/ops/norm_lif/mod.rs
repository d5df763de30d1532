//! Batch norm, or a fixed affine map by channel, and LIF behind it, as one operation: on GPUs, where each reads the currents from memory once.
//!
//! The twins are [`batch_norm`](crate::batch_norm), or the map, and [`lif`] one after the other; they run wherever there is no kernel.

#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::backend::Backend;
use super::batch_norm::{batch_norm_of_copies, check_channels};
use super::lif::fits_shared;
use crate::exchange::Exchange;
use crate::time::split_time;
use crate::{BatchNormed, LifConfig, lif, lif_constant};

/// LIF neurons over the time steps of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) lif: LifConfig,
    pub(crate) steps: usize,
    /// Whether the currents are the same at each step: `[N, C, ...]`, else `[T N, C, ...]`.
    pub(crate) constant: bool,
}

impl Sequence {
    /// How often each current stands for itself.
    pub(crate) fn copies(&self) -> usize {
        if self.constant { self.steps } else { 1 }
    }

    /// The shape of the spikes, `[T, N, C, ...]`.
    pub(crate) fn spikes(&self, currents: &[usize]) -> Result<Vec<usize>> {
        let [items, others @ ..] = currents else { bail!("norm_lif: wants [N, C, ...], got a scalar") };
        let copies = if self.constant { 1 } else { self.steps };
        if copies == 0 || items % copies != 0 {
            bail!("norm_lif: currents {currents:?} are not those of {} time steps", self.steps)
        }
        Ok([&[self.steps, items / copies], others].concat())
    }

    /// The neurons alone.
    pub(crate) fn run(&self, currents: &Tensor) -> Result<Tensor> {
        self.spikes(currents.dims())?;
        if self.constant {
            return lif_constant(currents, self.steps, &self.lif);
        }
        lif(&split_time(currents, self.steps)?, &self.lif)
    }
}

/// Whether there is a kernel for so many time steps of such currents.
pub(crate) fn has_kernel(xs: &Tensor, steps: usize) -> bool {
    Backend::of(xs) == Backend::Cuda && steps > 0 && fits_shared(xs.dtype(), steps)
}

/// [`batch_norm_of_copies`] with the spikes `[T, N, C, ...]` of neurons behind it instead of the normalised currents.
pub(crate) fn norm_lif(
    xs: &Tensor,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
    sequence: &Sequence,
    exchange: Option<Arc<dyn Exchange>>,
) -> Result<(BatchNormed, usize)> {
    #[cfg(feature = "cuda")]
    if has_kernel(xs, sequence.steps) {
        super::batch_norm::check(xs, weight, bias, sequence.copies())?;
        return cuda::run::norm_lif(xs, [weight, bias], eps, sequence, exchange);
    }
    let (normed, count) = batch_norm_of_copies(xs, weight, bias, eps, sequence.copies(), exchange)?;
    Ok((BatchNormed { ys: sequence.run(&normed.ys)?, ..normed }, count))
}

/// The spikes `[T, N, C, ...]` of neurons behind `y = scale x + shift`, `scale, shift: [C]`; differentiable in all three.
pub(crate) fn map_lif(xs: &Tensor, [scale, shift]: [&Tensor; 2], sequence: &Sequence) -> Result<Tensor> {
    check_channels("map_lif", xs, scale, shift)?;
    #[cfg(feature = "cuda")]
    if has_kernel(xs, sequence.steps) {
        return cuda::run::map_lif(xs, [scale, shift], sequence);
    }
    let by_channel = |t: &Tensor| t.reshape([vec![1, t.elem_count()], vec![1; xs.rank() - 2]].concat());
    sequence.run(&xs.broadcast_mul(&by_channel(scale)?)?.broadcast_add(&by_channel(shift)?)?)
}
