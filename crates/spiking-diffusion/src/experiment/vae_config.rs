//! What a run of a variational autoencoder depends on, as plain data.

use fsvae::{BodyConfig, Esvae, EsvaeConfig, Fsvae, FsvaeConfig};
use serde::{Deserialize, Serialize};
use snn_core::Model;
use snn_train::TrainingConfig;

use crate::error::{Error, Result};

/// Describes the network of a run that trains one network, which draws images by its own prior.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// The network.
    pub network: VaeNetwork,
    /// The largest pixel that it is shown, and minus the smallest: 0.5, or 1 in the FSVAE and ESVAE papers. Its loss is one of these
    /// pixels; what is measured is measured in [-0.5, 0.5].
    pub largest_pixel: f64,
    /// The probability that a training image is flipped, left to right, each time that it is shown. `None` flips none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<f64>,
    /// Its training.
    pub training: TrainingConfig,
}

/// Describes a variational autoencoder of spiking layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum VaeNetwork {
    /// An FSVAE.
    Fsvae(FsvaeConfig),
    /// An ESVAE.
    Esvae(EsvaeConfig),
}

impl VaeNetwork {
    fn body(&self) -> &BodyConfig {
        match self {
            Self::Fsvae(cfg) => &cfg.body,
            Self::Esvae(cfg) => &cfg.body,
        }
    }

    /// Returns channels, rows and columns of its images.
    #[must_use]
    pub fn image(&self) -> [usize; 3] {
        self.body().image
    }

    /// The kind of its checkpoints, which names its stage, its files and, in reports, its layers.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Fsvae(_) => Fsvae::KIND,
            Self::Esvae(_) => Esvae::KIND,
        }
    }

    fn validate(&self) -> Result<()> {
        let valid = match self {
            Self::Fsvae(cfg) => cfg.validate(),
            Self::Esvae(cfg) => cfg.validate(),
        };
        valid.map_err(|e| match e {
            fsvae::Error::Core(e) => e.within("vae.network").into(),
            e => Error::from(e),
        })
    }
}

impl VaeConfig {
    /// How many times the pixels of images are those that the network sees.
    pub(super) fn scale(&self) -> f64 {
        2. * self.largest_pixel
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.network.validate()?;
        if let Some(shards) = self.training.shards.filter(|&shards| shards > 1) {
            let reason = "its losses compare whole batches: it trains with one worker, and without shards";
            return Err(Error::config("vae.training.shards", shards, reason));
        }
        if !(self.largest_pixel.is_finite() && self.largest_pixel > 0.) {
            return Err(Error::config(
                "vae.largest_pixel",
                self.largest_pixel,
                "must be positive and finite",
            ));
        }
        if let Some(flip) = self.flip.filter(|flip| !(0. ..=1.).contains(flip)) {
            return Err(Error::config("vae.flip", flip, "must lie in [0, 1]"));
        }
        Ok(())
    }

    /// The largest numbers of elements that a training step, or a batch of so many, keeps, by the field that sets them.
    pub(super) fn largest(&self, batch: usize) -> [(&'static str, [usize; 4]); 2] {
        let body = self.network.body();
        let widest = body.encoder.iter().chain(&body.decoder).chain(&body.mix).max().copied().unwrap_or(1);
        let batch = batch.max(self.training.batch_size);
        let [_, height, width] = body.image;
        let candidates = match &self.network {
            VaeNetwork::Fsvae(cfg) => cfg.candidates,
            VaeNetwork::Esvae(_) => 1,
        };
        let (maps, latent) = ("vae.network.body", "vae.network.body.latent");
        [
            (maps, [body.time_steps, batch, widest, height.saturating_mul(width)]),
            (latent, [body.time_steps, batch, body.latent, candidates]),
        ]
    }
}
