//! The presets of the models that the paper's is compared with.

use absorbing_diffusion::SdidConfig;
use fsvae::{EsvaeConfig, FsvaeConfig};
use snn_core::AdamWConfig;
use snn_train::TrainingConfig;
use vq_svae::{ImageSpec, VqSvaeConfig};

use super::config::{ClassesFrom, ExperimentConfig, Preset};
use super::model::ModelName;
use super::vae_config::{VaeConfig, VaeNetwork};
use crate::data::{Dataset, KnownSet};
use crate::error::Result;

impl ExperimentConfig {
    /// Makes the preset's config of any model for a data set, as [`for_data`](Self::for_data) does for the paper's.
    ///
    /// # Errors
    /// Returns an error if pixels cannot be read.
    /// # Examples
    /// ```
    /// use spiking_diffusion::{ExperimentConfig, ModelName, Preset, data};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let digits = data::mnist(None)?;
    /// let cfg = ExperimentConfig::for_model(ModelName::Fsvae, Preset::Quick, &digits)?;
    /// let cfg = cfg.with("vae.training.epochs", "3")?;
    /// assert!(cfg.with("sdid.classes", "10").is_err()); // which has no codes
    /// # Ok(()) }
    /// ```
    pub fn for_model(model: ModelName, preset: Preset, data: &Dataset) -> Result<Self> {
        let (channels, height, width) = data.image();
        Self::of_model(model, preset, ImageSpec { channels, height, width })
            .published_for(&data.name)
            .on(data)
    }

    /// The same config with what the model's authors do with the data set of this name alone: they flip the training images of CIFAR-10.
    pub(super) fn published_for(mut self, data: &str) -> Self {
        let flips = matches!(self.model, ModelName::FsvaeOriginal | ModelName::Esvae);
        if let (true, Some(vae)) = (flips && data == KnownSet::Cifar10.name(), &mut self.vae) {
            vae.flip = Some(0.5);
        }
        self
    }

    /// Makes the preset's config of any model for images of this shape.
    #[must_use]
    pub fn of_model(model: ModelName, preset: Preset, image: ImageSpec) -> Self {
        let cfg = Self { model, vae: VaeConfig::of(model, preset, image), ..Self::new(preset, image) };
        match model {
            _ if cfg.vae.is_some() => {
                // Which has no denoiser to tell classes.
                let sdid = SdidConfig { classes: None, ..cfg.sdid };
                Self { sdid, classes_from: ClassesFrom::Labels, ..cfg }
            }
            ModelName::Ann => {
                let vqsvae = VqSvaeConfig {
                    codes: cfg.vqsvae.codes,
                    code_channels: cfg.vqsvae.code_channels,
                    codebook_std: cfg.vqsvae.codebook_std,
                    revival: cfg.vqsvae.revival,
                    ..VqSvaeConfig::vq_vae(image)
                };
                Self { vqsvae, sdid: cfg.sdid.twin(), ..cfg }
            }
            ModelName::AnnTwin => Self { vqsvae: cfg.vqsvae.twin(), sdid: cfg.sdid.twin(), ..cfg },
            _ => cfg,
        }
    }
}

impl VaeConfig {
    /// The preset's config of a model, if that is one of these. Network, batch and optimiser are as published; the presets `paper` and
    /// `released-code` have the published number of epochs too.
    pub(super) fn of(model: ModelName, preset: Preset, image: ImageSpec) -> Option<Self> {
        let ImageSpec { channels, height, width } = image;
        let original = |epochs, batch_size| TrainingConfig { batch_size, ..TrainingConfig::new(epochs) };
        let (network, largest_pixel, mut training) = match model {
            ModelName::Fsvae => {
                let mut cfg = FsvaeConfig::table1();
                cfg.body.image = [channels, height, width];
                (VaeNetwork::Fsvae(cfg), 0.5, TrainingConfig::new(100))
            }
            ModelName::FsvaeOriginal => {
                (VaeNetwork::Fsvae(FsvaeConfig::original(channels)), 1., original(150, 250))
            }
            ModelName::Esvae => {
                let training = TrainingConfig {
                    adamw: AdamWConfig { lr: 3e-3, ..AdamWConfig::default() },
                    rates: [("prior.".to_owned(), 10.)].into(),
                    ..original(300, 256)
                };
                (VaeNetwork::Esvae(EsvaeConfig::original(channels)), 1., training)
            }
            ModelName::SpikingDiffusion | ModelName::Ann | ModelName::AnnTwin => return None,
        };
        training.epochs = match preset {
            Preset::Quick => 5,
            Preset::Cpu | Preset::Best => 15,
            Preset::Paper | Preset::ReleasedCode => training.epochs,
        };
        Some(Self { network, largest_pixel, flip: None, training })
    }
}
