//! Spiking layers: a synapse (convolution, transposed convolution or linear map), a norm, neurons.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::neurons::Neurons;
use super::norm::BatchNorm;
use super::synapse::Synapse;
use crate::{Connections, ConvConfig, LayerConfig, NeuronModel};

/// Synapse, norm, LIF: the layer that everything here is built of. A [`LayerConfig`] says which norm and which neurons; a
/// [`LifConfig`](crate::LifConfig) will do, and means batch norm.
///
/// Parameters: `<synapse>.weight`, `<synapse>.bias`, where `<synapse>` is `conv` or `linear`; with a norm `bn.weight`, `bn.bias`,
/// and the running statistics `bn.running_mean`, `bn.running_var`; with a learned time constant `plif.w`. Several in a row are faster as a
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
    pub(crate) norm: Option<BatchNorm>,
    pub(crate) neurons: Neurons,
}

impl SpikingLayer {
    /// Makes a layer of a convolution, a norm and neurons.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `layer` or `cfg` does not [validate](LayerConfig::validate) or there are
    /// no channels, before any parameter is made; and if `vb` lacks parameters or holds them in other shapes.
    pub fn conv(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        layer: impl Into<LayerConfig>,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = checked(layer)?;
        Self::new(Synapse::conv(c_in, c_out, cfg, &vb.pp("conv"))?, layer, &vb)
    }

    /// Makes a layer of a transposed convolution, a norm and neurons.
    ///
    /// # Errors
    /// Returns the errors of [`conv`](Self::conv).
    pub fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        layer: impl Into<LayerConfig>,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = checked(layer)?;
        Self::new(Synapse::conv_transpose(c_in, c_out, cfg, &vb.pp("conv"))?, layer, &vb)
    }

    /// Makes a layer of a linear map, a norm and neurons.
    ///
    /// # Errors
    /// Returns the errors of [`conv`](Self::conv).
    pub fn linear(
        c_in: usize,
        c_out: usize,
        layer: impl Into<LayerConfig>,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = checked(layer)?;
        Self::new(Synapse::linear(c_in, c_out, &vb.pp("linear"))?, layer, &vb)
    }

    fn new(synapse: Synapse, layer: LayerConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = BatchNorm::new(layer.norm, synapse.bias.elem_count(), &vb.pp("bn"))?;
        let neurons = Neurons::new(&layer, vb)?;
        Ok(Self { synapse, norm, neurons })
    }

    /// Returns the same layer with neurons of your own in place of the configured ones.
    ///
    /// In a [`SpikingStack`](crate::SpikingStack) such a layer runs operation by operation; the layers in front of it, and those
    /// behind it, stay fused. Its parameters are the model's: those of the configured neurons, if they learn, get no gradient.
    #[must_use]
    pub fn with_neuron(self, model: Arc<dyn NeuronModel>) -> Self {
        Self { neurons: Neurons::Model(model), ..self }
    }

    /// Scale and shift by channel: in training those behind the batch's statistics, where the norm takes them; else those of the
    /// synapse's product.
    pub(super) fn affine(&self, train: bool) -> Result<(Tensor, Tensor)> {
        let bias = &self.synapse.bias;
        Ok(match &self.norm {
            Some(norm) if train => (norm.gain()?, norm.bias.clone()),
            Some(norm) => norm.folded(bias)?,
            None => (bias.ones_like()?, bias.clone()),
        })
    }

    /// What a chain takes beside the weights: [`affine`](Self::affine), and `1/tau` where it is learned.
    pub(super) fn affines(&self, train: bool) -> Result<Vec<Tensor>> {
        let (scale, shift) = self.affine(train)?;
        Ok([Some(scale), Some(shift), self.neurons.rate()?].into_iter().flatten().collect())
    }

    /// Counts its connections on a map of `source`: channels, rows, columns (a linear layer has one row and one column).
    ///
    /// # Errors
    /// Returns an error if the map does not fit.
    pub fn connections(&self, source: [usize; 3]) -> Result<Connections> {
        self.synapse.connections(source)
    }
}

fn checked(layer: impl Into<LayerConfig>) -> Result<LayerConfig> {
    let layer = layer.into();
    layer.validate()?;
    Ok(layer)
}
