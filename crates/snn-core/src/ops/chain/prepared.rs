//! A chain whose parameters do not change, on the backend that has one.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{End, Spec, cpu};
use crate::ops::backend::Backend;

/// A chain laid out once for many inputs.
#[derive(Debug)]
pub(crate) enum Prepared {
    Cpu(cpu::Prepared),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Prepared),
}

impl Prepared {
    /// Layers with their weights and their affines; none where there is no kernel for them.
    pub(crate) fn new(specs: &[Spec], weights: &[Tensor], affines: &[Tensor]) -> Result<Option<Self>> {
        let Some((first, backend)) = weights.first().map(|weight| (weight, Backend::of(weight))) else {
            return Ok(None);
        };
        #[cfg(feature = "cuda")]
        if backend == Backend::Cuda && specs.iter().all(|spec| !spec.learns && spec.flattened == 1) {
            return cuda::Prepared::new(specs, weights, affines).map(Self::Cuda).map(Some);
        }
        if !backend.has_events(first.dtype()) {
            return Ok(None);
        }
        let of_layer = |((spec, weight), affine): ((&Spec, &Tensor), &Tensor)| {
            Ok((*spec, weight.flatten_all()?.to_vec1()?, affine.to_vec1()?))
        };
        let layers = specs.iter().zip(weights).zip(affines).map(of_layer).collect::<Result<_>>()?;
        Ok(Some(Self::Cpu(cpu::Prepared::new(layers))))
    }

    /// Whether [`run`](Self::run) computes only the positions `at`, and leaves the others zero; else it computes all.
    pub(crate) fn heeds_positions(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// The chain on `xs: [T, N, C, H, W]`, or `[N, C, H, W]` where it is constant, without gradient.
    pub(crate) fn run(
        &self,
        xs: &Tensor,
        constant: Option<usize>,
        end: End,
        at: Option<&[Vec<u32>]>,
    ) -> Result<Tensor> {
        match self {
            Self::Cpu(chain) => chain.run(xs, constant, end, at),
            #[cfg(feature = "cuda")]
            Self::Cuda(chain) => chain.run(xs, constant, end),
        }
    }
}
