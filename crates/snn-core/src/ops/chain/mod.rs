//! A chain of spiking layers as one operation: synapse, norm, LIF, again and again.
//!
//! What makes it fast, and where:
//! - between layers spikes are lists of events, not tensors, and every spike costs additions only (`events`, `sparse`);
//! - one list of a layer's spikes serves the forward pass and the weight gradient;
//! - batch norm and LIF are one pass, backward too; membranes and normalised currents are never stored (`neuron`);
//! - the dense gradient of the input goes through Winograd's minimal filtering (`winograd`), or is formed in registers (`direct`);
//! - everything inside is channels last, so that spikes, weights and gradients are read in rows;
//! - Candle's backward pass adds every gradient to a tensor of zeros first: a chain has one gradient to hand over, not
//!   five a layer.
//!
//! On a GPU the layers run one by one, by the kernels of their ops, inside the operation (`cuda`).
//!
//! The twin is the same chain made of `conv2d`, `batch_norm` and `lif`; it runs wherever this does not (on the CPU, f64).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod prepared;
mod spec;

use candle_core::{Result, Tensor, bail};

use crate::ops::backend::Backend;
pub(crate) use cpu::{Tables, Tokens, Vectors};
pub(crate) use prepared::Prepared;
pub(crate) use spec::{BatchMoments, Chain, End, Scaling, Spec};

/// Whether a chain can run on this tensor.
pub(crate) fn supports(xs: &Tensor) -> bool {
    Backend::of(xs).has_chain(xs.dtype()) && xs.elem_count() > 0
}

/// Runs a chain on `xs: [T, N, C, H, W]`, or `[N, C, H, W]` where it is constant; differentiable in all tensors.
///
/// `weights` are those of each layer, `affines` two rows of channels a layer (see [`Scaling`]) and one number more where it
/// [learns](Spec::learns), one after the other.
/// Returns the output and, where all is [kept](Chain::keep), the statistics of each layer that is scaled by its batch.
///
/// # Errors
/// Returns an error where there is no [kernel](supports).
pub(crate) fn run(
    xs: &Tensor,
    weights: &[Tensor],
    affines: &Tensor,
    chain: &Chain<'_>,
) -> Result<(Tensor, Vec<Option<BatchMoments>>)> {
    match Backend::of(xs) {
        Backend::Cpu => cpu::run(xs, weights, affines, chain),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::run(xs, weights, affines, chain),
        _ => bail!("spiking_chain: no kernel on {:?}", xs.device().location()),
    }
}
