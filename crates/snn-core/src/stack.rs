//! Spiking layers in a row, as one operation where there is a kernel for it.

use candle_core::{Result, Tensor, bail};

use crate::ops::chain::{self, Chain, End, Norm, Spec, Statistics};
use crate::synapse::{Map, add_to_channels};
use crate::time::{merge_time, split_time};
use crate::{Connections, Readout, SpikingLayer, lif, lif_constant};

/// What drives the first layer.
#[derive(Clone, Copy, Debug)]
pub enum Drive<'a> {
    /// Spikes, or any values, `[T, N, C, H, W]`.
    Spikes(&'a Tensor),
    /// The same values at each of so many time steps, `[N, C, H, W]` (direct encoding).
    Constant(&'a Tensor, usize),
}

/// What comes out behind the last layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finish<'a> {
    Spikes,
    /// `[readouts, N, C, H, W]`
    Sums(&'a [Readout]),
}

/// Spiking layers one after the other, from spikes (or a constant current) to spikes (or their sum over time).
///
/// Equal to calling the layers one by one, and faster: on the CPU in f32 the stack is one operation, between whose layers
/// spikes are lists of events and never tensors (see `docs/performance.md`). Elsewhere it *is* the layers one by one.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack};
/// # fn main() -> candle_core::Result<()> {
/// let (store, lif) = (ParamStore::new(Seed(0), DType::F32, &Device::Cpu), LifConfig::default());
/// let (halve, vb) = (ConvConfig::new(3, 2, 1), store.builder());
/// let stack = SpikingStack::new(vec![
///     SpikingLayer::conv(1, 8, halve, lif, vb.pp(0))?,
///     SpikingLayer::conv(8, 16, halve, lif, vb.pp(1))?,
/// ]);
/// let images = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(stack.forward(Drive::Constant(&images, 4), true)?.dims(), [4, 2, 16, 7, 7]);
/// assert_eq!(stack.readout(Drive::Constant(&images, 4), Readout::Mean, false)?.dims(), [2, 16, 7, 7]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SpikingStack {
    layers: Vec<SpikingLayer>,
}

impl SpikingStack {
    /// Layers in the order in which spikes pass through them: maps (convolutions) or features (linear layers), not both.
    /// From the one to the other it takes two stacks, and `flatten_from(2)` between them.
    pub fn new(layers: Vec<SpikingLayer>) -> Self {
        Self { layers }
    }

    /// Its layers.
    pub fn layers(&self) -> &[SpikingLayer] {
        &self.layers
    }

    /// The last layer's spikes, `[T, N, C, H, W]`. With `train`, normalises by batch statistics and moves the running
    /// ones.
    ///
    /// # Errors
    /// Shapes that do not fit, no layers.
    pub fn forward(&self, drive: Drive<'_>, train: bool) -> Result<Tensor> {
        run(&self.layers, drive, Finish::Spikes, train)
    }

    /// The sum of the last layer's spikes over time, `[N, C, H, W]`; the spikes themselves are never stored.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn readout(&self, drive: Drive<'_>, readout: Readout, train: bool) -> Result<Tensor> {
        self.readouts(drive, &[readout], train)?.squeeze(0)
    }

    /// Several such sums of the same spikes, `[readouts, N, C, H, W]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), no read-outs.
    pub fn readouts(&self, drive: Drive<'_>, readouts: &[Readout], train: bool) -> Result<Tensor> {
        run(&self.layers, drive, Finish::Sums(readouts), train)
    }

    /// [`forward`](Self::forward), layer by layer, with a look at the number (from 0) and the spikes of each.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and the observer's own.
    pub fn forward_observed(
        &self,
        drive: Drive<'_>,
        train: bool,
        observe: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut spikes: Option<Tensor> = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let drive = spikes.as_ref().map_or(drive, Drive::Spikes);
            let next = run(std::slice::from_ref(layer), drive, Finish::Spikes, train)?;
            observe(i, &next)?;
            spikes = Some(next);
        }
        match spikes {
            Some(spikes) => Ok(spikes),
            None => bail!("a stack of no layers"),
        }
    }

    /// The connections of each layer, the first on a map of `source`: channels, rows, columns.
    ///
    /// # Errors
    /// Maps that do not fit.
    pub fn connections(&self, mut source: [usize; 3]) -> Result<Vec<Connections>> {
        let next = |layer: &SpikingLayer| {
            let connections = layer.connections(source)?;
            source = connections.target();
            Ok(connections)
        };
        self.layers.iter().map(next).collect()
    }
}

impl Finish<'_> {
    pub(crate) fn end(self, time_steps: usize) -> Result<End> {
        match self {
            Self::Spikes => Ok(End::Spikes),
            Self::Sums([]) => bail!("no read-outs"),
            Self::Sums(readouts) => {
                let row = |r: &Readout| r.weights(time_steps).iter().map(|&w| w as f32).collect();
                Ok(End::Sums(readouts.iter().map(row).collect()))
            }
        }
    }
}

impl Drive<'_> {
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Self::Spikes(xs) | Self::Constant(xs, _) => xs,
        }
    }

    /// `[C, H, W]`, or `[C]` in front of linear layers.
    pub(crate) fn map(&self) -> &[usize] {
        let dims = self.tensor().dims();
        &dims[self.batch_axes().min(dims.len())..]
    }

    /// The output of a chain; a linear layer's has no map.
    pub(crate) fn without_map(&self, ys: Tensor) -> Result<Tensor> {
        if self.map().len() == 1 { ys.flatten_from(ys.rank() - 3) } else { Ok(ys) }
    }

    pub(crate) fn time_steps(&self) -> Result<usize> {
        match self {
            Self::Spikes(xs) => xs.dim(0),
            Self::Constant(_, time_steps) => Ok(*time_steps),
        }
    }

    /// The time steps of a constant.
    pub(crate) fn constant(&self) -> Option<usize> {
        match self {
            Self::Spikes(_) => None,
            Self::Constant(_, time_steps) => Some(*time_steps),
        }
    }

    pub(crate) fn items(&self) -> Result<usize> {
        self.tensor().dim(self.batch_axes() - 1)
    }

    /// Axes in front of the channels.
    fn batch_axes(&self) -> usize {
        match self {
            Self::Spikes(_) => 2,
            Self::Constant(..) => 1,
        }
    }
}

/// Whether there is a kernel for these layers on this input.
pub(crate) fn supported(layers: &[SpikingLayer], drive: Drive<'_>) -> Result<bool> {
    // Events count channels in 16 bits.
    let countable = |layer: &SpikingLayer| layer.synapse.weight.dims().iter().take(2).all(|&c| c <= 1 << 16);
    Ok(chain::supports(drive.tensor()) && drive.time_steps()? > 0 && layers.iter().all(countable))
}

/// Runs layers in a row: by the kernel where it can, by the twin elsewhere.
pub(crate) fn run(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Tensor> {
    if supported(layers, drive)? {
        run_chain(layers, drive, finish, train)
    } else {
        run_reference(layers, drive, finish, train)
    }
}

/// The twin: every layer as a convolution, a batch norm and LIF neurons.
pub(crate) fn run_reference(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Tensor> {
    let mut spikes: Option<Tensor> = None;
    for layer in layers {
        spikes = Some(match spikes.as_ref().map_or(drive, Drive::Spikes) {
            Drive::Spikes(xs) => {
                let currents = currents(layer, &merge_time(xs)?, train, 1)?;
                lif(&split_time(&currents, xs.dim(0)?)?, &layer.lif)?
            }
            Drive::Constant(x, time_steps) => {
                lif_constant(&currents(layer, x, train, time_steps)?, time_steps, &layer.lif)?
            }
        });
    }
    let Some(spikes) = spikes else { bail!("a stack of no layers") };
    match finish {
        Finish::Spikes => Ok(spikes),
        Finish::Sums(readouts) => Readout::apply_all(readouts, &spikes),
    }
}

fn currents(layer: &SpikingLayer, xs: &Tensor, train: bool, copies: usize) -> Result<Tensor> {
    let synapse = &layer.synapse;
    if train {
        return layer.norm.train(&synapse.apply(xs, &synapse.weight)?, &synapse.bias, copies);
    }
    let (scale, shift) = layer.norm.folded(&synapse.bias)?;
    add_to_channels(&synapse.apply_scaled(xs, &scale)?, &shift)
}

fn run_chain(layers: &[SpikingLayer], drive: Drive<'_>, finish: Finish<'_>, train: bool) -> Result<Tensor> {
    let (xs, time_steps) = (drive.tensor(), drive.time_steps()?);
    let specs = specs(layers, drive.map())?;
    let weights = layers.iter().map(|l| l.synapse.weight.flatten_all()).collect::<Result<Vec<_>>>()?;
    let norm = if train { Norm::Batch { eps: crate::norm::BatchNorm::EPS } } else { Norm::Fixed };
    let mut affines = Vec::with_capacity(2 * layers.len());
    for layer in layers {
        let (scale, shift) = match norm {
            Norm::Batch { .. } => (layer.norm.weight.clone(), layer.norm.bias.clone()),
            Norm::Fixed => layer.norm.folded(&layer.synapse.bias)?,
        };
        affines.extend([scale, shift]);
    }
    let constant = drive.constant();
    let chain = Chain { layers: &specs, constant, norm, end: finish.end(time_steps)? };
    let (ys, statistics) = chain::run(xs, &cat(&weights)?, &cat(&affines)?, &chain)?;
    for (i, (layer, statistics)) in layers.iter().zip(&statistics).enumerate() {
        // Only the first layer's currents are constant in time.
        let copies = if i == 0 { constant.unwrap_or(1) } else { 1 };
        observe(layer, statistics, copies, xs)?;
    }
    drive.without_map(ys)
}

fn cat(parts: &[Tensor]) -> Result<Tensor> {
    match parts {
        [one] => Ok(one.clone()),
        _ => Tensor::cat(parts, 0),
    }
}

fn observe(layer: &SpikingLayer, statistics: &Statistics, copies: usize, like: &Tensor) -> Result<()> {
    let tensor = |values: &[f64]| Tensor::new(values, like.device())?.to_dtype(like.dtype());
    let n = statistics.count as usize * copies;
    let (mean, variance) = (tensor(&statistics.mean)?, tensor(&statistics.variance)?);
    layer.norm.observe(&mean, &variance, &layer.synapse.bias, n)
}

/// The geometry of layers on an input of `[C, H, W]`, or `[C]` in front of linear ones.
pub(crate) fn specs(layers: &[SpikingLayer], dims: &[usize]) -> Result<Vec<Spec>> {
    let mut map = match *dims {
        [c] => [c, 1, 1],
        [c, h, w] => [c, h, w],
        _ => {
            bail!(
                "a spiking layer wants [C, H, W] or [C] behind [T, N] (or [N] where constant), not {dims:?}"
            )
        }
    };
    let has_map = dims.len() == 3;
    if layers.iter().any(|layer| matches!(layer.synapse.map, Map::Linear) == has_map) {
        bail!(
            "linear layers want [C] behind [T, N] (or [N] where constant), all others [C, H, W]: {dims:?}; a stack has layers of \
             one kind, and `flatten_from(2)` leads from one stack of maps to one of linear layers"
        )
    }
    let next = |layer: &SpikingLayer| {
        let geometry = layer.synapse.geometry(map)?;
        map = geometry.output();
        Ok(Spec { geometry, lif: layer.lif })
    };
    layers.iter().map(next).collect()
}

#[cfg(test)]
mod tests;
