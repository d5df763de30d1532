//! The spiking autoencoder around the latent variables, as plain data.

use serde::{Deserialize, Serialize};
use snn_core::{LayerConfig, LifConfig, Norm, Readout, Reset, Surrogate};

use crate::error::{Error, Result};

/// Describes the encoder that turns images into spikes of `C` latent neurons, and the decoder that turns spikes of `C` latent variables
/// into images.
///
/// # Examples
/// ```
/// use fsvae::BodyConfig;
/// assert_eq!(BodyConfig::table1().latent_map(), [16, 7, 7]);
/// assert_eq!(BodyConfig::original(3).latent_map(), [256, 2, 2]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyConfig {
    /// Channels, rows and columns of the images.
    pub image: [usize; 3],
    /// Spiking time steps `T`.
    pub time_steps: usize,
    /// Output channels of the encoder's 3x3 convolutions of stride 2.
    pub encoder: Vec<usize>,
    /// Output channels of a 1x1 convolution behind them, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<usize>,
    /// Output channels of the decoder's 3x3 transposed convolutions of stride 2, as many as the encoder has convolutions.
    pub decoder: Vec<usize>,
    /// Latent variables `C`.
    pub latent: usize,
    /// Norm and neurons of all convolutions.
    pub maps: LayerConfig,
    /// Norm and neurons of the linear layers that lead from maps to latent variables and back.
    pub linear: LayerConfig,
    /// The sum over time that turns the decoder's last layer into an image, together with a tanh.
    pub readout: Readout,
}

/// A layer of the FSVAE paper: threshold-dependent batch norm, and neurons of its own.
pub(crate) fn original_layer(alpha: f64) -> LayerConfig {
    let v_threshold = 0.2;
    // u_t = u_{t-1} (1 - o_{t-1}) / 4 + x_t; a spike if it lies above the threshold; the gradient of a window around u = 0.
    let neuron = LifConfig {
        tau: Some(4. / 3.),
        v_threshold,
        v_reset: Reset::Hard(0.),
        decay_input: false,
        detach_reset: false,
        surrogate: Surrogate::Window { centre: 0., width: 1., height: 1. },
        strict_threshold: true,
    };
    LayerConfig::from(neuron).with_norm(Norm::ThresholdDependent { alpha, v_threshold })
}

/// A layer of the released Spiking-Diffusion code without a norm.
pub(crate) fn bare_layer() -> LayerConfig {
    LayerConfig::from(LifConfig::default()).with_norm(Norm::None)
}

impl BodyConfig {
    /// Encoder and decoder of the released Spiking-Diffusion code's VQ-SVAE, for images of 1 x 28 x 28 in [-0.5, 0.5], and linear layers
    /// without a norm to 56 latent variables and back.
    #[must_use]
    pub fn table1() -> Self {
        Self {
            image: [1, 28, 28],
            time_steps: 16,
            encoder: vec![32, 64],
            mix: Some(16),
            decoder: vec![64, 32],
            latent: 56,
            maps: LifConfig::default().into(),
            linear: bare_layer(),
            readout: Readout::ExponentialSum { decay: 0.8 },
        }
    }

    /// That of the FSVAE paper, for images of 32 x 32 in [-1, 1] and 128 latent variables.
    #[must_use]
    pub fn original(channels: usize) -> Self {
        Self {
            image: [channels, 32, 32],
            encoder: vec![32, 64, 128, 256],
            mix: None,
            decoder: vec![128, 64, 32, 32],
            latent: 128,
            maps: original_layer(1.),
            linear: original_layer(1.),
            ..Self::table1()
        }
    }

    /// [`original`](Self::original) for images of 64 x 64, with one layer of 512 channels more on both sides.
    #[must_use]
    pub fn original_large(channels: usize) -> Self {
        Self {
            image: [channels, 64, 64],
            encoder: vec![32, 64, 128, 256, 512],
            decoder: vec![256, 128, 64, 32, 32],
            ..Self::original(channels)
        }
    }

    /// Channels, rows and columns of the spikes between the convolutions and the linear layers.
    #[must_use]
    pub fn latent_map(&self) -> [usize; 3] {
        let [channels, height, width] = self.image;
        let halvings = u32::try_from(self.encoder.len()).ok();
        let halved = |side: usize| halvings.and_then(|n| side.checked_shr(n)).unwrap_or(0);
        let channels = self.mix.or(self.encoder.last().copied()).unwrap_or(channels);
        [channels, halved(height), halved(width)]
    }

    /// Rejects what cannot be built, by its field in the config of `model`.
    pub(crate) fn validate(&self, model: &str) -> Result<()> {
        let name = |field: &str| format!("{model}.body.{field}");
        let lists = [("encoder", &self.encoder), ("decoder", &self.decoder)];
        let listed =
            lists.into_iter().flat_map(|(field, sizes)| sizes.iter().map(move |size| (field, *size)));
        let sizes = [("time_steps", self.time_steps), ("latent", self.latent)].into_iter();
        let sizes =
            sizes.chain(self.mix.map(|size| ("mix", size))).chain(self.image.map(|size| ("image", size)));
        if let Some((field, size)) = sizes.chain(listed).find(|(_, size)| *size == 0) {
            return Err(Error::config(name(field), size, "must be at least 1"));
        }
        let layers = self.encoder.len();
        if layers == 0 || layers != self.decoder.len() {
            let reason =
                format!("must have at least one layer, and as many as the encoder, which has {layers}");
            return Err(Error::config(name("decoder"), self.decoder.len(), reason));
        }
        let ([_, height, width], [_, rows, columns]) = (self.latent_map(), self.image);
        let whole = |small: usize, large| small > 0 && small.checked_shl(layers as u32) == Some(large);
        if !(whole(height, rows) && whole(width, columns)) {
            let reason = format!("rows and columns must be divisible by 2^{layers}");
            return Err(Error::config(name("image"), format!("{:?}", self.image), reason));
        }
        for (field, layer) in [("maps", self.maps), ("linear", self.linear)] {
            layer.validate().map_err(|e| e.within(&name(field)))?;
        }
        Ok(self.readout.validate(&name("readout"))?)
    }
}
