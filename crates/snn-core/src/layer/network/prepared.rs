//! Whole networks whose parameters do not change, laid out once for many evaluations.

use candle_core::{Result, Tensor};

use super::flow::{Part, Runner, Signal, flow, flow_to_sum};
use super::runners::of_part;
use super::{Layers, SpikingNetwork, check_item, head_of};
use crate::layer::drive::Finish;
use crate::layer::run::flattening_specs;
use crate::{Drive, PreparedStack, ReadoutLayer};

/// A [`SpikingNetwork`] for many evaluations, with running statistics and without gradient: the fast way to use a trained one.
///
/// It borrows nothing, so that the network may go and this may be sent to another thread. Parameters must not change as long as
/// it lives.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{Drive, LifConfig, ParamStore, PreparedNetwork, Readout, Seed, SpikingNetwork};
/// # fn main() -> candle_core::Result<()> {
/// fn trained() -> candle_core::Result<PreparedNetwork> {
///     let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu); // and then restored from a checkpoint
///     let network = SpikingNetwork::builder(&[8], LifConfig::default(), params.builder());
///     network.linear(16).readout(2, Readout::Mean).build()?.prepare()
/// }
/// let network = trained()?;
/// let x = Tensor::ones((1, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(network.readout(Drive::Constant(&x, 4))?.dims(), [1, 2]);
/// assert_eq!(network.forward(Drive::Constant(&x, 4))?.dims(), [4, 1, 16]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PreparedNetwork {
    item: Vec<usize>,
    parts: Vec<Part<PreparedStack>>,
    head: Option<ReadoutLayer>,
}

impl PreparedNetwork {
    pub(super) fn new(network: &SpikingNetwork) -> Result<Self> {
        Ok(Self { item: network.item.clone(), parts: prepare(&network.parts)?, head: network.head.clone() })
    }

    /// Computes [`SpikingNetwork::forward`] with running statistics, without gradient.
    ///
    /// # Shapes
    /// Items as the network was built for -> `[T, N, C, H, W]` or `[T, N, C]`.
    /// # Errors
    /// Returns an error if the input does not fit.
    pub fn forward(&self, drive: Drive<'_>) -> Result<Tensor> {
        check_item(&self.item, drive)?;
        Ok(flow(&self.parts, "", Signal::of(drive), &mut Fixed)?.spikes()?.detach())
    }

    /// Computes [`SpikingNetwork::readout`] with running statistics, without gradient.
    ///
    /// # Shapes
    /// Items as the network was built for -> `[N, C, H, W]` or `[N, C]`.
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward), and an error if the network has no read-out or there are no time steps.
    pub fn readout(&self, drive: Drive<'_>) -> Result<Tensor> {
        let head = head_of(self.head.as_ref())?;
        check_item(&self.item, drive)?;
        let sum = flow_to_sum(&self.parts, Signal::of(drive), head.readout(), &mut Fixed)?;
        Ok(head.forward_sums(&[sum], drive.time_steps()?)?.detach())
    }
}

/// The same parts; layers in front of a flattening and layers behind it are one.
fn prepare(parts: &[Part<Layers>]) -> Result<Vec<Part<PreparedStack>>> {
    let stack = |layers: &Layers| layers.stack.prepare(&layers.item);
    let (mut prepared, mut rest) = (Vec::new(), parts);
    while let [part, behind @ ..] = rest {
        rest = behind;
        prepared.push(match (part, behind) {
            (Part::Layers(first), [Part::Flatten, Part::Layers(second), behind @ ..]) => {
                rest = behind;
                let layers = [first.layers(), second.layers()].concat();
                let specs = flattening_specs(&layers, &first.item)?;
                Part::Layers(PreparedStack::new(layers, specs, &first.item)?)
            }
            _ => part.convert(&stack)?,
        });
    }
    Ok(prepared)
}

struct Fixed;

impl Runner<'_, PreparedStack> for Fixed {
    fn run(
        &mut self,
        name: &str,
        layers: &PreparedStack,
        drive: Drive<'_>,
        finish: Finish<'_>,
    ) -> Result<Tensor> {
        layers.run(drive, finish, None).map_err(|error| of_part(error, name))
    }
}
