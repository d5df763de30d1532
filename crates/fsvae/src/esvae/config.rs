//! Everything that defines an ESVAE, as plain data.

use serde::{Deserialize, Serialize};

use crate::BodyConfig;
use crate::error::{Error, Result};

/// Describes an [`Esvae`](crate::Esvae), its architecture and its loss.
///
/// # Examples
/// ```
/// use fsvae::EsvaeConfig;
/// let cfg = EsvaeConfig::original(1);
/// cfg.validate().unwrap();
/// assert_eq!(cfg.body.latent, 32);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EsvaeConfig {
    /// Encoder and decoder.
    pub body: BodyConfig,
    /// Weight of the distance between the rates of posterior and prior.
    pub weight: f64,
    /// Gaussian kernels of that distance, each twice as wide as the one before; the middle one's width is the mean squared distance.
    pub bandwidths: usize,
}

impl EsvaeConfig {
    /// The network of the ESVAE paper (Zhan et al. 2023) for images of 32 x 32 in [-1, 1]: the FSVAE paper's, with 32 latent variables.
    #[must_use]
    pub fn original(channels: usize) -> Self {
        Self {
            body: BodyConfig { latent: 32, ..BodyConfig::original(channels) },
            weight: 1e-3,
            bandwidths: 5,
        }
    }

    /// Checks that a network of this config can be built and trained.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if encoder and decoder cannot be built (see
    /// [`FsvaeConfig::validate`](crate::FsvaeConfig::validate)), if the weight is negative or not finite, or if there are no kernels or more than
    /// 64.
    pub fn validate(&self) -> Result<()> {
        self.body.validate("esvae")?;
        if !(self.weight.is_finite() && self.weight >= 0.) {
            return Err(Error::config("esvae.weight", self.weight, "must be finite and not negative"));
        }
        if !(1..=64).contains(&self.bandwidths) {
            return Err(Error::config(
                "esvae.bandwidths",
                self.bandwidths,
                "must be at least 1 and at most 64",
            ));
        }
        Ok(())
    }
}
