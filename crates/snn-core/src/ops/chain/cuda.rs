//! The chain on a GPU: its layers one by one, by the kernels of their ops, as one operation of Candle's graph.
//!
//! What that saves: Candle's backward pass adds each gradient to a tensor of zeros, four passes over memory as large as the gradient; here a
//! layer's gradients go to the layer in front of it. And with cuDNN, in single precision, channels are the last axis between
//! layers, as its kernels for tensor cores want them: only what goes in and comes out is turned.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::spec::{BatchMoments, Chain, End, Scaling, Spec};
use crate::exchange::Exchange;
use crate::geometry;
use crate::ops::batch_norm::cuda::run::Normalise;
use crate::ops::conv::{Kind, Sizes, product};
use crate::ops::cuda::gpu::by_element;
use crate::ops::norm_lif::Sequence;
use crate::ops::norm_lif::cuda::run::NormLif;
use crate::ops::time::{self, weighted_sums};

/// [`run`](super::run) on a GPU.
pub(super) fn run(
    xs: &Tensor,
    weights: &[Tensor],
    affines: &Tensor,
    chain: &Chain<'_>,
) -> Result<(Tensor, Vec<Option<BatchMoments>>)> {
    let flat = weights.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
    let flat = Tensor::cat(&flat, 0)?;
    let layers = Arc::new(Layers::new(chain.layers, xs.dtype()));
    let parameters = layers.lay_out(&flat.detach(), &affines.detach())?;
    let plan = Plan::new(xs, layers, chain.constant, chain.end.clone(), chain.exchange.clone())?;
    let (ys, kept) = plan.forward(&xs.detach(), &parameters, chain.keep)?;
    let moments = kept.iter().map(|kept| kept.moments(xs.dtype())).collect::<Result<_>>()?;
    if [xs, &flat, affines].iter().any(|t| t.track_op()) {
        let op = ChainOp { plan, parameters, ys, kept: Mutex::new(chain.keep.then_some(kept)) };
        return Ok((xs.contiguous()?.apply_op3(&flat, affines, op)?, moments));
    }
    Ok((ys, moments))
}

/// A chain whose parameters do not change.
#[derive(Debug)]
pub(crate) struct Prepared {
    layers: Arc<Layers>,
    parameters: Vec<Parameters>,
}

impl Prepared {
    /// Layers with their weights and their affines, of fixed maps.
    pub(super) fn new(specs: &[Spec], weights: &[Tensor], affines: &[Tensor]) -> Result<Self> {
        let flat = weights.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
        let (flat, affines) = (Tensor::cat(&flat, 0)?, Tensor::cat(affines, 0)?);
        let layers = Arc::new(Layers::new(specs, flat.dtype()));
        let mut parameters = layers.lay_out(&flat, &affines)?;
        for Parameters { weight, bias, map, .. } in &mut parameters {
            *map = Some(Normalise::by_map(weight, bias)?);
        }
        Ok(Self { layers, parameters })
    }

    pub(super) fn run(&self, xs: &Tensor, constant: Option<usize>, end: End) -> Result<Tensor> {
        let plan = Plan::new(xs, self.layers.clone(), constant, end, None)?;
        Ok(plan.forward(&xs.detach(), &self.parameters, false)?.0)
    }
}

/// A layer: its convolution, and where its weights lie among those of all layers.
#[derive(Debug)]
struct Link {
    spec: Spec,
    g: Sizes,
    weights: usize,
}

impl Link {
    fn new(spec: Spec, weights: usize) -> Self {
        let (g, geometry::ConvConfig { stride, padding, .. }) = (spec.geometry, spec.geometry.conv);
        // Of a transposed convolution the output is the image and the input is the map.
        let ((c_in, (h, w)), (c_out, (oh, ow))) = match g.kind {
            geometry::Kind::Conv => ((g.channels.0, g.source), (g.channels.1, g.target)),
            geometry::Kind::Transposed => ((g.channels.1, g.target), (g.channels.0, g.source)),
        };
        let (kh, kw) = g.kernel;
        Self { spec, g: Sizes { c_in, h, w, c_out, oh, ow, kh, kw, stride, padding }, weights }
    }

    /// Its products: forward, and back to its input.
    fn kinds(&self) -> [Kind; 2] {
        match self.spec.geometry.kind {
            geometry::Kind::Conv => [Kind::Correlate, Kind::ImageGradient],
            geometry::Kind::Transposed => [Kind::ImageGradient, Kind::Correlate],
        }
    }

    fn kernel(&self) -> [usize; 4] {
        [self.g.c_out, self.g.c_in, self.g.kh, self.g.kw]
    }
}

/// A layer's parameters as its kernels want them.
#[derive(Clone, Debug)]
struct Parameters {
    kernel: Tensor,
    weight: Tensor,
    bias: Tensor,
    /// The fixed map that these are, where it is made already.
    map: Option<Normalise>,
}

/// The layers of a chain, whatever their input.
#[derive(Debug)]
struct Layers {
    links: Vec<Link>,
    /// Whether channels are the last axis inside.
    last: bool,
}

impl Layers {
    fn new(specs: &[Spec], dtype: DType) -> Self {
        let mut weights = 0;
        let link = |spec: &Spec| {
            let link = Link::new(*spec, weights);
            weights += link.kernel().iter().product::<usize>();
            link
        };
        let links = specs.iter().map(link).collect();
        Self { links, last: cfg!(feature = "cudnn") && dtype == DType::F32 }
    }

    /// `[M, C, H, W]` as it lies inside.
    fn inward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.last { xs.permute((0, 2, 3, 1))?.contiguous() } else { xs.contiguous() }
    }

    /// What lies inside as `[M, C, H, W]`.
    fn outward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.last { xs.permute((0, 3, 1, 2))?.contiguous() } else { Ok(xs.clone()) }
    }

    /// The shape inside of so many maps.
    fn inside(&self, maps: usize, c: usize, (h, w): (usize, usize)) -> (usize, usize, usize, usize) {
        if self.last { (maps, h, w, c) } else { (maps, c, h, w) }
    }

    /// The parameters of each layer, of the weights of all of them and of their affines.
    fn lay_out(&self, weights: &Tensor, affines: &Tensor) -> Result<Vec<Parameters>> {
        let mut from = 0;
        let of_layer = |link: &Link| {
            let (kernel, c) = (link.kernel(), link.spec.geometry.channels.1);
            let kernel = weights.narrow(0, link.weights, kernel.iter().product())?.reshape(&kernel[..])?;
            let (weight, bias) = (affines.narrow(0, from, c)?, affines.narrow(0, from + c, c)?);
            from += 2 * c;
            Ok(Parameters { kernel: self.inward(&kernel)?, weight, bias, map: None })
        };
        self.links.iter().map(of_layer).collect()
    }
}

/// What the backward pass needs of a layer.
struct Kept {
    /// `[M, C, H, W]`, or with channels last.
    input: Tensor,
    /// `[M, C, H, W]`, or with channels last `[M H W, C]`.
    currents: Tensor,
    op: NormLif,
}

impl Kept {
    fn moments(&self, dtype: DType) -> Result<Option<BatchMoments>> {
        if self.op.fixed {
            return Ok(None);
        }
        let of = |i| self.op.norm.moments.get(i)?.to_dtype(dtype);
        Ok(Some(BatchMoments { mean: of(0)?, variance: of(1)?, count: self.op.norm.count }))
    }
}

struct Plan {
    layers: Arc<Layers>,
    items: usize,
    steps: usize,
    /// Whether the input has no time axis.
    constant: bool,
    end: End,
    exchange: Option<Arc<dyn Exchange>>,
}

impl Plan {
    fn new(
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
    fn stays(&self, layer: usize) -> bool {
        self.constant && layer == 0
    }

    /// The maps that go through a layer's convolution.
    fn maps(&self, layer: usize) -> usize {
        if self.stays(layer) { self.items } else { self.steps * self.items }
    }

    /// The output, and with `keep` what the backward pass needs of each layer.
    fn forward(&self, xs: &Tensor, parameters: &[Parameters], keep: bool) -> Result<(Tensor, Vec<Kept>)> {
        let Layers { links, last } = &*self.layers;
        let Some(first) = links.first() else { bail!("a chain of no layers") };
        let (c, (h, w)) = (first.spec.geometry.channels.0, first.spec.geometry.source);
        let mut input = self.layers.inward(&xs.reshape((self.maps(0), c, h, w))?)?;
        let (mut kept, mut ends) = (Vec::new(), Vec::new());
        for (i, (link, of)) in links.iter().zip(parameters).enumerate() {
            let currents = product(link.kinds()[0], link.g, *last, &input, &of.kernel)?;
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
    fn neurons(&self, layer: usize, currents: &Tensor, of: &Parameters) -> Result<NormLif> {
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
    fn ends(&self, layer: usize) -> bool {
        match &self.end {
            End::Spikes => layer + 1 == self.layers.links.len(),
            End::Sums { of, .. } => of.contains(&layer),
        }
    }

    /// The output's part of a layer with these spikes, `[T or rows, N, C, H, W]`.
    fn finish(&self, link: &Link, spikes: &Tensor) -> Result<Tensor> {
        let ys = match &self.end {
            End::Spikes => spikes.clone(),
            End::Sums { weights, .. } => weighted_sums(spikes, weights.clone())?,
        };
        let ([c, h, w], rows) = (link.spec.geometry.output(), ys.dim(0)?);
        let ys = ys.reshape(self.layers.inside(rows * self.items, c, (h, w)))?;
        self.layers.outward(&ys)?.reshape((rows, self.items, c, h, w))
    }

    /// The parts side by side, in the order in which they are asked for.
    fn join(&self, ends: Vec<(usize, Tensor)>) -> Result<Tensor> {
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
    fn gradient_of_end(&self, layer: usize, grad: &Tensor) -> Result<Option<Tensor>> {
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

    /// The gradients of the input, where it is wanted, of all weights and of all affines.
    fn backward(
        &self,
        mut kept: Vec<Kept>,
        parameters: &[Parameters],
        grad: &Tensor,
        of_input: bool,
    ) -> Result<(Option<Tensor>, [Tensor; 2])> {
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
            let (image, map) = match link.spec.geometry.kind {
                geometry::Kind::Conv => (&input, &of_currents),
                geometry::Kind::Transposed => (&of_currents, &input),
            };
            let kernel = product(Kind::KernelGradient, link.g, self.layers.last, image, map)?;
            of_weights.push(self.layers.outward(&kernel)?.flatten_all()?);
            of_affines.push(Tensor::cat(&affine, 0)?);
            if i > 0 || of_input {
                above = Some(product(link.kinds()[1], link.g, self.layers.last, &of_currents, &of.kernel)?);
            }
        }
        of_weights.reverse();
        of_affines.reverse();
        let input = above.map(|grad| self.layers.outward(&grad)).transpose()?;
        Ok((input, [Tensor::cat(&of_weights, 0)?, Tensor::cat(&of_affines, 0)?]))
    }
}

/// `(xs, weights, affines) -> ys`, which are made already.
struct ChainOp {
    plan: Plan,
    parameters: Vec<Parameters>,
    ys: Tensor,
    kept: Mutex<Option<Vec<Kept>>>,
}

impl CustomOp3 for ChainOp {
    fn name(&self) -> &'static str {
        "spiking_chain"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("spiking_chain: this one is the GPU's")
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.ys.storage_and_layout();
        let Storage::Cuda(ys) = &*storage else { bail!("spiking_chain: its output is not on the GPU") };
        let copy = by_element!(ys, self.name(), F => time::cuda::run::copy::<F>(ys, layout)?);
        Ok((copy, layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        _weights: &Tensor,
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
        let (input, [weights, affines]) = plan.backward(kept, parameters, &grad.detach(), xs.track_op())?;
        let input = input.map(|grad| grad.reshape(xs.shape())).transpose()?;
        Ok((input, Some(weights), Some(affines)))
    }
}
