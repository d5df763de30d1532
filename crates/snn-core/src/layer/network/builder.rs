//! Building a network part by part, with a look at every shape.

use candle_core::{Error, Result, bail};
use candle_nn::VarBuilder;

use super::flow::Part;
use super::{Layers, SpikingNetwork};
use crate::layer::run::specs;
use crate::{
    Connections, ConvConfig, LayerConfig, LayerDescription, Pool, Readout, ReadoutLayer, SewFunction,
    SpikingLayer, SpikingStack,
};

/// Builds a [`SpikingNetwork`] part by part, in the order in which spikes pass.
///
/// What does not fit is kept until [`build`](Self::build), which returns the first error.
///
/// # Examples
/// A residual block, pooled; behind it a layer of one's own making.
/// ```
/// # use candle_core::{DType, Device};
/// # use snn_core::{ConvConfig, DescribeLayers, LifConfig, ParamStore, Pool, Seed, SewFunction, SpikingLayer, SpikingNetwork};
/// # fn main() -> candle_core::Result<()> {
/// let (params, lif) = (ParamStore::new(Seed(0), DType::F32, &Device::Cpu), LifConfig::default());
/// let same = ConvConfig::new(3, 1, 1);
/// let network = SpikingNetwork::builder(&[3, 32, 32], lif, params.builder())
///     .conv(16, same)
///     .residual(SewFunction::Add, |block| block.conv(16, same).conv(16, same))
///     .pool(Pool::Average { kernel: 2 })
///     .layer(|channels, vb| SpikingLayer::conv(channels, 32, same, lif, vb))
///     .build()?;
/// let layers = network.describe_layers()?;
/// let reads: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.reads.join(", "))).collect();
/// assert_eq!(reads[1], ("1.0.0", "0.0".to_owned()));
/// assert_eq!(reads[3], ("3.0", "2".to_owned())); // what the pooling part makes
/// # Ok(()) }
/// ```
#[must_use = "a network exists when it is built"]
pub struct NetworkBuilder<'a> {
    vb: VarBuilder<'a>,
    neuron: LayerConfig,
    /// What names begin with.
    prefix: String,
    input: Vec<usize>,
    /// What comes out of the parts so far, `[C, H, W]` or `[C]`.
    item: Vec<usize>,
    /// The map that `item` was flattened from.
    flattened: Option<[usize; 3]>,
    /// Whose spikes these are, or numbers.
    reads: Vec<String>,
    numbers: bool,
    /// Layers that will be one part, and the items that they read.
    open: Vec<SpikingLayer>,
    open_item: Vec<usize>,
    parts: Vec<Part<Layers>>,
    head: Option<ReadoutLayer>,
    described: Vec<LayerDescription>,
    spiking: usize,
    error: Option<Error>,
}

impl std::fmt::Debug for NetworkBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkBuilder").field("item", &self.item).field("layers", &self.described).finish()
    }
}

impl<'a> NetworkBuilder<'a> {
    pub(super) fn new(item: &[usize], neuron: LayerConfig, vb: VarBuilder<'a>) -> Self {
        Self {
            vb,
            neuron,
            prefix: String::new(),
            input: item.to_vec(),
            item: item.to_vec(),
            flattened: None,
            reads: Vec::new(),
            numbers: false,
            open: Vec::new(),
            open_item: Vec::new(),
            parts: Vec::new(),
            head: None,
            described: Vec::new(),
            spiking: 0,
            error: None,
        }
    }

    /// Sets the neurons, and the norms, of all layers from here on.
    pub fn neuron(mut self, neuron: impl Into<LayerConfig>) -> Self {
        self.neuron = neuron.into();
        self
    }

    /// Adds a spiking convolution, as [`SpikingLayer::conv`].
    pub fn conv(self, channels: usize, cfg: ConvConfig) -> Self {
        let neuron = self.neuron;
        self.layer(|from, vb| SpikingLayer::conv(from, channels, cfg, neuron, vb))
    }

    /// Adds a spiking transposed convolution, as [`SpikingLayer::conv_transpose`].
    pub fn conv_transpose(self, channels: usize, cfg: ConvConfig) -> Self {
        let neuron = self.neuron;
        self.layer(|from, vb| SpikingLayer::conv_transpose(from, channels, cfg, neuron, vb))
    }

    /// Adds a spiking linear layer, as [`SpikingLayer::linear`]. Maps must be [flattened](Self::flatten) in front of it.
    pub fn linear(self, features: usize) -> Self {
        let neuron = self.neuron;
        self.layer(|from, vb| SpikingLayer::linear(from, features, neuron, vb))
    }

    /// Adds any spiking layer: `make` gets the channels (or features) that it reads, and where its parameters lie.
    pub fn layer(self, make: impl FnOnce(usize, VarBuilder<'a>) -> Result<SpikingLayer>) -> Self {
        let name = format!("{}{}.{}", self.prefix, self.parts.len(), self.open.len());
        self.then(name.clone(), |network| {
            let layer = make(network.channels(), network.vb.pp(&name))?;
            let spec = specs(std::slice::from_ref(&layer), &network.item)?;
            let Some([c, h, w]) = spec.last().map(|spec| spec.geometry.output()) else { return Ok(()) };
            let connections = match network.flattened.take() {
                Some(map) => Connections::of_flattened(map, c),
                None => layer.connections(network.map())?,
            };
            network.describe(name, connections);
            network.numbers = !layer.neurons.spike();
            let next = if network.item.len() == 1 { vec![c] } else { vec![c, h, w] };
            let item = std::mem::replace(&mut network.item, next);
            if network.open.is_empty() {
                network.open_item = item;
            }
            network.spiking += 1;
            network.open.push(layer);
            Ok(())
        })
    }

    /// Turns maps into features: `[C, H, W]` -> `[C H W]`, in this order.
    pub fn flatten(self) -> Self {
        let name = self.part_name();
        self.then(name, |network| {
            let [c, h, w] = network.has_map()?;
            network.close();
            let Some(features) = c.checked_mul(h).and_then(|n| n.checked_mul(w)) else {
                bail!("flattened, a map of {:?} cannot be counted", network.item)
            };
            (network.item, network.flattened) = (vec![features], Some([c, h, w]));
            network.parts.push(Part::Flatten);
            Ok(())
        })
    }

    /// Adds a pooling of maps.
    pub fn pool(self, pool: Pool) -> Self {
        let name = self.part_name();
        self.then(name.clone(), |network| {
            let map = pool.map(network.has_map()?)?;
            network.close();
            network.item = map.to_vec();
            network.numbers |= matches!(pool, Pool::Average { .. });
            network.push(Part::Pool(pool), name);
            Ok(())
        })
    }

    /// Adds a residual block `y = g(f(x), x)`, where `f` is what `block` adds to the builder that it gets, and `g` is `join`.
    pub fn residual(self, join: SewFunction, block: impl FnOnce(Self) -> Self) -> Self {
        self.residual_with_shortcut(join, block, |shortcut| shortcut)
    }

    /// Adds a residual block with layers on the way round, such as a 1x1 convolution where the block changes the number of channels.
    pub fn residual_with_shortcut(
        self,
        join: SewFunction,
        block: impl FnOnce(Self) -> Self,
        shortcut: impl FnOnce(Self) -> Self,
    ) -> Self {
        let name = self.part_name();
        self.then(name.clone(), |network| {
            network.close();
            let through = block(network.branch(format!("{name}."))).finish()?;
            let round = shortcut(network.branch(format!("{name}.shortcut."))).finish()?;
            if through.parts.is_empty() || through.head.is_some() || round.head.is_some() {
                bail!("a residual block wants layers, and no read-out")
            }
            if through.item != round.item {
                bail!(
                    "the block makes {:?} of {:?}, and what goes round it is {:?}",
                    through.item,
                    network.item,
                    round.item
                )
            }
            // A way without neurons hands on the numbers that the network is given.
            let numbers = |way: &Self| way.numbers || way.reads.is_empty();
            network.numbers = numbers(&through) || numbers(&round);
            network.item = through.item;
            network.spiking += through.spiking + round.spiking;
            network.described.extend(through.described.into_iter().chain(round.described));
            network.push(Part::Residual { through: through.parts, round: round.parts, join }, name);
            Ok(())
        })
    }

    /// Adds the linear read-out behind the last part, as [`ReadoutLayer::linear`].
    pub fn readout(self, features: usize, readout: Readout) -> Self {
        self.head(|from, vb| ReadoutLayer::linear(from, features, readout, vb))
    }

    /// Adds a read-out of maps, as [`ReadoutLayer::conv`].
    pub fn readout_conv(self, channels: usize, cfg: ConvConfig, readout: Readout) -> Self {
        self.head(|from, vb| ReadoutLayer::conv(from, channels, cfg, readout, vb))
    }

    /// Adds a read-out of maps, as [`ReadoutLayer::conv_transpose`].
    pub fn readout_conv_transpose(self, channels: usize, cfg: ConvConfig, readout: Readout) -> Self {
        self.head(|from, vb| ReadoutLayer::conv_transpose(from, channels, cfg, readout, vb))
    }

    fn head(self, make: impl FnOnce(usize, VarBuilder<'a>) -> Result<ReadoutLayer>) -> Self {
        self.then("head".to_owned(), |network| {
            network.close();
            let head = make(network.channels(), network.vb.pp("head"))?;
            if head.reads_maps() != (network.item.len() == 3) {
                bail!(
                    "a read-out of maps [C, H, W] or a linear one of features [C] does not fit {:?}",
                    network.item
                )
            }
            let connections = match network.flattened.take() {
                Some(map) => {
                    let [targets, ..] = head.connections(network.map())?.target();
                    Connections::of_flattened(map, targets)
                }
                None => head.connections(network.map())?,
            };
            network.describe("head".to_owned(), connections);
            network.head = Some(head);
            Ok(())
        })
    }

    /// Builds the network.
    ///
    /// # Errors
    /// Returns an error, with the name of the part, if a part does not fit what comes out of the part before it, or if its
    /// parameters cannot be had; and if there are no parts.
    pub fn build(self) -> Result<SpikingNetwork> {
        let network = self.finish()?;
        if network.parts.is_empty() {
            bail!("a spiking network of no parts")
        }
        let Self { input, parts, head, described, spiking, .. } = network;
        Ok(SpikingNetwork { item: input, parts, head, described, spiking })
    }

    /// Adds a part, unless there has been an error.
    fn then(mut self, name: String, add: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let added = match (&self.error, &self.head) {
            (Some(_), _) => return self,
            (None, Some(_)) => Err(Error::msg("nothing follows a read-out")),
            (None, None) => add(&mut self),
        };
        self.error = added.err().map(|error| super::runners::of_part(error, &name));
        self
    }

    fn finish(mut self) -> Result<Self> {
        self.close();
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// An empty network that goes on from here.
    fn branch(&self, prefix: String) -> Self {
        let (item, reads) = (self.item.clone(), self.reads.clone());
        let empty = Self::new(&item, self.neuron, self.vb.clone());
        Self { prefix, reads, numbers: self.numbers, flattened: self.flattened, ..empty }
    }

    /// The name of the next part that is not spiking layers.
    fn part_name(&self) -> String {
        format!("{}{}", self.prefix, self.parts.len() + usize::from(!self.open.is_empty()))
    }

    /// Makes a part of the layers that follow each other.
    fn close(&mut self) {
        if !self.open.is_empty() {
            let stack = SpikingStack::new(std::mem::take(&mut self.open));
            self.parts.push(Part::Layers(Layers { stack, item: std::mem::take(&mut self.open_item) }));
        }
    }

    /// A part whose values have a name of their own.
    fn push(&mut self, part: Part<Layers>, name: String) {
        // Without neurons in front, these are still the numbers that the network is given.
        if !self.reads.is_empty() || matches!(part, Part::Residual { .. }) {
            self.reads = vec![name];
        }
        self.flattened = None;
        self.parts.push(part);
    }

    /// The next layer, which reads what there is so far.
    fn describe(&mut self, name: String, connections: Connections) {
        let reads = std::mem::replace(&mut self.reads, vec![name.clone()]);
        let reads_numbers = self.numbers;
        self.described.push(LayerDescription { name, reads, connections, reads_numbers });
    }

    fn channels(&self) -> usize {
        self.item.first().copied().unwrap_or(0)
    }

    /// The item as a map; features have one row and one column.
    fn map(&self) -> [usize; 3] {
        match *self.item {
            [c, h, w] => [c, h, w],
            _ => [self.channels(), 1, 1],
        }
    }

    fn has_map(&self) -> Result<[usize; 3]> {
        match *self.item {
            [c, h, w] => Ok([c, h, w]),
            _ => bail!("wants maps [C, H, W], and gets {:?}", self.item),
        }
    }
}
