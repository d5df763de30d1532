//! Everything that defines an FSVAE, as plain data.

use serde::{Deserialize, Serialize};
use snn_core::{LayerConfig, LifConfig, Norm, Readout, Reset, Surrogate};

use crate::error::{Error, Result};

/// The second term of the loss: how far the latent variables given the image are from those that the prior expects.
///
/// Both are rates, `q` and `p`, `[T, N, C]`: the mean of the candidates of each latent variable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// `mean (PSP(q) - PSP(p))^2`, the maximum mean discrepancy of their postsynaptic potentials.
    Mmd {
        /// Synaptic time constant of the potentials, in time steps.
        tau: f64,
    },
    /// `weight mean_n sum_{t, c} KL(q, p)` of Bernoulli variables, `floor` added to each probability inside the logarithms only.
    Kld {
        /// What the divergence is multiplied by.
        weight: f64,
        /// What keeps the logarithms finite.
        floor: f64,
    },
}

/// How the prior comes to see its own draws in training, in the place of the posterior's.
///
/// At each time step `t >= first_step` but the last, with the probability of the epoch and for the whole batch, `z_t` becomes
/// `mean_k p_t + noise N(0, 1) > 1/2`, where `p_t` are the prior's own candidates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledSampling {
    /// The first time step, counted from 0, that may be replaced.
    pub first_step: usize,
    /// The probability in the first epoch.
    pub start: f64,
    /// The probability towards which it grows, by equal steps an epoch.
    pub end: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

impl ScheduledSampling {
    /// The probability in epoch `epoch`, counted from 0, of `epochs`.
    ///
    /// # Examples
    /// ```
    /// let scheduled = fsvae::FsvaeConfig::original(1).scheduled.unwrap();
    /// assert_eq!((scheduled.probability(0, 150), scheduled.probability(75, 150)), (0.1, 0.2));
    /// ```
    pub fn probability(&self, epoch: usize, epochs: usize) -> f64 {
        self.start + (self.end - self.start) * (epoch as f64 / epochs.max(1) as f64)
    }
}

/// Describes an FSVAE, its architecture and its loss.
///
/// [`table1`](Self::table1) is the network that the Spiking-Diffusion paper's Table 1 compares with, [`original`](Self::original) that
/// of the FSVAE paper.
///
/// # Examples
/// ```
/// use fsvae::FsvaeConfig;
/// let cfg = FsvaeConfig { time_steps: 8, ..FsvaeConfig::original(3) };
/// cfg.validate().unwrap();
/// assert_eq!(cfg.latent_map(), [256, 2, 2]);
/// assert_eq!(FsvaeConfig::table1().latent_map(), [16, 7, 7]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsvaeConfig {
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
    /// Candidates `k` for each latent variable at each time step, of which one is picked at random.
    pub candidates: usize,
    /// Widths of the layers of prior and posterior in front of their last ones.
    pub hidden: Vec<usize>,
    /// Norm and neurons of all convolutions.
    pub maps: LayerConfig,
    /// Norm and neurons of the linear layers that lead from maps to latent variables and back.
    pub linear: LayerConfig,
    /// Norm and neurons of prior and posterior.
    pub chains: LayerConfig,
    /// The sum over time that turns the decoder's last layer into an image, together with a tanh.
    pub readout: Readout,
    /// The second term of the loss.
    pub divergence: Divergence,
    /// Whether the prior is trained on its own draws too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<ScheduledSampling>,
}

impl FsvaeConfig {
    /// The network of the released Spiking-Diffusion code: encoder and decoder of its VQ-SVAE for images of 1 x 28 x 28 in
    /// [-0.5, 0.5], and between them linear layers without a norm.
    ///
    /// Its scheduled sampling is never switched on there (a misspelt name), and so there is none here.
    pub fn table1() -> Self {
        let lif = LifConfig::default();
        let bare = LayerConfig::from(lif).with_norm(Norm::None);
        Self {
            image: [1, 28, 28],
            time_steps: 16,
            encoder: vec![32, 64],
            mix: Some(16),
            decoder: vec![64, 32],
            latent: 56,
            candidates: 20,
            hidden: vec![112, 224],
            maps: lif.into(),
            linear: bare,
            chains: bare,
            readout: Readout::ExponentialSum { decay: 0.8 },
            divergence: Divergence::Mmd { tau: 2. },
            scheduled: None,
        }
    }

    /// The network of the FSVAE paper (Kamata, Mukuta, Harada 2022) for images of 32 x 32 in [-1, 1]: threshold-dependent batch norm
    /// everywhere, and neurons of its own.
    pub fn original(channels: usize) -> Self {
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
        let layer =
            |alpha| LayerConfig::from(neuron).with_norm(Norm::ThresholdDependent { alpha, v_threshold });
        Self {
            image: [channels, 32, 32],
            encoder: vec![32, 64, 128, 256],
            mix: None,
            decoder: vec![128, 64, 32, 32],
            latent: 128,
            hidden: vec![256, 512],
            maps: layer(1.),
            linear: layer(1.),
            chains: layer(2.),
            scheduled: Some(ScheduledSampling { first_step: 5, start: 0.1, end: 0.3, noise: 1e-3 }),
            ..Self::table1()
        }
    }

    /// [`original`](Self::original) for images of 64 x 64, with one layer of 512 channels more on both sides.
    pub fn original_large(channels: usize) -> Self {
        Self {
            image: [channels, 64, 64],
            encoder: vec![32, 64, 128, 256, 512],
            decoder: vec![256, 128, 64, 32, 32],
            ..Self::original(channels)
        }
    }

    /// Channels, rows and columns of the spikes between the convolutions and the linear layers.
    pub fn latent_map(&self) -> [usize; 3] {
        let [channels, height, width] = self.image;
        let halved = |side: usize| {
            u32::try_from(self.encoder.len()).ok().and_then(|n| side.checked_shr(n)).unwrap_or(0)
        };
        let channels = self.mix.or(self.encoder.last().copied()).unwrap_or(channels);
        [channels, halved(height), halved(width)]
    }

    /// Checks that a network of this config can be built and trained.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if there are no time steps, channels, latent variables or candidates,
    /// if encoder and decoder have not equally many layers or halve the image to no whole number of rows or columns, or if a layer, a
    /// read-out or a constant is out of range.
    pub fn validate(&self) -> Result<()> {
        let lists = [("encoder", &self.encoder), ("decoder", &self.decoder), ("hidden", &self.hidden)];
        let listed =
            lists.into_iter().flat_map(|(field, sizes)| sizes.iter().map(move |size| (field, *size)));
        let sizes =
            [("time_steps", self.time_steps), ("latent", self.latent), ("candidates", self.candidates)];
        let sizes = sizes
            .into_iter()
            .chain(self.mix.map(|size| ("mix", size)))
            .chain(self.image.map(|size| ("image", size)));
        if let Some((field, size)) = sizes.chain(listed).find(|(_, size)| *size == 0) {
            return Err(Error::config(field, size, "must be at least 1"));
        }
        if self.encoder.is_empty() || self.encoder.len() != self.decoder.len() {
            let reason = format!(
                "must have at least one layer, and as many as the encoder, which has {}",
                self.encoder.len()
            );
            return Err(Error::config("decoder", self.decoder.len(), reason));
        }
        let [_, height, width] = self.latent_map();
        let [_, rows, columns] = self.image;
        let whole =
            |small: usize, large| small > 0 && small.checked_shl(self.encoder.len() as u32) == Some(large);
        if !(whole(height, rows) && whole(width, columns)) {
            let reason = format!("rows and columns must be divisible by 2^{}", self.encoder.len());
            return Err(Error::config("image", format!("{:?}", self.image), reason));
        }
        for (field, layer) in [("maps", self.maps), ("linear", self.linear), ("chains", self.chains)] {
            layer.validate().map_err(|e| e.within(&format!("fsvae.{field}")))?;
        }
        self.readout.validate("fsvae.readout")?;
        self.validate_loss()
    }

    fn validate_loss(&self) -> Result<()> {
        let positive = |field: &str, value: f64| match value {
            value if value.is_finite() && value > 0. => Ok(()),
            _ => Err(Error::config(field, value, "must be positive and finite")),
        };
        match self.divergence {
            Divergence::Mmd { tau } => Readout::Psp { tau }.validate("fsvae.divergence.mmd")?,
            Divergence::Kld { weight, floor } => {
                positive("divergence.kld.weight", weight)?;
                positive("divergence.kld.floor", floor)?;
            }
        }
        let Some(ScheduledSampling { start, end, noise, .. }) = self.scheduled else { return Ok(()) };
        for (field, value) in [("scheduled.start", start), ("scheduled.end", end)] {
            if !(0. ..=1.).contains(&value) {
                return Err(Error::config(field, value, "must lie in [0, 1]"));
            }
        }
        if !(noise.is_finite() && noise >= 0.) {
            return Err(Error::config("scheduled.noise", noise, "must be finite and not negative"));
        }
        Ok(())
    }
}
