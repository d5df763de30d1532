//! Spikes to an image.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use snn_core::{ConvConfig, Observer, ReadoutLayer, SpikingLayer};

use crate::VqSvaeConfig;

/// Two spiking layers that double the map, then a read-out and `tanh`.
#[derive(Debug)]
pub(crate) struct Decoder {
    layers: [SpikingLayer; 2],
    head: ReadoutLayer,
}

impl Decoder {
    /// `vb` for the layers, `head` for the read-out.
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>, head: VarBuilder<'_>) -> Result<Self> {
        let [c1, c2] = cfg.decoder_channels;
        let double = ConvConfig::new(3, 2, 1).with_output_padding(1);
        let layers = [
            SpikingLayer::conv_transpose(cfg.code_channels, c1, double, cfg.lif, vb.pp(0))?,
            SpikingLayer::conv_transpose(c1, c2, double, cfg.lif, vb.pp(1))?,
        ];
        let same = ConvConfig::new(3, 1, 1);
        Ok(Self {
            layers,
            head: ReadoutLayer::conv_transpose(c2, cfg.image.channels, same, cfg.readout, head)?,
        })
    }

    /// `[T, N, C, H', W']` -> `[N, channels, 4H', 4W']` in (-1, 1).
    pub(crate) fn forward_t(
        &self,
        spikes: &Tensor,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let mut xs = spikes.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward_t(&xs, train)?;
            observe(&format!("decoder.{i}"), &xs)?;
        }
        self.head.forward(&xs)?.tanh()
    }
}
