//! How layers in a row are run: by the kernel where it can, by its twin elsewhere.

use candle_core::{Result, Tensor, bail};

use super::check::{Sizes, check};
use super::drive::{Drive, Finish};
use super::neurons::Neurons;
use super::norm::{Batch, BatchNorm};
use super::synapse::add_to_channels;
use crate::exchange;
use crate::ops::backend::Backend;
use crate::ops::chain::{self, BatchMoments, Chain, Scaling, Spec};
use crate::ops::norm_lif::{self, Sequence, map_lif};
use crate::time::{merge_time, split_time};
use crate::{LifConfig, Readout, SpikingLayer};

impl SpikingLayer {
    /// Turns spikes into spikes. With `train`, normalises by batch statistics and moves the running ones, unless it returns an
    /// error.
    ///
    /// # Shapes
    /// `xs: [T, N, C_in, H, W]` -> `[T, N, C_out, H', W']`; for linear layers `[T, N, C_in]` -> `[T, N, C_out]`.
    /// # Errors
    /// Returns an error if shapes or element types do not fit; with `train` and a norm, if a channel has a single value, or none,
    /// over time, items and map.
    pub fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        run(std::slice::from_ref(self), Drive::Spikes(xs), Finish::Spikes, train)
    }

    /// Runs the first layer behind direct encoding. Synapse and norm run once, not `T` times.
    ///
    /// # Shapes
    /// `x: [N, C_in, H, W]` -> `[T, N, C_out, H', W']`; for linear layers `[N, C_in]` -> `[T, N, C_out]`.
    /// # Errors
    /// Returns the errors of [`forward_t`](Self::forward_t), where with `train` the value of each time step counts, and an error if there
    /// are more time steps than memory.
    pub fn forward_constant(&self, x: &Tensor, time_steps: usize, train: bool) -> Result<Tensor> {
        run(std::slice::from_ref(self), Drive::Constant(x, time_steps), Finish::Spikes, train)
    }
}

/// What layers make of an input, and, in training, the statistics of each layer's batch, where its norm takes them.
pub(super) type Made = (Tensor, Vec<Option<Batch>>);

/// Runs layers in a row.
pub(crate) fn run(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Tensor> {
    settle(layers, make(layers, drive, finish, train)?)
}

/// [`run`] without a trace: running statistics stay as they are.
pub(super) fn make(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Made> {
    make_as(layers, &specs(layers, drive.map())?, drive, finish, train)
}

/// The same of layers with these [specs](flattening_specs), between which maps may be flattened.
pub(super) fn make_as(
    layers: &[SpikingLayer],
    specs: &[Spec],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Made> {
    check(layers, specs, Sizes::of(drive)?, finish, train)?;
    let on_gpu = Backend::of(drive.tensor()) == Backend::Cuda;
    // On a GPU layers of learned time constants, and linear ones on maps, are no chain with those before them.
    let kind = |layer: &SpikingLayer| (matches!(layer.neurons, Neurons::Lif(_)), layer.synapse.is_linear());
    let fused = |layer: &SpikingLayer| layer.neurons.lif().is_some();
    let joined = |a: &SpikingLayer, b: &SpikingLayer| fused(a) && fused(b) && (!on_gpu || kind(a) == kind(b));
    let (mut spikes, mut batches): (Option<Tensor>, _) = (None, Vec::new());
    let whole = matches!(finish, Finish::SumsOf(..));
    let mut parts = layers.chunk_by(|a, b| whole || joined(a, b)).peekable();
    while let Some(part) = parts.next() {
        let drive = spikes.as_ref().map_or(drive, Drive::Spikes);
        let flat = (on_gpu && part[0].synapse.is_linear()).then(|| drive.flattened()).transpose()?;
        let drive = flat.as_ref().map_or(drive, |flat| drive.with(flat));
        let finish = if parts.peek().is_some() { Finish::Spikes } else { finish };
        let make = if supported(part, drive)? { make_by_chain } else { make_by_reference };
        let (next, batch) = make(part, drive, finish, train)?;
        spikes = Some(next);
        batches.extend(batch);
    }
    match spikes {
        Some(spikes) => Ok((spikes, batches)),
        None => bail!("a stack of no layers"),
    }
}

/// Moves the running statistics of layers that have all run, and hands out what they made.
pub(super) fn settle(layers: &[SpikingLayer], (ys, batches): Made) -> Result<Tensor> {
    layers.iter().zip(&batches).try_for_each(|(layer, batch)| observe(layer, batch.as_ref()))?;
    Ok(ys)
}

/// Moves the running statistics of a layer towards those of its batch, where there are any. Of the shards of a batch that share
/// the layer, one does.
pub(super) fn observe(layer: &SpikingLayer, batch: Option<&Batch>) -> Result<()> {
    let leads = exchange::current().is_none_or(|exchange| exchange.leads());
    match (&layer.norm, batch) {
        (Some(norm), Some(batch)) if leads => norm.observe(batch, &layer.synapse.bias),
        _ => Ok(()),
    }
}

/// Whether there is a kernel for these layers on this input.
pub(crate) fn supported(layers: &[SpikingLayer], drive: Drive<'_>) -> Result<bool> {
    let (xs, steps) = (drive.tensor(), drive.time_steps()?);
    let fits = |layer: &SpikingLayer| match Backend::of(xs) {
        Backend::Cuda => {
            let flattens = layer.synapse.is_linear() && drive.map().len() > 1;
            matches!(layer.neurons, Neurons::Lif(_)) && norm_lif::has_kernel(xs, steps) && !flattens
        }
        _ => has_events(layer),
    };
    Ok(chain::supports(xs) && steps > 0 && layers.iter().all(fits))
}

/// Whether the spikes of such a layer can be events, which count channels in 16 bits.
pub(super) fn has_events(layer: &SpikingLayer) -> bool {
    layer.neurons.lif().is_some() && layer.synapse.weight.dims().iter().take(2).all(|&c| c <= 1 << 16)
}

/// The twin: every layer as a convolution, a norm and neurons.
pub(super) fn make_by_reference(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Made> {
    let (mut spikes, mut batches): (Option<Tensor>, _) = (None, Vec::new());
    let mut all = Vec::new();
    for layer in layers {
        let (next, batch) = spikes_of(layer, spikes.as_ref().map_or(drive, Drive::Spikes), train)?;
        if let Finish::SumsOf(readout, _) = finish {
            all.push(readout.apply(&next)?);
        }
        spikes = Some(next);
        batches.push(batch);
    }
    let Some(spikes) = spikes else { bail!("a stack of no layers") };
    let made = match finish {
        Finish::Spikes => spikes,
        Finish::Sums(readouts) => Readout::apply_all(readouts, &spikes)?,
        Finish::SumsOf(_, of) => {
            Tensor::cat(&of.iter().map(|&i| &all[i]).collect::<Vec<_>>(), 1)?.unsqueeze(0)?
        }
    };
    Ok((made, batches))
}

/// What a layer's neurons make of it and, in training, the statistics of what drives them, where the norm takes them.
fn spikes_of(layer: &SpikingLayer, drive: Drive<'_>, train: bool) -> Result<(Tensor, Option<Batch>)> {
    let steps = drive.time_steps()?;
    if let Neurons::Lif(lif) = layer.neurons
        && norm_lif::has_kernel(drive.tensor(), steps)
    {
        return fused(layer, drive, lif, train);
    }
    match drive {
        Drive::Spikes(xs) => {
            let (currents, batch) = currents(layer, &merge_time(xs)?, train, 1)?;
            Ok((layer.neurons.forward(&split_time(&currents, steps)?)?, batch))
        }
        Drive::Constant(x, _) => {
            let (currents, batch) = currents(layer, x, train, steps)?;
            Ok((layer.neurons.forward_constant(&currents, steps)?, batch))
        }
    }
}

/// The same of LIF neurons, which are one operation with the norm.
pub(super) fn fused(
    layer: &SpikingLayer,
    drive: Drive<'_>,
    lif: LifConfig,
    train: bool,
) -> Result<(Tensor, Option<Batch>)> {
    let (xs, constant) = match drive {
        Drive::Spikes(xs) => (merge_time(xs)?, false),
        Drive::Constant(x, _) => (x.clone(), true),
    };
    let (synapse, sequence) = (&layer.synapse, Sequence { lif, steps: drive.time_steps()?, constant });
    let currents = synapse.apply(&synapse.flattened(&xs)?, &synapse.weight)?;
    if let (Some(norm), true) = (&layer.norm, train) {
        let (spikes, batch) = norm.train_lif(&currents, &sequence)?;
        return Ok((spikes, Some(batch)));
    }
    let (scale, shift) = layer.affine(train)?;
    Ok((map_lif(&currents, [&scale, &shift], &sequence)?, None))
}

/// What drives a layer's neurons and, in training, the statistics of it, where the norm takes them.
pub(super) fn currents(
    layer: &SpikingLayer,
    xs: &Tensor,
    train: bool,
    copies: usize,
) -> Result<(Tensor, Option<Batch>)> {
    let (synapse, xs) = (&layer.synapse, &layer.synapse.flattened(xs)?);
    match &layer.norm {
        Some(norm) if train => {
            let (currents, batch) = norm.train(&synapse.apply(xs, &synapse.weight)?, copies)?;
            Ok((currents, Some(batch)))
        }
        Some(norm) => {
            let (scale, shift) = norm.folded(&synapse.bias)?;
            Ok((add_to_channels(&synapse.apply_scaled(xs, &scale)?, &shift)?, None))
        }
        None => Ok((add_to_channels(&synapse.apply(xs, &synapse.weight)?, &synapse.bias)?, None)),
    }
}

pub(super) fn make_by_chain(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Made> {
    let (xs, time_steps) = (drive.tensor(), drive.time_steps()?);
    let mut specs = flattening_specs(layers, drive.map())?;
    specs.iter().try_for_each(|spec| spec.geometry.room())?;
    let weights: Vec<_> = layers.iter().map(|layer| layer.synapse.weight.clone()).collect();
    let mut affines = Vec::with_capacity(2 * layers.len());
    for (layer, spec) in layers.iter().zip(&mut specs) {
        if train && layer.norm.is_some() {
            spec.scaling = Scaling::Batch { eps: BatchNorm::EPS };
        }
        affines.extend(layer.affines(train)?);
    }
    let constant = drive.constant();
    let end = finish.end(time_steps, layers.len())?;
    let chain = Chain { layers: &specs, constant, keep: train, end, exchange: exchange::current() };
    let (ys, statistics) = chain::run(xs, &weights, &Tensor::cat(&affines, 0)?, &chain)?;
    let batch = |(i, moments): (usize, Option<BatchMoments>)| {
        // Only the first layer's currents are constant in time.
        let copies = if i == 0 { constant.unwrap_or(1) } else { 1 };
        moments.map(|BatchMoments { mean, variance, count }| Batch { mean, variance, count: count * copies })
    };
    let batches = statistics.into_iter().enumerate().map(batch).collect();
    Ok((without_map(layers, ys)?, batches))
}

/// The output of a chain of these layers; a linear layer's has no map.
pub(super) fn without_map(layers: &[SpikingLayer], ys: Tensor) -> Result<Tensor> {
    let features = layers.last().is_some_and(|last| last.synapse.is_linear());
    if features { ys.flatten_from(ys.rank() - 3) } else { Ok(ys) }
}

/// The geometry of layers on an input of `[C, H, W]`, or `[C]` in front of linear ones.
pub(crate) fn specs(layers: &[SpikingLayer], dims: &[usize]) -> Result<Vec<Spec>> {
    let has_map = dims.len() == 3;
    if [1, 3].contains(&dims.len()) && layers.iter().any(|layer| layer.synapse.is_linear() == has_map) {
        bail!(
            "linear layers want [C] behind [T, N] (or [N] where constant), all others [C, H, W]: {dims:?}; a stack has layers of \
             one kind, and `flatten_from(2)` leads from one stack of maps to one of linear layers"
        )
    }
    flattening_specs(layers, dims)
}

/// The same where linear layers read maps flattened.
pub(super) fn flattening_specs(layers: &[SpikingLayer], dims: &[usize]) -> Result<Vec<Spec>> {
    if layers.is_empty() {
        bail!("a stack of no layers")
    }
    let mut map = match *dims {
        [c] => [c, 1, 1],
        [c, h, w] => [c, h, w],
        _ => {
            bail!(
                "a spiking layer wants [C, H, W] or [C] behind [T, N] (or [N] where constant), not {dims:?}"
            )
        }
    };
    let next = |layer: &SpikingLayer| {
        let mut flattened = 1;
        if layer.synapse.is_linear() {
            flattened = map[1].saturating_mul(map[2]);
            map = [map[0].saturating_mul(flattened), 1, 1];
        }
        let geometry = layer.synapse.geometry(map)?;
        map = geometry.output();
        // Layers with a model of the user's own have a geometry too, but never run in a chain.
        let (lif, learns) =
            (layer.neurons.lif().unwrap_or_default(), matches!(layer.neurons, Neurons::Plif(..)));
        Ok(Spec { geometry, lif, learns, scaling: Scaling::Fixed, flattened })
    };
    layers.iter().map(next).collect()
}
