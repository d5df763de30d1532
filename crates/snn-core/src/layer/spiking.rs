//! Spiking layers: a synapse (convolution, transposed convolution or linear map), batch norm, LIF neurons.

use candle_core::Result;
use candle_nn::VarBuilder;

use super::norm::BatchNorm;
use super::synapse::Synapse;
use crate::{Connections, ConvConfig, LifConfig};

/// Synapse, batch norm, LIF: the layer that everything here is built of.
///
/// Parameters: `<synapse>.weight`, `<synapse>.bias`, `bn.weight`, `bn.bias`, and the running statistics
/// `bn.running_mean`, `bn.running_var`, where `<synapse>` is `conv` or `linear`. Several in a row are faster as a
/// [`SpikingStack`](crate::SpikingStack).
///
/// # Shapes
/// `[T, N, C_in, H, W]` -> spikes `[T, N, C_out, H', W']`; for linear layers `[T, N, C_in]` -> `[T, N, C_out]`.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, LifConfig, ParamStore, Seed, SpikingLayer};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::conv(1, 32, ConvConfig::new(3, 2, 1), LifConfig::default(), store.builder())?;
/// let image = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(layer.forward_constant(&image, 16, false)?.dims(), [16, 2, 32, 14, 14]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SpikingLayer {
    pub(crate) synapse: Synapse,
    pub(crate) norm: BatchNorm,
    pub(crate) lif: LifConfig,
}

impl SpikingLayer {
    /// Convolution + BN + LIF.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `lif` or `cfg` does not [validate](LifConfig::validate) or there are
    /// no channels, before any parameter is made; and if `vb` lacks parameters or holds them in other shapes.
    pub fn conv(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        lif: LifConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        lif.validate()?;
        Self::new(Synapse::conv(c_in, c_out, cfg, &vb.pp("conv"))?, lif, &vb)
    }

    /// Transposed convolution + BN + LIF.
    ///
    /// # Errors
    /// As [`conv`](Self::conv).
    pub fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        lif: LifConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        lif.validate()?;
        Self::new(Synapse::conv_transpose(c_in, c_out, cfg, &vb.pp("conv"))?, lif, &vb)
    }

    /// Linear + BN + LIF.
    ///
    /// # Errors
    /// As [`conv`](Self::conv).
    pub fn linear(c_in: usize, c_out: usize, lif: LifConfig, vb: VarBuilder<'_>) -> Result<Self> {
        lif.validate()?;
        Self::new(Synapse::linear(c_in, c_out, &vb.pp("linear"))?, lif, &vb)
    }

    fn new(synapse: Synapse, lif: LifConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = BatchNorm::new(synapse.bias.elem_count(), &vb.pp("bn"))?;
        Ok(Self { synapse, norm, lif })
    }

    /// Its connections on a map of `source`: channels, rows, columns (a linear layer has one row and one column).
    ///
    /// # Errors
    /// A map that does not fit.
    pub fn connections(&self, source: [usize; 3]) -> Result<Connections> {
        self.synapse.connections(source)
    }
}
