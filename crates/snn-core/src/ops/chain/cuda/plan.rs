//! What a call of a chain does forward and backward, layer by layer.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use super::layers::{Layers, Link, Parameters};
use crate::exchange::Exchange;
use crate::ops::batch_norm::cuda::run::{Normalise, mean_and_variance};
use crate::ops::chain::spec::{BatchMoments, End, Scaling, Spec};
use crate::ops::norm_lif::Sequence;
use crate::ops::norm_lif::cuda::run::NormLif;
use crate::ops::time::{self, weighted_sums};

/// What the backward pass needs of a layer.
pub(super) struct Kept {
    /// `[M, C, H, W]`, or with channels last.
    input: Tensor,
    /// `[M, C, H, W]`, or with channels last `[M H W, C]`.
    currents: Tensor,
    op: NormLif,
}

impl Kept {
    pub(super) fn moments(&self, dtype: DType) -> Result<Option<BatchMoments>> {
        if self.op.fixed {
            return Ok(None);
        }
        let (mean, variance) = mean_and_variance(&self.op.norm.moments, dtype)?;
        Ok(Some(BatchMoments { mean, variance, count: self.op.norm.count }))
    }
}

pub(super) struct Plan {
    layers: Arc<Layers>,
    items: usize,
    steps: usize,
    /// Whether the input has no time axis.
    constant: bool,
    end: End,
    exchange: Option<Arc<dyn Exchange>>,
}

impl Plan {
    pub(super) fn new(
        xs: &Tensor,
        layers: Arc<Layers>,
        constant: Option<usize>,
        end: End,
        exchange: Option<Arc<dyn Exchange>>,
    ) -> Result<Self> {
        let (steps, items) = match constant {
            Some(steps) => (steps, xs.dim(0)?),
            None => (xs.dim(0)?, xs.dim(1)?),
        };
        Ok(Self { layers, items, steps, constant: constant.is_some(), end, exchange })
    }

    /// Whether the currents of a layer are the same at each time step.
    pub(super) fn stays(&self, layer: usize) -> bool {
        self.constant && layer == 0
    }

    /// The maps that go through a layer's convolution.
    pub(super) fn maps(&self, layer: usize) -> usize {
        if self.stays(layer) { self.items } else { self.steps * self.items }
    }

    /// The output, and with `keep` what the backward pass needs of each layer.
    pub(super) fn forward(
        &self,
        xs: &Tensor,
        parameters: &[Parameters],
        keep: bool,
    ) -> Result<(Tensor, Vec<Kept>)> {
        let Layers { links, last } = &*self.layers;
        let Some(first) = links.first() else { bail!("a chain of no layers") };
        let (c, (h, w)) = (first.spec.geometry.channels.0, first.spec.geometry.source);
        let mut input = self.layers.inward(&xs.reshape((self.maps(0), c, h, w))?)?;
        let (mut kept, mut ends) = (Vec::new(), Vec::new());
        for (i, (link, of)) in links.iter().zip(parameters).enumerate() {
            let currents = link.product.apply(&input, &of.kernel)?;
            let currents = if *last { currents.flatten_to(2)? } else { currents };
            let op = self.neurons(i, &currents, of)?;
            let spikes = currents.apply_op3_no_bwd(&of.weight, &of.bias, &op)?;
            if self.ends(i) {
                ends.push((i, self.finish(link, &spikes)?));
            }
            let (c, map) = (link.spec.geometry.channels.1, link.spec.geometry.target);
            let next = spikes.reshape(self.layers.inside(self.steps * self.items, c, map))?;
            let input = std::mem::replace(&mut input, next);
            if keep {
                kept.push(Kept { input, currents, op });
            }
        }
        Ok((self.join(ends)?, kept))
    }

    /// A layer's norm, or its fixed map, with its neurons.
    pub(super) fn neurons(&self, layer: usize, currents: &Tensor, of: &Parameters) -> Result<NormLif> {
        let Spec { scaling, lif, .. } = self.layers.links[layer].spec;
        let (norm, fixed) = match (&of.map, scaling) {
            (Some(map), _) => (map.clone(), true),
            (None, Scaling::Fixed) => (Normalise::by_map(&of.weight, &of.bias)?, true),
            (None, Scaling::Batch { eps }) => {
                (Normalise::of_batch(currents, &of.weight, &of.bias, eps, self.exchange.clone())?, false)
            }
        };
        let sequence = Sequence { lif, steps: self.steps, constant: self.stays(layer) };
        Ok(NormLif { norm, fixed, sequence })
    }

    /// Whether a layer's spikes are in the output.
    pub(super) fn ends(&self, layer: usize) -> bool {
        match &self.end {
            End::Spikes => layer + 1 == self.layers.links.len(),
            End::Sums { of, .. } => of.contains(&layer),
        }
    }

    /// The output's part of a layer with these spikes, `[T or rows, N, C, H, W]`.
    pub(super) fn finish(&self, link: &Link, spikes: &Tensor) -> Result<Tensor> {
        let ys = match &self.end {
            End::Spikes => spikes.clone(),
            End::Sums { weights, .. } => weighted_sums(spikes, weights.clone())?,
        };
        let ([c, h, w], rows) = (link.spec.geometry.output(), ys.dim(0)?);
        let ys = ys.reshape(self.layers.inside(rows * self.items, c, (h, w)))?;
        self.layers.outward(&ys)?.reshape((rows, self.items, c, h, w))
    }

    /// The parts side by side, in the order in which they are asked for.
    pub(super) fn join(&self, ends: Vec<(usize, Tensor)>) -> Result<Tensor> {
        match &self.end {
            End::Sums { of, .. } if of.len() > 1 => {
                let part = |layer: &usize| ends.iter().find(|(i, _)| i == layer).map(|(_, part)| part);
                Tensor::cat(&of.iter().filter_map(part).collect::<Vec<_>>(), 2)
            }
            _ => match ends.into_iter().next() {
                Some((_, part)) => Ok(part),
                None => bail!("a chain without an end"),
            },
        }
    }

    /// The gradient of a layer's spikes that comes straight from the output's, as spikes lie inside.
    pub(super) fn gradient_of_end(&self, layer: usize, grad: &Tensor) -> Result<Option<Tensor>> {
        if !self.ends(layer) {
            return Ok(None);
        }
        let [c, h, w] = self.layers.links[layer].spec.geometry.output();
        let channels = |layer: &usize| self.layers.links[*layer].spec.geometry.channels.1;
        let before = match &self.end {
            End::Spikes => 0,
            End::Sums { of, .. } => of.iter().take_while(|end| **end != layer).map(channels).sum(),
        };
        let (part, rows) = (grad.narrow(2, before, c)?, grad.dim(0)?);
        let part = self.layers.inward(&part.contiguous()?.reshape((rows * self.items, c, h, w))?)?;
        let part = part.reshape((rows, ()))?;
        match &self.end {
            End::Spikes => Ok(Some(part)),
            End::Sums { weights, .. } => weighted_sums(&part, time::transposed(weights)).map(Some),
        }
    }

    /// The gradients of the input and of all weights, where they are wanted, and of all affines.
    pub(super) fn backward(
        &self,
        mut kept: Vec<Kept>,
        parameters: &[Parameters],
        grad: &Tensor,
        (of_input, of_kernels): (bool, bool),
    ) -> Result<(Option<Tensor>, Option<Tensor>, Tensor)> {
        let (mut of_weights, mut of_affines, mut above) = (Vec::new(), Vec::new(), None);
        for (i, (link, of)) in self.layers.links.iter().zip(parameters).enumerate().rev() {
            let Some(Kept { input, currents, op }) = kept.pop() else {
                bail!("a layer of which nothing is kept")
            };
            let grad = match (self.gradient_of_end(i, grad)?, above.take()) {
                (Some(end), Some(above)) => (end.reshape(above.shape())? + above)?,
                (Some(grad), None) | (None, Some(grad)) => grad,
                (None, None) => bail!("a layer without a gradient"),
            };
            let shape = op.sequence.spikes(currents.dims())?;
            let (of_currents, affine) = op.gradients(&currents, &of.weight, &grad.reshape(shape)?, true)?;
            let Some(of_currents) = of_currents else { bail!("currents without a gradient") };
            let (c, map) = (link.spec.geometry.channels.1, link.spec.geometry.target);
            let of_currents = of_currents.reshape(self.layers.inside(self.maps(i), c, map))?;
            let (of_inputs, kernel) = link
                .product
                .gradients([&input, &of.kernel, &of_currents], (i > 0 || of_input, of_kernels))?;
            above = of_inputs;
            if let Some(kernel) = kernel {
                of_weights.push(self.layers.outward(&kernel)?.flatten_all()?);
            }
            of_affines.push(Tensor::cat(&affine, 0)?);
        }
        of_weights.reverse();
        of_affines.reverse();
        let input = above.map(|grad| self.layers.outward(&grad)).transpose()?;
        let weights = of_kernels.then(|| Tensor::cat(&of_weights, 0)).transpose()?;
        Ok((input, weights, Tensor::cat(&of_affines, 0)?))
    }
}
