//! A chain whose parameters do not change, laid out once for many inputs.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::forward::Given;
use super::layer::{Layer, Packed};
use super::lookup::{LookedUp, Tables, Tokens, Vectors};
use super::neuron::Affine;
use super::{End, Plan};
use crate::ops::chain::spec::Spec;
use crate::ops::operand;

/// The parameters of each layer as the kernels want them.
#[derive(Debug)]
pub(super) struct LaidOut<'a>(pub(super) Vec<(Packed<'a>, Affine)>);

impl Plan {
    pub(super) fn lay_out<'a>(&self, weights: &[&'a [f32]], affines: &[f32]) -> LaidOut<'a> {
        let layer = |(i, (layer, &weights)): (usize, (&Layer, &&'a [f32]))| {
            (layer.pack(weights.into()), self.affine_of(i, affines))
        };
        LaidOut(self.layers.iter().zip(weights).enumerate().map(layer).collect())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Prepared {
    layers: Arc<[Layer]>,
    laid_out: LaidOut<'static>,
}

impl Prepared {
    /// Layers with their weights and their affines.
    pub(crate) fn new(layers: Vec<(Spec, Vec<f32>, Vec<f32>)>) -> Self {
        let layer = |(spec, weights, affines): (Spec, Vec<f32>, Vec<f32>)| {
            let layer = Layer::new(&spec);
            let packed = layer.pack(Cow::Owned(weights));
            let affine = layer.affine(&affines);
            (layer, (packed, affine))
        };
        let (layers, laid_out): (Vec<_>, _) = layers.into_iter().map(layer).unzip();
        Self { layers: layers.into(), laid_out: LaidOut(laid_out) }
    }

    /// The chain on `xs: [T, N, C, H, W]`, or `[N, C, H, W]` where it is constant, without gradient. With `at`, only these
    /// positions of each item's output, ascending, are computed; the others are zero. f32, CPU.
    pub(crate) fn run(
        &self,
        xs: &Tensor,
        constant: Option<usize>,
        end: End,
        at: Option<&[Vec<u32>]>,
    ) -> Result<Tensor> {
        let plan = Plan::new(xs, self.layers.clone(), constant, end.single())?;
        xs.detach().contiguous()?.apply_op1_no_bwd(&Run { plan, laid_out: &self.laid_out, at })
    }

    /// What the first layer makes of each of these vectors; none if that is too much to keep.
    pub(crate) fn tables(&self, vectors: &Vectors) -> Option<Tables> {
        let (layer, (packed, _)) = (self.layers.first()?, self.laid_out.0.first()?);
        Tables::new(layer, packed.weights(), vectors)
    }

    /// [`run`](Self::run) on a constant input of so many time steps that is looked up in these tables.
    pub(crate) fn run_on_tokens(
        &self,
        (tokens, tables): (&Tokens, &Tables),
        time_steps: usize,
        end: End,
        at: Option<&[Vec<u32>]>,
    ) -> Result<Tensor> {
        let plan = Plan::new(tokens.maps(), self.layers.clone(), Some(time_steps), end.single())?;
        let looked_up = LookedUp::new(tokens, tables);
        let ys = plan.run_through(Given::Tokens(&looked_up), &self.laid_out, at);
        Tensor::from_vec(ys, plan.output_shape(), tokens.maps().device())
    }
}

struct Run<'a> {
    plan: Plan,
    laid_out: &'a LaidOut<'static>,
    at: Option<&'a [Vec<u32>]>,
}

impl CustomOp1 for Run<'_> {
    fn name(&self) -> &'static str {
        "prepared_spiking_chain"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys =
            self.plan.run_through(Given::Values(operand::<f32>(storage, layout)?), self.laid_out, self.at);
        Ok((CpuStorage::F32(ys), self.plan.output_shape()))
    }
}
