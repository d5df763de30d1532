//! Spikes to an image.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use snn_core::{Connections, ConvConfig, Drive, Observer, Readout, ReadoutLayer, SpikingLayer, SpikingStack};

use crate::{Activation, VqSvaeConfig};

/// Turns spikes into an image: hidden spiking layers, two that double the map, then a read-out and its [`Activation`].
#[derive(Debug)]
pub(crate) struct Decoder {
    layers: SpikingStack,
    head: ReadoutLayer,
    output: Activation,
    /// In training.
    margin: f64,
}

impl Decoder {
    /// Builds the decoder with the layers' parameters from `vb`, and the read-out's from `head`.
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>, head: VarBuilder<'_>) -> Result<Self> {
        let (same, double) = (ConvConfig::new(3, 1, 1), ConvConfig::new(3, 2, 1).with_output_padding(1));
        let (mut layers, mut from) = (Vec::new(), cfg.code_channels);
        for &channels in &cfg.decoder_hidden {
            layers.push(SpikingLayer::conv(from, channels, same, cfg.layer(), vb.pp(layers.len()))?);
            from = channels;
        }
        for channels in cfg.decoder_channels {
            layers.push(SpikingLayer::conv_transpose(
                from,
                channels,
                double,
                cfg.layer(),
                vb.pp(layers.len()),
            )?);
            from = channels;
        }
        Ok(Self {
            layers: SpikingStack::new(layers),
            head: ReadoutLayer::conv_transpose(from, cfg.image.channels, same, cfg.readout, head)?,
            output: cfg.output,
            margin: cfg.margin,
        })
    }

    pub(crate) fn map_layers(
        self,
        change: &mut dyn FnMut(&str, SpikingLayer) -> Result<SpikingLayer>,
    ) -> Result<Self> {
        let layers = self.layers.map_layers(|i, layer| change(&format!("decoder.{i}"), layer))?;
        Ok(Self { layers, ..self })
    }

    pub(crate) fn layers(&self) -> &[SpikingLayer] {
        self.layers.layers()
    }

    /// The sum over time of the last layer's spikes from which [`image`](Self::image) goes on.
    pub(crate) fn readout(&self) -> Readout {
        self.head.readout()
    }

    /// Makes the image from that sum, `[N, C, 4H', 4W']`.
    pub(crate) fn image(&self, sum: &Tensor, time_steps: usize, train: bool) -> Result<Tensor> {
        self.pixels(&self.head.forward_sums(std::slice::from_ref(sum), time_steps)?, train)
    }

    /// The connections of the spiking layers, and those of the read-out.
    pub(crate) fn connections(&self, code: [usize; 3]) -> Result<(Vec<Connections>, Connections)> {
        let layers = self.layers.connections(code)?;
        let head = self.head.connections(layers.last().map_or(code, Connections::target))?;
        Ok((layers, head))
    }

    /// `[T, N, C, H', W']` -> `[N, channels, 4H', 4W']` in the range of the [`Activation`].
    pub(crate) fn forward_t(
        &self,
        spikes: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let drive = Drive::Spikes(spikes);
        let Some(observe) = observe else {
            let sum = self.layers.readout(drive, self.readout(), train)?;
            return self.image(&sum, spikes.dim(0)?, train);
        };
        let mut name = |i: usize, spikes: &Tensor| observe(&format!("decoder.{i}"), spikes);
        self.pixels(&self.head.forward(&self.layers.forward_observed(drive, train, &mut name)?)?, train)
    }

    fn pixels(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.output.pixels(x, if train { self.margin } else { 0. })
    }
}
