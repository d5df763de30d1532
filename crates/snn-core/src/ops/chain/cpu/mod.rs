//! The chain on the CPU: what a call plans, keeps for its backward pass, and runs.

mod adjoint;
mod backward;
mod bundle;
mod dense;
#[cfg(target_arch = "x86_64")]
mod direct;
mod events;
mod forward;
mod gradient;
mod layer;
mod linear;
mod lookup;
mod memory;
mod neuron;
mod norm;
mod prepared;
mod scratch;
mod shards;
mod sparse;
#[cfg(test)]
mod tests;
mod winograd;

use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};

use super::spec::{BatchMoments, Chain, End, Scaling, Statistics};
use crate::exchange::Exchange;
use crate::ops::batch_norm::check_count;
use crate::ops::{on_workers, operand};
use bundle::Bundle;
use forward::{Given, Kept};
use layer::Layer;
pub(crate) use lookup::{Tables, Tokens, Vectors};
use neuron::Affine;
pub(crate) use prepared::Prepared;

/// What a chain is, once the shape of its input is known.
#[derive(Debug)]
struct Plan {
    layers: Arc<[Layer]>,
    items: usize,
    time_steps: usize,
    /// Whether the input has no time axis.
    constant: bool,
    end: End<f32>,
    /// Where each layer's neurons begin in the output of an item, if they are in it.
    places: Vec<Option<usize>>,
    /// See [`Chain::exchange`].
    exchange: Option<Arc<dyn Exchange>>,
}

impl Plan {
    fn new(xs: &Tensor, layers: Arc<[Layer]>, constant: Option<usize>, end: End<f32>) -> Result<Self> {
        let (time_steps, items) = match constant {
            Some(time_steps) => (time_steps, xs.dim(0)?),
            None => (xs.dim(0)?, xs.dim(1)?),
        };
        if layers.is_empty() {
            bail!("a chain of no layers")
        }
        if let End::Sums { weights, .. } = &end
            && let Some(row) = weights.iter().find(|row| row.len() != time_steps)
        {
            bail!("a sum of {time_steps} time steps with {} weights", row.len())
        }
        let ends = match &end {
            End::Spikes => &[layers.len() - 1][..],
            End::Sums { of, .. } => of,
        };
        let (mut places, mut start) = (vec![None; layers.len()], 0);
        for &layer in ends {
            places[layer] = Some(start);
            start += layers[layer].neurons();
        }
        let constant = constant.is_some();
        let plan = Self { layers, items, time_steps, constant, end, places, exchange: None };
        let mut by_batch = plan.layers.iter().filter(|layer| layer.scaling != Scaling::Fixed);
        by_batch.try_for_each(|layer| plan.check_batch(layer))?;
        Ok(plan)
    }

    /// Whether a layer has enough currents a channel for batch statistics, copies in time counted.
    fn check_batch(&self, layer: &Layer) -> Result<()> {
        let ((h, w), batch) = (layer.target, self.time_steps * self.items);
        check_count(batch * h * w, &[batch, layer.channels.1, h, w])
    }

    /// Whether each layer has its weights.
    fn check_weights(&self, weights: &[Tensor]) -> Result<()> {
        let counts = self.layers.iter().map(Layer::weight_count);
        if counts.eq(weights.iter().map(Tensor::elem_count)) {
            return Ok(());
        }
        let shapes: Vec<_> = weights.iter().map(Tensor::dims).collect();
        bail!("a chain of {} layers with weights of {shapes:?}", self.layers.len())
    }

    /// Where a layer's part of the affines lies.
    fn affine_range(&self, layer: usize) -> Range<usize> {
        let before: usize = self.layers[..layer].iter().map(Layer::affine_count).sum();
        before..before + self.layers[layer].affine_count()
    }

    fn affine_of(&self, layer: usize, affines: &[f32]) -> Affine {
        self.layers[layer].affine(&affines[self.affine_range(layer)])
    }

    /// Length of the output's first axis.
    fn output_steps(&self) -> usize {
        match &self.end {
            End::Spikes => self.time_steps,
            End::Sums { weights, .. } => weights.len(),
        }
    }

    /// The layers that the output is made of, each with the place where its neurons begin.
    fn ends(&self) -> impl Iterator<Item = (usize, usize)> {
        self.places.iter().enumerate().filter_map(|(layer, place)| Some((layer, (*place)?)))
    }

    /// Length of a row of the output: all neurons that are in it.
    fn output_size(&self) -> usize {
        self.ends().map(|(end, _)| self.layers[end].neurons()).sum()
    }

    /// [`on_workers`], but for the passes of shards, which wait for each other.
    fn on_workers<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if self.exchange.is_some() { work() } else { on_workers(&Device::Cpu, work) }
    }

    fn output_shape(&self) -> Shape {
        let (h, w) = self.layers[self.layers.len() - 1].target;
        let channels: usize = self.ends().map(|(end, _)| self.layers[end].channels.1).sum();
        (self.output_steps(), self.items, channels, h, w).into()
    }
}

/// [`run`](super::run) in f32.
pub(crate) fn run(
    xs: &Tensor,
    weights: &[Tensor],
    affines: &Tensor,
    chain: &Chain<'_>,
) -> Result<(Tensor, Vec<Option<BatchMoments>>)> {
    let layers = chain.layers.iter().map(Layer::new).collect();
    let plan = Plan::new(xs, layers, chain.constant, chain.end.clone().single())?;
    let plan = Plan { exchange: chain.exchange.clone(), ..plan };
    let shape = plan.output_shape();
    let weights = weights.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    plan.check_weights(&weights)?;
    let (token, bundle) = Bundle::new(&weights)?;
    let state = State { plan, shape, weights, bundle, keep: chain.keep, kept: Mutex::new(None) };
    let op = ChainOp(Arc::new(state));
    let state = op.0.clone();
    let ys = xs.contiguous()?.apply_op3(&token, &affines.contiguous()?, op)?;
    let kept = state.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let tensor = |values: &[f64]| Tensor::new(values, xs.device())?.to_dtype(xs.dtype());
    let moments = |Statistics { count, mean, variance }: &Statistics| {
        Ok(BatchMoments { mean: tensor(mean)?, variance: tensor(variance)?, count: *count as usize })
    };
    let statistics = kept.iter().flatten().map(|kept| kept.statistics.as_ref().map(moments).transpose());
    let statistics = statistics.collect::<Result<_>>()?;
    drop(kept);
    Ok((ys, statistics))
}

/// Shared by the forward and the backward pass of one call.
#[derive(Debug)]
struct State {
    plan: Plan,
    shape: Shape,
    /// Of each layer, as they are; the operation's second argument stands for them.
    weights: Vec<Tensor>,
    bundle: Bundle,
    keep: bool,
    kept: Mutex<Option<Vec<Kept>>>,
}

struct ChainOp(Arc<State>);

impl CustomOp3 for ChainOp {
    fn name(&self) -> &'static str {
        "spiking_chain"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        _: &CpuStorage,
        _: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let State { plan, shape, weights, keep, kept, .. } = &*self.0;
        let (xs, affines) = (operand::<f32>(s1, l1)?, operand::<f32>(s3, l3)?);
        let guards: Vec<_> = weights.iter().map(Tensor::storage_and_layout).collect();
        let weights = guards.iter().map(slice).collect::<Result<Vec<_>>>()?;
        let ys = if *keep {
            let (ys, all) = plan.on_workers(|| plan.run_keeping(xs, &weights, affines))?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(all);
            ys
        } else {
            plan.run_through(Given::Values(xs), &plan.lay_out(&weights, affines), None)
        };
        Ok((CpuStorage::F32(ys), shape.clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        token: &Tensor,
        affines: &Tensor,
        _ys: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let State { plan, weights, bundle, kept, .. } = &*self.0;
        let (values, grad) = ([xs.contiguous()?, affines.contiguous()?], grad.contiguous()?);
        let guards = values.each_ref().map(Tensor::storage_and_layout);
        let [inputs, affine_values] = [slice(&guards[0])?, slice(&guards[1])?];
        let weight_guards: Vec<_> = weights.iter().map(Tensor::storage_and_layout).collect();
        let weight_values = weight_guards.iter().map(slice).collect::<Result<Vec<_>>>()?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Evaluation keeps nothing: whoever wants gradients there pays with another forward pass.
        let kept = match &mut *kept {
            Some(kept) => kept,
            none => none.insert(plan.run_keeping(inputs, &weight_values, affine_values)?.1),
        };
        let grad_guard = grad.storage_and_layout();
        let arguments = (&*weight_values, affine_values);
        let (grad, of_input) = (slice(&grad_guard)?, xs.track_op());
        let gradients = plan.on_workers(|| plan.gradients(kept, arguments, grad, of_input))?;
        let like = |values: Vec<f32>, t: &Tensor| Tensor::from_vec(values, t.shape(), t.device());
        let input = gradients.input.map(|values| like(values, xs)).transpose()?;
        let of_weights = gradients.weights.into_iter().zip(weights).map(|(values, t)| like(values, t));
        // Nothing comes for a ticket that nobody holds.
        let token = match token.track_op() {
            true => Some(bundle.gradient(of_weights.collect::<Result<_>>()?)?),
            false => None,
        };
        Ok((input, token, Some(like(gradients.affines, affines)?)))
    }
}

/// The elements of a contiguous f32 tensor on the CPU.
fn slice<'a, S: Deref<Target = Storage>>((storage, layout): &'a (S, &Layout)) -> Result<&'a [f32]> {
    match &**storage {
        Storage::Cpu(storage) => operand(storage, layout),
        _ => bail!("spiking_chain: operands must be on the CPU"),
    }
}
