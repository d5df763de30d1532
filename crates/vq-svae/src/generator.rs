//! The adaptive spike generator (ASG): a code vector becomes a spike train again.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use snn_core::{Connections, ConvConfig, SpikingLayer};

use crate::VqSvaeConfig;

/// Turns the code vectors `z^Q` into spikes: one spiking 1x1 layer, driven by them as a constant current.
#[derive(Debug)]
pub(crate) struct Generator {
    layer: SpikingLayer,
    time_steps: usize,
}

impl Generator {
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let (c, mix) = (cfg.code_channels, ConvConfig::new(1, 1, 0));
        Ok(Self { layer: SpikingLayer::conv(c, c, mix, cfg.layer(), vb)?, time_steps: cfg.time_steps })
    }

    pub(crate) fn map_layers(
        self,
        change: &mut dyn FnMut(&str, SpikingLayer) -> Result<SpikingLayer>,
    ) -> Result<Self> {
        Ok(Self { layer: change("generator", self.layer)?, ..self })
    }

    pub(crate) fn layer(&self) -> &SpikingLayer {
        &self.layer
    }

    pub(crate) fn connections(&self, code: [usize; 3]) -> Result<Connections> {
        self.layer.connections(code)
    }

    /// `[N, C, H', W']` -> `[T, N, C, H', W']`.
    pub(crate) fn forward_t(&self, z: &Tensor, train: bool) -> Result<Tensor> {
        self.layer.forward_constant(z, self.time_steps, train)
    }
}
