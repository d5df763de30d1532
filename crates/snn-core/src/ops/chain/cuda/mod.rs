//! The chain on a GPU: its layers one by one, by the kernels of their ops, as one operation of Candle's graph.
//!
//! What that saves: Candle's backward pass adds each gradient to a tensor of zeros, four passes over memory as large as the gradient; here a
//! layer's gradients go to the layer in front of it. And with cuDNN, in single precision, channels are the last axis between
//! layers, as its kernels for tensor cores want them: only what goes in and comes out is turned.

mod layers;
mod plan;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CudaStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::spec::{BatchMoments, Chain, End, Spec};
use crate::ops::batch_norm::cuda::run::{Normalise, on_gpu};
use crate::ops::cuda::apply::no_cpu_fwd3;
use crate::ops::cuda::gpu::by_element;
use crate::ops::time;
use layers::{Layers, Parameters};
use plan::{Kept, Plan};

/// [`run`](super::run) on a GPU.
pub(in crate::ops::chain) fn run(
    xs: &Tensor,
    weights: &[Tensor],
    affines: &Tensor,
    chain: &Chain<'_>,
) -> Result<(Tensor, Vec<Option<BatchMoments>>)> {
    let flat = joined(weights)?;
    let layers = Arc::new(Layers::new(chain.layers, xs.dtype(), flat.elem_count())?);
    let parameters = layers.lay_out(&flat.detach(), &affines.detach())?;
    let plan = Plan::new(xs, layers, chain.constant, chain.end.clone(), chain.exchange.clone())?;
    let (ys, kept) = plan.forward(&xs.detach(), &parameters, chain.keep)?;
    let moments = kept.iter().map(|kept| kept.moments(xs.dtype())).collect::<Result<_>>()?;
    if [xs, &flat, affines].iter().any(|t| t.track_op()) {
        let kept = Mutex::new(chain.keep.then_some(kept));
        let op = ChainOp { plan, parameters, ys: Mutex::new(Some(ys)), kept };
        return Ok((xs.contiguous()?.apply_op3(&flat, affines, op)?, moments));
    }
    Ok((ys, moments))
}

/// All numbers of these tensors in a row.
fn joined(tensors: &[Tensor]) -> Result<Tensor> {
    Tensor::cat(&tensors.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?, 0)
}

/// A chain whose parameters do not change.
#[derive(Debug)]
pub(crate) struct Prepared {
    layers: Arc<Layers>,
    parameters: Vec<Parameters>,
}

impl Prepared {
    /// Layers with their weights and their affines, of fixed maps.
    pub(in crate::ops::chain) fn new(specs: &[Spec], weights: &[Tensor], affines: &[Tensor]) -> Result<Self> {
        let (flat, affines) = (joined(weights)?, joined(affines)?);
        let layers = Arc::new(Layers::new(specs, flat.dtype(), flat.elem_count())?);
        let mut parameters = layers.lay_out(&flat, &affines)?;
        for Parameters { weight, bias, map, .. } in &mut parameters {
            *map = Some(Normalise::by_map(weight, bias)?);
        }
        Ok(Self { layers, parameters })
    }

    pub(in crate::ops::chain) fn run(
        &self,
        xs: &Tensor,
        constant: Option<usize>,
        end: End,
    ) -> Result<Tensor> {
        let plan = Plan::new(xs, self.layers.clone(), constant, end, None)?;
        Ok(plan.forward(&xs.detach(), &self.parameters, false)?.0)
    }
}

/// `(xs, weights, affines) -> ys`, which are made already.
struct ChainOp {
    plan: Plan,
    parameters: Vec<Parameters>,
    /// Until they are handed out.
    ys: Mutex<Option<Tensor>>,
    kept: Mutex<Option<Vec<Kept>>>,
}

impl CustomOp3 for ChainOp {
    fn name(&self) -> &'static str {
        "spiking_chain"
    }

    no_cpu_fwd3!();

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let ys = self.ys.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ys) = ys else { bail!("spiking_chain: its output was handed out before") };
        let copy = on_gpu(&ys, |values, layout| {
            Ok(by_element!(values, self.name(), F => time::cuda::run::copy::<F>(values, layout)?))
        })?;
        Ok((copy, ys.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weights: &Tensor,
        _affines: &Tensor,
        _ys: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Self { plan, parameters, .. } = self;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Evaluation keeps nothing, and a second backward pass finds nothing: each pays with another forward pass.
        let kept = match kept {
            Some(kept) => kept,
            None => plan.forward(&xs.detach(), parameters, true)?.1,
        };
        let wanted = (xs.track_op(), weights.track_op());
        let (input, weights, affines) = plan.backward(kept, parameters, &grad.detach(), wanted)?;
        let input = input.map(|grad| grad.reshape(xs.shape())).transpose()?;
        Ok((input, weights, Some(affines)))
    }
}
