//! Everything that defines a VQ-SVAE, as plain data.

use serde::{Deserialize, Serialize};
use snn_core::{Analog, LayerConfig, LifConfig, Norm, Readout};

use crate::choices::{Activation, DenseTerm, Reconstruction, Reduction, StraightThrough, WithoutSpikes};
use crate::error::{Error, Result};

/// The shape of the images that a VQ-SVAE is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Number of channels: 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Number of rows, divisible by 4.
    pub height: usize,
    /// Number of columns, divisible by 4.
    pub width: usize,
}

impl ImageSpec {
    /// The images of MNIST and its relatives.
    pub const MNIST: Self = Self { channels: 1, height: 28, width: 28 };
    /// The images of CIFAR-10.
    pub const CIFAR: Self = Self { channels: 3, height: 32, width: 32 };

    /// Rows and columns of the code map, a quarter of the image's.
    #[must_use]
    pub fn code_map(&self) -> (usize, usize) {
        (self.height / 4, self.width / 4)
    }
}

/// Describes a VQ-SVAE, its architecture and its loss.
///
/// [`paper`](Self::paper) follows the text of the paper, and [`released_code`](Self::released_code) its released code. Each
/// difference between them is one field here and one row of `docs/deviations.md`.
///
/// # Examples
/// ```
/// use vq_svae::{ImageSpec, VqSvaeConfig};
/// let cfg = VqSvaeConfig { time_steps: 4, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
/// cfg.validate().unwrap();
/// assert_eq!(cfg.image.code_map(), (7, 7));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqSvaeConfig {
    /// The shape of the images.
    pub image: ImageSpec,
    /// Spiking time steps `T_s`. The paper does not give the number; the released code has 16.
    pub time_steps: usize,
    /// The neurons of all layers.
    pub lif: LifConfig,
    /// Output channels of the encoder's two strided convolutions.
    pub encoder_channels: [usize; 2],
    /// Output channels of further 3x3 convolutions behind those two, at the code map's size (ours: the paper's and the released
    /// network have none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoder_hidden: Vec<usize>,
    /// Channels `C` of a code vector.
    pub code_channels: usize,
    /// Codebook size `K`.
    pub codes: usize,
    /// Output channels of further 3x3 convolutions at the code map's size, in front of the decoder's two strided ones (ours).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoder_hidden: Vec<usize>,
    /// Output channels of the decoder's two strided transposed convolutions.
    pub decoder_channels: [usize; 2],
    /// Standard deviation of the codebook's initial, normally distributed entries. The released code has 1, with which few codes
    /// are ever near a feature in [0, 1]; the paper does not give the number, and `paper` starts at 0.1.
    pub codebook_std: f64,
    /// The second feature of Eq. 6, beside the firing rate: `z^E = k SFR + (1 - k) features`.
    pub features: Readout,
    /// Initial value of the trainable `k` of Eq. 6.
    pub initial_k: f64,
    /// Synaptic time constant, in time steps, of the postsynaptic potentials (PSP) in the third and fourth term of the loss.
    pub tau_syn: f64,
    /// The sum over time that turns the decoder's last layer into an image, together with `output`.
    pub readout: Readout,
    /// How that sum becomes pixels.
    #[serde(default)]
    pub output: Activation,
    /// How far beyond black and white the decoder is to go, in training, where a pixel is quite black or white (ours): there the target of the
    /// first term of Eq. 9 is `-0.5 - margin` or `0.5 + margin`, and the image is clamped to that range instead of the pixels'. Evaluated it is
    /// clamped to [-0.5, 0.5], so that an error smaller than the margin is none. 0 unless set; wants an output of
    /// [`Activation::ClampedTanh`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub margin: f64,
    /// Where the gradient jumps over the quantiser.
    pub straight_through: StraightThrough,
    /// Whether Eq. 9 takes sums or means.
    pub reduction: Reduction,
    /// The first term of Eq. 9.
    pub reconstruction: Reconstruction,
    /// The second term of Eq. 9.
    pub dense: DenseTerm,
    /// The weight of the fourth term of Eq. 9.
    pub beta: f64,
    /// When codes that nothing is near to are moved to where features are; `None`: never, as in the paper and its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revival: Option<Revival>,
    /// Which network without spikes it is; `None`: the spiking one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_spikes: Option<WithoutSpikes>,
}

/// When training moves the codes that hardly any feature is near to onto features (ours; after Dhariwal et al. 2020).
///
/// A code that is the nearest of nothing gets no gradient from the dense term, and stays where it is; of 128 codes that start
/// at random, half or more do. [`VqSvae::revive_codes`](crate::VqSvae::revive_codes) moves them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revival {
    /// Steps between two revivals.
    pub every: usize,
    /// The share of the training after which there are no more, so that codes come to rest.
    pub until: f64,
}

impl Revival {
    /// Whether codes are revived before step `step`, counted from 0, of `total`.
    ///
    /// # Examples
    /// ```
    /// let revival = vq_svae::Revival { every: 100, until: 0.5 };
    /// assert!(revival.is_due(100, 1000) && !revival.is_due(150, 1000));
    /// assert!(!revival.is_due(0, 1000) && !revival.is_due(600, 1000));
    /// ```
    #[must_use]
    pub fn is_due(self, step: usize, total: usize) -> bool {
        step > 0 && step.is_multiple_of(self.every.max(1)) && step as f64 <= self.until * total as f64
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(x: &f64) -> bool {
    *x == 0.
}

/// Largest weight of a loss or feature, and spread of a codebook: f32 still holds the squares of their gradients.
const LARGEST: f64 = 1e6;
const LARGEST_MARGIN: f64 = 0.4;
const SMALLEST_VARIANCE: f64 = 1e-12;

impl VqSvaeConfig {
    /// The config of the paper's text. Where the paper gives no value, it has the released code's, except for `codebook_std`.
    #[must_use]
    pub fn paper(image: ImageSpec) -> Self {
        Self {
            image,
            time_steps: 16,
            lif: LifConfig::default(),
            encoder_channels: [32, 64],
            encoder_hidden: Vec::new(),
            code_channels: 16,
            codes: 128,
            decoder_hidden: Vec::new(),
            decoder_channels: [64, 32],
            codebook_std: 0.1,
            features: Readout::Psp { tau: 2. },
            initial_k: 0.5,
            tau_syn: 2.,
            readout: Readout::ExponentialSum { decay: 0.8 },
            output: Activation::Tanh,
            margin: 0.,
            straight_through: StraightThrough::Spikes,
            reduction: Reduction::Mean,
            reconstruction: Reconstruction::Plain,
            dense: DenseTerm::Unbalanced,
            beta: 0.25,
            revival: None,
            without_spikes: None,
        }
    }

    /// The config of the released PyTorch code. Its reconstruction term is divided by the variance of the training pixels, which
    /// is MNIST's here: set that of your own images.
    #[must_use]
    pub fn released_code(image: ImageSpec) -> Self {
        Self {
            codebook_std: 1.,
            features: Readout::ExponentialSum { decay: 0.8 },
            straight_through: StraightThrough::Embedding,
            reconstruction: Reconstruction::OverVariance { variance: 0.0949 },
            dense: DenseTerm::Balanced { commitment: 0.25 },
            ..Self::paper(image)
        }
    }

    /// Returns the twin without spikes of this network, with one time step.
    #[must_use]
    pub fn twin(self) -> Self {
        Self { time_steps: 1, without_spikes: Some(WithoutSpikes::Twin), ..self }
    }

    /// The VQ-VAE of the released code, with the sizes and the loss of its [spiking network](Self::released_code).
    #[must_use]
    pub fn vq_vae(image: ImageSpec) -> Self {
        Self {
            time_steps: 1,
            output: Activation::Linear,
            without_spikes: Some(WithoutSpikes::VqVae),
            ..Self::released_code(image)
        }
    }

    /// Norm and neurons of all layers but the encoder's last.
    pub(crate) fn layer(&self) -> LayerConfig {
        let layer = LayerConfig::from(self.lif);
        match self.without_spikes {
            None => layer,
            Some(WithoutSpikes::Twin) => layer.with_analog(Analog::Relu),
            Some(WithoutSpikes::VqVae) => layer.with_norm(Norm::None).with_analog(Analog::Relu),
        }
    }

    /// Those of the layer whose output becomes codes.
    pub(crate) fn last_of_encoder(&self) -> LayerConfig {
        if self.is_vq_vae() { self.layer().with_analog(Analog::Linear) } else { self.layer() }
    }

    pub(crate) fn is_vq_vae(&self) -> bool {
        self.without_spikes == Some(WithoutSpikes::VqVae)
    }

    /// Checks that a network of this config can be built and trained.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if there are no time steps or fewer than two codes, if the
    /// image's sides are not divisible by 4 or its channels are not 1 or 3, if a layer has no channels, if a constant is out
    /// of range, or if a network without spikes has more than one time step or its gradient another way past the quantiser.
    pub fn validate(&self) -> Result<()> {
        let ImageSpec { channels, height, width } = self.image;
        if channels != 1 && channels != 3 {
            return Err(Error::config("image.channels", channels, "must be 1 or 3"));
        }
        for (field, size) in [("image.height", height), ("image.width", width)] {
            if size == 0 || size % 4 != 0 {
                return Err(Error::config(field, size, "must be a positive multiple of 4"));
            }
        }
        if !(2..=u32::MAX as usize).contains(&self.codes) {
            return Err(Error::config(
                "codes",
                self.codes,
                "a codebook needs at least 2 codes, less than 2^32",
            ));
        }
        let sizes = [("time_steps", self.time_steps), ("code_channels", self.code_channels)];
        let layers = [
            ("encoder_channels", &self.encoder_channels[..]),
            ("encoder_hidden", &self.encoder_hidden),
            ("decoder_hidden", &self.decoder_hidden),
            ("decoder_channels", &self.decoder_channels),
        ];
        let layers =
            layers.into_iter().flat_map(|(field, sizes)| sizes.iter().map(move |&size| (field, size)));
        for (field, size) in sizes.into_iter().chain(layers) {
            if size == 0 {
                return Err(Error::config(field, size, "must be at least 1"));
            }
        }
        self.validate_numbers()
    }

    fn validate_numbers(&self) -> Result<()> {
        let mut weights = vec![("beta", self.beta), ("codebook_std", self.codebook_std)];
        if let DenseTerm::Balanced { commitment } = self.dense {
            weights.push(("dense.commitment", commitment));
        }
        for (field, value) in weights {
            if !(0. ..=LARGEST).contains(&value) {
                return Err(Error::config(field, value, "must be finite and not negative, at most 1e6"));
            }
        }
        if self.without_spikes.is_some() && self.time_steps != 1 {
            return Err(Error::config("time_steps", self.time_steps, "must be 1 without spikes"));
        }
        if self.is_vq_vae() && self.straight_through == StraightThrough::Spikes {
            let reason = "must be embedding: a VQ-VAE has no spikes between codes and decoder";
            return Err(Error::config("straight_through", "spikes", reason));
        }
        if self.output == Activation::ClampedTanh && self.reduction == Reduction::Sum {
            // The norm of no error at all, as of a black image, has no slope.
            return Err(Error::config("output", "clamped_tanh", "goes with reduction = mean only"));
        }
        if !(0. ..=LARGEST_MARGIN).contains(&self.margin) {
            let reason = format!("must lie in [0, {LARGEST_MARGIN}]: a tanh comes no further");
            return Err(Error::config("margin", self.margin, reason));
        }
        if self.margin > 0. && self.output != Activation::ClampedTanh {
            return Err(Error::config("margin", self.margin, "goes with output = clamped_tanh only"));
        }
        if let Some(Revival { every, until }) = self.revival {
            if every == 0 {
                return Err(Error::config("revival.every", every, "must be at least 1 step"));
            }
            if !(0. ..=1.).contains(&until) {
                return Err(Error::config("revival.until", until, "must lie in [0, 1]"));
            }
        }
        if !(-LARGEST..=LARGEST).contains(&self.initial_k) {
            return Err(Error::config("initial_k", self.initial_k, "must be finite, at most 1e6 in size"));
        }
        if let Reconstruction::OverVariance { variance } = self.reconstruction {
            let reason = match variance {
                0.0..1.0 => {
                    "must be positive, at least 1e-12: all training pixels are equal, or nearly; set vqsvae.reconstruction to plain"
                }
                _ => "must be positive and finite, at most 1e6",
            };
            if !(SMALLEST_VARIANCE..=LARGEST).contains(&variance) {
                return Err(Error::config("reconstruction.variance", variance, reason));
            }
        }
        let synapse = Readout::Psp { tau: self.tau_syn }.validate("vqsvae.tau_syn");
        synapse.map_err(|e| e.renamed("vqsvae.tau_syn.psp.tau", "vqsvae.tau_syn"))?;
        self.features.validate("vqsvae.features")?;
        self.readout.validate("vqsvae.readout")?;
        Ok(self.lif.validate().map_err(|e| e.within("vqsvae"))?)
    }
}
