//! Spiking layers in a row, as one operation where there is a kernel for it.

use candle_core::{Result, Tensor, bail};

use super::check::{Sizes, check};
use super::drive::{Drive, Finish};
use super::run::{Made, make, run, settle, specs};
use crate::{Connections, Readout, SpikingLayer};

/// Spiking layers one after the other, from spikes (or a constant current) to spikes (or their sum over time).
///
/// Equal to calling the layers one by one, and faster: on the CPU in f32 the stack is one operation, between whose layers
/// spikes are lists of events and never tensors (see `docs/performance.md`). On a GPU (features `cuda`, `cudnn`) layers of LIF neurons
/// are one operation too, whose gradients go from layer to layer, up to 191 time steps in f32 and 95 in f64. Elsewhere it *is* the layers one by one.
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
    /// Stacks layers in the order in which spikes pass through them: maps (convolutions) or features (linear layers), not both.
    /// From the one to the other it takes two stacks, and `flatten_from(2)` between them.
    #[must_use]
    pub fn new(layers: Vec<SpikingLayer>) -> Self {
        Self { layers }
    }

    /// Returns its layers.
    #[must_use]
    pub fn layers(&self) -> &[SpikingLayer] {
        &self.layers
    }

    /// Returns the stack of what `change` makes of each layer, which it is told by its number, such as the same layer
    /// [with neurons of your own](SpikingLayer::with_neuron).
    ///
    /// # Errors
    /// Returns the errors of `change`.
    pub fn map_layers(
        self,
        mut change: impl FnMut(usize, SpikingLayer) -> Result<SpikingLayer>,
    ) -> Result<Self> {
        let layers = self.layers.into_iter().enumerate().map(|(i, layer)| change(i, layer));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Returns the same layers, parameters shared, in which every neuron's threshold is `scale` times as high: above 1 fewer spikes get
    /// through, below 1 more. Norms stay as they are, tdBN's included, whose threshold belongs to what was learned.
    ///
    /// # Errors
    /// Returns an error if a threshold does not [stay above](crate::LifConfig::validate) the reset potential or is not finite, or
    /// if a layer has a [model of your own](SpikingLayer::with_neuron), whose threshold, if there is one, is its own.
    /// # Examples
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use snn_core::{Drive, LifConfig, ParamStore, Seed, SpikingLayer, SpikingStack};
    /// # fn main() -> candle_core::Result<()> {
    /// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    /// let stack = SpikingStack::new(vec![SpikingLayer::linear(4, 8, LifConfig::default(), store.builder())?]);
    /// let easy = stack.with_threshold_scale(0.25)?;
    /// let x = Tensor::ones((1, 4), DType::F32, &Device::Cpu)?;
    /// let spikes = |stack: &SpikingStack| stack.forward(Drive::Constant(&x, 8), false)?.sum_all()?.to_scalar::<f32>();
    /// assert!(spikes(&easy)? > spikes(&stack)?);
    /// # Ok(()) }
    /// ```
    pub fn with_threshold_scale(&self, scale: f64) -> Result<Self> {
        let scaled = |layer: &SpikingLayer| {
            Ok(SpikingLayer { neurons: layer.neurons.with_threshold_scale(scale)?, ..layer.clone() })
        };
        Ok(Self { layers: self.layers.iter().map(scaled).collect::<Result<_>>()? })
    }

    /// Computes the last layer's spikes. With `train`, normalises by batch statistics and moves the running ones, those of all layers
    /// or, where one returns an error, of none.
    ///
    /// # Shapes
    /// -> `[T, N, C, H, W]`; of linear layers `[T, N, C]`.
    /// # Errors
    /// Returns an error if shapes or element types do not fit (it names the layer), if there are no layers, if there are more
    /// time steps than memory; with `train`, if a layer that has a norm has a single value a channel, or none.
    pub fn forward(&self, drive: Drive<'_>, train: bool) -> Result<Tensor> {
        run(&self.layers, drive, Finish::Spikes, train)
    }

    /// Computes the sum of the last layer's spikes over time; the spikes themselves are never stored.
    ///
    /// # Shapes
    /// -> `[N, C, H, W]`; of linear layers `[N, C]`.
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward), and an error if there are no time steps or if the read-out does not
    /// [validate](Readout::validate).
    pub fn readout(&self, drive: Drive<'_>, readout: Readout, train: bool) -> Result<Tensor> {
        self.readouts(drive, &[readout], train)?.squeeze(0)
    }

    /// Computes several such sums of the same spikes.
    ///
    /// # Shapes
    /// -> `[readouts, N, C, H, W]`; of linear layers `[readouts, N, C]`.
    /// # Errors
    /// Returns the errors of [`readout`](Self::readout), and an error if there are no read-outs.
    pub fn readouts(&self, drive: Drive<'_>, readouts: &[Readout], train: bool) -> Result<Tensor> {
        run(&self.layers, drive, Finish::Sums(readouts), train)
    }

    /// Computes the sums of the spikes of several layers side by side, for a head that reads them all.
    ///
    /// # Shapes
    /// -> `[N, sum of C, H, W]`, in the order of `layers` (the first is 0); of linear layers `[N, sum of C]`.
    /// # Errors
    /// Returns the errors of [`readout`](Self::readout), and an error if the last layer is not among them, if their maps are not
    /// of one size, or if one is named twice or does not exist.
    /// # Examples
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use snn_core::{Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack};
    /// # fn main() -> candle_core::Result<()> {
    /// let (store, lif) = (ParamStore::new(Seed(0), DType::F32, &Device::Cpu), LifConfig::default());
    /// let vb = store.builder();
    /// let stack = SpikingStack::new(vec![
    ///     SpikingLayer::linear(4, 8, lif, vb.pp(0))?,
    ///     SpikingLayer::linear(8, 3, lif, vb.pp(1))?,
    /// ]);
    /// let x = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
    /// assert_eq!(stack.readout_of(Drive::Constant(&x, 4), Readout::Mean, &[0, 1], false)?.dims(), [2, 11]);
    /// # Ok(()) }
    /// ```
    pub fn readout_of(
        &self,
        drive: Drive<'_>,
        readout: Readout,
        layers: &[usize],
        train: bool,
    ) -> Result<Tensor> {
        run(&self.layers, drive, Finish::SumsOf(readout, layers), train)?.squeeze(0)
    }

    /// Computes [`forward`](Self::forward), layer by layer, with a look at the number (from 0) and the spikes of each.
    ///
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward) and those of the observer. No running statistic is moved then.
    pub fn forward_observed(
        &self,
        drive: Drive<'_>,
        train: bool,
        observe: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        settle(&self.layers, make_observed(&self.layers, drive, train, observe)?)
    }

    /// Counts the connections of each layer, the first on a map of `source`: channels, rows, columns (in front of linear layers one
    /// row and one column).
    ///
    /// # Errors
    /// Returns an error if maps do not fit.
    pub fn connections(&self, mut source: [usize; 3]) -> Result<Vec<Connections>> {
        let next = |layer: &SpikingLayer| {
            let connections = layer.connections(source)?;
            source = connections.target();
            Ok(connections)
        };
        self.layers.iter().map(next).collect()
    }
}

/// The spikes of layers in a row, one by one, with a look at each; running statistics stay as they are.
pub(super) fn make_observed(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    train: bool,
    observe: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
) -> Result<Made> {
    check(layers, &specs(layers, drive.map())?, Sizes::of(drive)?, Finish::Spikes, train)?;
    let (mut spikes, mut batches): (Option<Tensor>, _) = (None, Vec::new());
    for (i, layer) in layers.iter().enumerate() {
        let drive = spikes.as_ref().map_or(drive, Drive::Spikes);
        let (next, batch) = make(std::slice::from_ref(layer), drive, Finish::Spikes, train)?;
        observe(i, &next)?;
        spikes = Some(next);
        batches.extend(batch);
    }
    match spikes {
        Some(spikes) => Ok((spikes, batches)),
        None => bail!("a stack of no layers"),
    }
}

#[cfg(test)]
mod tests;
