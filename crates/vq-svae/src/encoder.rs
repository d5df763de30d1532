//! Image to spikes, and spikes to dense features.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use snn_core::{Connections, ConvConfig, Drive, Observer, Readout, SpikingLayer, SpikingStack, lerp};

use crate::VqSvaeConfig;

/// Turns an image into spikes: two spiking layers that halve the image, hidden ones, and one that sets the
/// number of channels.
#[derive(Debug)]
pub(crate) struct Encoder {
    layers: SpikingStack,
    time_steps: usize,
}

impl Encoder {
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let (halve, same, mix) =
            (ConvConfig::new(3, 2, 1), ConvConfig::new(3, 1, 1), ConvConfig::new(1, 1, 0));
        let (layer, last) = (cfg.layer(), cfg.last_of_encoder());
        let strided = cfg.encoder_channels.iter().map(|&channels| (channels, halve, layer));
        let hidden = cfg.encoder_hidden.iter().map(|&channels| (channels, same, layer));
        let (mut layers, mut from) = (Vec::new(), cfg.image.channels);
        let all = strided.chain(hidden).chain([(cfg.code_channels, mix, last)]);
        for (i, (channels, conv, layer)) in all.enumerate() {
            layers.push(SpikingLayer::conv(from, channels, conv, layer, vb.pp(i))?);
            from = channels;
        }
        Ok(Self { layers: SpikingStack::new(layers), time_steps: cfg.time_steps })
    }

    pub(crate) fn map_layers(
        self,
        change: &mut dyn FnMut(&str, SpikingLayer) -> Result<SpikingLayer>,
    ) -> Result<Self> {
        let layers = self.layers.map_layers(|i, layer| change(&format!("encoder.{i}"), layer))?;
        Ok(Self { layers, ..self })
    }

    /// Sums the last layer's spikes over time, with running statistics: `[N, channels, H, W]` -> `[readouts, N, C, H/4, W/4]`.
    pub(crate) fn readouts(&self, images: &Tensor, readouts: &[Readout]) -> Result<Tensor> {
        self.layers.readouts(Drive::Constant(images, self.time_steps), readouts, false)
    }

    pub(crate) fn connections(&self, image: [usize; 3]) -> Result<Vec<Connections>> {
        self.layers.connections(image)
    }

    /// `[N, channels, H, W]` -> `[T, N, C, H/4, W/4]`.
    pub(crate) fn forward_t(
        &self,
        images: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let drive = Drive::Constant(images, self.time_steps);
        match observe {
            Some(observe) => {
                let mut name = |i: usize, spikes: &Tensor| observe(&format!("encoder.{i}"), spikes);
                self.layers.forward_observed(drive, train, &mut name)
            }
            None => self.layers.forward(drive, train),
        }
    }
}

/// Turns spikes into dense features by Eq. 6, `z^E = k SFR + (1 - k) PSP`, with a trainable scalar `k`. A VQ-VAE has none: its features
/// are the encoder's output.
#[derive(Debug)]
pub(crate) struct Features {
    k: Option<Tensor>,
    second: Readout,
}

impl Features {
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let k = match cfg.is_vq_vae() {
            true => None,
            false => Some(vb.get_with_hints(1, "k", Init::Const(cfg.initial_k))?),
        };
        Ok(Self { k, second: cfg.features })
    }

    /// The two sums over time that [`mix`](Self::mix) mixes.
    pub(crate) fn readouts(&self) -> [Readout; 2] {
        [Readout::Mean, self.second]
    }

    /// `[T, N, C, H', W']` -> `[N, C, H', W']`.
    pub(crate) fn forward(&self, spikes: &Tensor) -> Result<Tensor> {
        self.mix(&Readout::apply_all(&self.readouts(), spikes)?)
    }

    /// Makes the features from both sums, `[2, N, C, H', W']`.
    pub(crate) fn mix(&self, sums: &Tensor) -> Result<Tensor> {
        match &self.k {
            Some(k) => lerp(sums, k),
            None => sums.get(0),
        }
    }
}
