//! Whole networks of spiking layers: parts in a row, and a read-out.

mod builder;
mod flow;
mod prepared;
mod runners;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::state::{one_step, step_layers};
use crate::{
    DescribeLayers, Drive, LayerConfig, LayerDescription, Observer, ReadoutLayer, SpikingLayer, SpikingStack,
    SpikingState,
};
pub use builder::NetworkBuilder;
use flow::{Part, Signal, flow, flow_to_sum};
pub use prepared::PreparedNetwork;
use runners::{Pass, Steps};

/// A feed-forward network of spiking layers: convolutions, flattening, linear layers, pooling and residual blocks in a row, and
/// the read-out behind them, if there is one.
///
/// One value that is trained, observed, [prepared](Self::prepare) for fast inference, [stepped](Self::step) through time and
/// [described](DescribeLayers). Layers that follow each other run as one [`SpikingStack`]. Shapes are checked when it is built.
///
/// # Names
/// Parts are counted from 0, where layers that follow each other are one part, and layers within their part: a second layer
/// is `0.1`, and that is what its parameters begin with, and what an observer is told. Layers of a residual block `2` are
/// `2.0.0`, `2.0.1`, those of its shortcut `2.shortcut.0.0`; what a pooling or residual part makes has the name of the part.
/// The read-out is `head`.
///
/// # Examples
/// A convolutional spiking classifier.
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingNetwork};
/// # fn main() -> candle_core::Result<()> {
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let halve = ConvConfig::new(3, 2, 1);
/// let network = SpikingNetwork::builder(&[1, 28, 28], LifConfig::default(), params.builder())
///     .conv(32, halve)
///     .conv(64, halve)
///     .flatten()
///     .linear(256)
///     .readout(10, Readout::Mean)
///     .build()?;
/// assert!(params.vars().iter().any(|(name, _)| name == "2.0.linear.weight"));
///
/// let images = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// let logits = network.readout(Drive::Constant(&images, 4), true)?; // direct encoding, 4 time steps
/// assert_eq!(logits.dims(), [2, 10]);
/// let prepared = network.prepare()?; // parameters laid out once, for many evaluations
/// assert_eq!(prepared.readout(Drive::Constant(&images, 4))?.dims(), [2, 10]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SpikingNetwork {
    item: Vec<usize>,
    parts: Vec<Part<Layers>>,
    head: Option<ReadoutLayer>,
    described: Vec<LayerDescription>,
    /// How many layers have neurons.
    spiking: usize,
}

/// Spiking layers in a row, and the items that they are made for.
#[derive(Clone, Debug)]
struct Layers {
    stack: SpikingStack,
    item: Vec<usize>,
}

impl Layers {
    fn layers(&self) -> &[SpikingLayer] {
        self.stack.layers()
    }
}

/// Whether a network made for items of this shape can read the input.
fn check_item(item: &[usize], drive: Drive<'_>) -> Result<()> {
    if drive.map() != item {
        bail!("a spiking network for items of {item:?}, given {:?}", drive.tensor().dims())
    }
    Ok(())
}

/// The read-out that a network must have for this.
fn head_of(head: Option<&ReadoutLayer>) -> Result<&ReadoutLayer> {
    match head {
        Some(head) => Ok(head),
        None => bail!("a spiking network without a read-out has spikes only: see `NetworkBuilder::readout`"),
    }
}

impl SpikingNetwork {
    /// Begins a network for items `[C, H, W]`, or `[C]`. All its layers have this neuron (a [`LifConfig`](crate::LifConfig) will do), with
    /// this norm, until [`neuron`](NetworkBuilder::neuron) names another; its parameters are made in `vb`, or found there.
    pub fn builder<'a>(
        item: &[usize],
        neuron: impl Into<LayerConfig>,
        vb: VarBuilder<'a>,
    ) -> NetworkBuilder<'a> {
        NetworkBuilder::new(item, neuron.into(), vb)
    }

    /// Computes the spikes that come out of the last part. With `train`, normalises by batch statistics and moves the running ones, those
    /// of all layers or, where it returns an error, of none.
    ///
    /// # Shapes
    /// Items as it was built for -> `[T, N, C, H, W]` or `[T, N, C]`.
    /// # Errors
    /// Returns an error, with the part's name, if the input does not fit; otherwise as [`SpikingStack::forward`].
    pub fn forward(&self, drive: Drive<'_>, train: bool) -> Result<Tensor> {
        self.run(drive, Pass::new(train, None), |pass| {
            flow(&self.parts, "", Signal::of(drive), pass)?.spikes()
        })
    }

    /// Computes what the read-out makes of the last part's spikes, such as logits.
    ///
    /// # Shapes
    /// Items as it was built for -> `[N, C, H, W]` or `[N, C]`.
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward), and an error if the network has no read-out or there are no time steps.
    pub fn readout(&self, drive: Drive<'_>, train: bool) -> Result<Tensor> {
        self.read(drive, Pass::new(train, None))
    }

    /// Computes [`forward`](Self::forward) with a look at the spikes of every layer, and at what pooling and residual parts make.
    ///
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward) and those of the observer.
    pub fn forward_observed(
        &self,
        drive: Drive<'_>,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> Result<Tensor> {
        self.run(drive, Pass::new(train, Some(observe)), |pass| {
            flow(&self.parts, "", Signal::of(drive), pass)?.spikes()
        })
    }

    /// Computes [`readout`](Self::readout) with the same look.
    ///
    /// # Errors
    /// Returns the errors of [`readout`](Self::readout) and those of the observer.
    pub fn readout_observed(
        &self,
        drive: Drive<'_>,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> Result<Tensor> {
        self.read(drive, Pass::new(train, Some(observe)))
    }

    fn read<'a>(&'a self, drive: Drive<'_>, pass: Pass<'a, '_>) -> Result<Tensor> {
        let head = head_of(self.head())?;
        self.run(drive, pass, |pass| {
            let sum = flow_to_sum(&self.parts, Signal::of(drive), head.readout(), pass)?;
            head.forward_sums(&[sum], drive.time_steps()?)
        })
    }

    /// Lets all parts run, and moves running statistics when all have.
    fn run<'a, 'o>(
        &'a self,
        drive: Drive<'_>,
        mut pass: Pass<'a, 'o>,
        run: impl FnOnce(&mut Pass<'a, 'o>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        check_item(&self.item, drive)?;
        let made = run(&mut pass)?;
        pass.settle()?;
        Ok(made)
    }

    /// Takes one time step, with running statistics and without gradient: after `T` of them, the spikes of
    /// [`forward`](Self::forward) with `train` off.
    ///
    /// # Shapes
    /// `x: [N, ...]`, items as it was built for -> `[N, C, H, W]` or `[N, C]`.
    /// # Errors
    /// Returns an error if `x` does not fit, or if the state is of a batch (it names the layer) or a network of other sizes; of two
    /// with equal ones nothing tells the states apart. The state stays as it was.
    pub fn step(&self, x: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        one_step(x, |xs| self.step_chunk(xs, state))
    }

    /// Takes several time steps: see [`step`](Self::step).
    ///
    /// # Shapes
    /// `xs: [t, N, ...]` -> `[t, N, C, H, W]` or `[t, N, C]`.
    /// # Errors
    /// Returns the errors of [`step`](Self::step), and an error if the chunk has no time steps.
    pub fn step_chunk(&self, xs: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        check_item(&self.item, Drive::Spikes(xs))?;
        let (signal, mut next) = (Signal::Spikes(xs.detach()), state.clone());
        let spikes = next
            .advance(self.spiking, |course| flow(&self.parts, "", signal, &mut Steps { course })?.spikes())?;
        if let Some(head) = self.head() {
            next.add(head.readout(), &spikes)?;
        }
        *state = next;
        Ok(spikes)
    }

    /// Computes the read-out of all time steps that a state has been through: after `T` of them, what [`readout`](Self::readout) makes of
    /// the sequence with `train` off.
    ///
    /// # Shapes
    /// -> `[N, C, H, W]` or `[N, C]`.
    /// # Errors
    /// Returns an error if the network has no read-out, or the state has not been through a step of this network.
    pub fn readout_so_far(&self, state: &SpikingState) -> Result<Tensor> {
        let head = head_of(self.head())?;
        let (sum, time_steps) = state.so_far(head.readout())?;
        Ok(head.forward_sums(&[sum], time_steps)?.detach())
    }

    /// Lays everything out for many evaluations, during which no parameter changes.
    ///
    /// # Errors
    /// Returns an error if the maps have more positions than memory.
    pub fn prepare(&self) -> Result<PreparedNetwork> {
        PreparedNetwork::new(self)
    }

    /// Returns the read-out, if there is one.
    #[must_use]
    pub fn head(&self) -> Option<&ReadoutLayer> {
        self.head.as_ref()
    }
}

impl DescribeLayers for SpikingNetwork {
    fn describe_layers(&self) -> Result<Vec<LayerDescription>> {
        Ok(self.described.clone())
    }
}
