//! Everything that defines an FSVAE, as plain data.

use serde::{Deserialize, Serialize};
use snn_core::{LayerConfig, Readout};

use crate::body::{BodyConfig, bare_layer, original_layer};
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

/// How the prior comes to see its own draws in training, instead of the posterior's.
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
    #[must_use]
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
/// let mut cfg = FsvaeConfig::original(3);
/// cfg.body.time_steps = 8;
/// cfg.validate().unwrap();
/// assert_eq!((cfg.body.latent, cfg.candidates), (128, 20));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsvaeConfig {
    /// Encoder and decoder.
    pub body: BodyConfig,
    /// Candidates `k` for each latent variable at each time step, of which one is picked at random.
    pub candidates: usize,
    /// Widths of the layers of prior and posterior in front of their last ones.
    pub hidden: Vec<usize>,
    /// Norm and neurons of prior and posterior.
    pub chains: LayerConfig,
    /// The second term of the loss.
    pub divergence: Divergence,
    /// Whether the prior is trained on its own draws too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<ScheduledSampling>,
}

/// A pick of one is a number of 32 bits, and each has weights.
const MOST_CANDIDATES: usize = 1 << 24;

impl FsvaeConfig {
    /// The network of the released Spiking-Diffusion code: encoder and decoder of its VQ-SVAE, and between them linear layers without a
    /// norm.
    ///
    /// Its scheduled sampling is never switched on there (a misspelt name), and so there is none here.
    #[must_use]
    pub fn table1() -> Self {
        Self {
            body: BodyConfig::table1(),
            candidates: 20,
            hidden: vec![112, 224],
            chains: bare_layer(),
            divergence: Divergence::Mmd { tau: 2. },
            scheduled: None,
        }
    }

    /// The network of the FSVAE paper (Kamata, Mukuta, Harada 2022): threshold-dependent batch norm everywhere, and neurons of its own.
    #[must_use]
    pub fn original(channels: usize) -> Self {
        Self {
            body: BodyConfig::original(channels),
            hidden: vec![256, 512],
            chains: original_layer(2.),
            scheduled: Some(ScheduledSampling { first_step: 5, start: 0.1, end: 0.3, noise: 1e-3 }),
            ..Self::table1()
        }
    }

    /// [`original`](Self::original) for images of 64 x 64, with one layer of 512 channels more on both sides.
    #[must_use]
    pub fn original_large(channels: usize) -> Self {
        Self { body: BodyConfig::original_large(channels), ..Self::original(channels) }
    }

    /// Checks that a network of this config can be built and trained.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if there are no time steps, channels, latent variables or candidates,
    /// if encoder and decoder have not equally many layers or halve the image to no whole number of rows or columns, or if a layer, a
    /// read-out or a constant is out of range.
    pub fn validate(&self) -> Result<()> {
        self.body.validate("fsvae")?;
        let hidden = self.hidden.iter().map(|size| ("hidden", *size));
        if let Some((field, size)) =
            hidden.chain([("candidates", self.candidates)]).find(|(_, size)| *size == 0)
        {
            return Err(Error::config(format!("fsvae.{field}"), size, "must be at least 1"));
        }
        if self.candidates > MOST_CANDIDATES {
            let reason = format!("must be at most {MOST_CANDIDATES}");
            return Err(Error::config("fsvae.candidates", self.candidates, reason));
        }
        self.chains.validate().map_err(|e| e.within("fsvae.chains"))?;
        self.validate_loss()
    }

    fn validate_loss(&self) -> Result<()> {
        let positive = |field: &str, value: f64| match value {
            value if value.is_finite() && value > 0. => Ok(()),
            _ => Err(Error::config(format!("fsvae.{field}"), value, "must be positive and finite")),
        };
        match self.divergence {
            Divergence::Mmd { tau } => Readout::Psp { tau }
                .validate("fsvae.divergence.mmd")
                .map_err(|e| e.renamed("fsvae.divergence.mmd.psp", "fsvae.divergence.mmd"))?,
            Divergence::Kld { weight, floor } => {
                positive("divergence.kld.weight", weight)?;
                positive("divergence.kld.floor", floor)?;
            }
        }
        let Some(ScheduledSampling { start, end, noise, .. }) = self.scheduled else { return Ok(()) };
        for (field, value) in [("scheduled.start", start), ("scheduled.end", end)] {
            if !(0. ..=1.).contains(&value) {
                return Err(Error::config(format!("fsvae.{field}"), value, "must lie in [0, 1]"));
            }
        }
        if !(noise.is_finite() && noise >= 0.) {
            return Err(Error::config("fsvae.scheduled.noise", noise, "must be finite and not negative"));
        }
        Ok(())
    }
}
