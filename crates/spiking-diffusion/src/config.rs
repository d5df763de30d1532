//! One experiment as plain data: what travels through a whole run, into `config.json` and into the report.

mod limits;

use absorbing_diffusion::{ElboConfig, SamplingConfig, SdidConfig, Weighting};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snn_core::Seed;
use snn_train::TrainingConfig;
use vq_svae::{ImageSpec, Reconstruction, VqSvaeConfig};

use crate::Preset;
use crate::data::Dataset;
use crate::error::{Error, Result};

/// What is measured after training, and on how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Test images whose codes `bits_per_token` is estimated on (the first ones).
    pub bound_images: usize,
    /// The bound itself.
    pub bound: ElboConfig,
    /// Generated images, and test images, that Fréchet and kernel distance are measured between; 0 for none.
    #[serde(default = "EvaluationConfig::distance_images")]
    pub distance_images: usize,
    /// Images a batch in encoding, decoding and evaluation. Changes speed and memory, not results.
    pub batch_size: usize,
}

impl EvaluationConfig {
    /// As many as the paper's tables are said to use.
    pub(crate) fn distance_images() -> usize {
        1280
    }
}

/// Which data a run is made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Name of the data set.
    pub name: String,
    /// Whether it was drawn by a program.
    pub synthetic: bool,
    /// What its files lack of the official ones, if they do.
    #[serde(default)]
    pub partial: Option<String>,
    /// Training images, after `limit`.
    pub train_images: usize,
    /// Test images.
    pub test_images: usize,
    /// SHA-256 of all pixels and labels: a run is never resumed on other data.
    pub sha256: String,
}

impl DataConfig {
    /// What is to be said of a data set.
    pub fn of(data: &Dataset) -> Self {
        Self {
            name: data.name.clone(),
            synthetic: data.synthetic,
            partial: data.partial.clone(),
            train_images: data.train.len(),
            test_images: data.test.len(),
            sha256: data.sha256(),
        }
    }
}

/// Everything that a run depends on.
///
/// # Examples
/// ```
/// use spiking_diffusion::{ExperimentConfig, Preset};
/// use spiking_diffusion::vq_svae::ImageSpec;
/// let cfg = ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST);
/// let cfg = cfg.with("sdid_training.epochs", "3").unwrap().with("vqsvae.lif.tau", "2.5").unwrap();
/// assert_eq!((cfg.sdid_training.epochs, cfg.vqsvae.lif.tau), (3, Some(2.5)));
/// assert!(cfg.with("vqsvae.colour", "red").unwrap_err().to_string().contains("vqsvae.colour"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// The data; see [`for_data`](Self::for_data).
    pub data: DataConfig,
    /// Where it started from.
    pub preset: Preset,
    /// Seed of everything random.
    pub seed: Seed,
    /// The autoencoder.
    pub vqsvae: VqSvaeConfig,
    /// Its training.
    pub vqsvae_training: TrainingConfig,
    /// The denoiser.
    pub sdid: SdidConfig,
    /// Its training.
    pub sdid_training: TrainingConfig,
    /// Weights of the diffusion loss.
    pub weighting: Weighting,
    /// Reverse diffusion.
    pub sampling: SamplingConfig,
    /// Images to generate.
    pub samples: usize,
    /// Evaluation.
    pub evaluation: EvaluationConfig,
}

impl ExperimentConfig {
    /// The preset's config for a data set: its image shape, its sizes and, where the reconstruction term is divided by
    /// the variance of the training pixels, that variance.
    ///
    /// # Errors
    /// Pixels that cannot be read.
    pub fn for_data(preset: Preset, data: &Dataset) -> Result<Self> {
        let (channels, height, width) = data.image();
        let mut cfg = Self::new(preset, ImageSpec { channels, height, width });
        if let Reconstruction::OverVariance { variance } = &mut cfg.vqsvae.reconstruction {
            *variance = data.train.pixel_variance()?;
        }
        cfg.data = DataConfig::of(data);
        Ok(cfg)
    }

    /// The same config with one field set; `key` is dotted, `value` JSON (a bare word counts as a string).
    ///
    /// # Errors
    /// No such field, a value that does not fit it, or a field that says what the run is: `data`, `preset`, `seed`.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        if matches!(key.split('.').next(), Some("data" | "preset" | "seed")) {
            return Err(Error::config(
                key,
                value,
                "says what the run is: --seed, --preset and the data set decide it",
            ));
        }
        let mut tree = self.to_value()?;
        let mut place = &mut tree;
        for part in key.split('.') {
            let index = part.parse::<usize>().ok();
            let next = match place {
                Value::Object(fields) => fields.get_mut(part),
                Value::Array(items) => index.and_then(|i| items.get_mut(i)),
                _ => None,
            };
            place = next.ok_or_else(|| Error::config(key, value, "there is no such field"))?;
        }
        *place = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        serde_json::from_value(tree).map_err(|e| Error::config(key, value, e.to_string()))
    }

    /// Rejects what cannot work, by field, value and reason.
    ///
    /// # Errors
    /// Also where the parts do not fit each other (`sdid` must have the codebook size and map of `vqsvae`), and what is
    /// beyond all size: numbers that f32 does not hold, tensors of more than 2^32 numbers, more samples than a picture has
    /// room for.
    pub fn validate(&self) -> Result<()> {
        let tree = self.to_value()?;
        for part in ["vqsvae", "vqsvae_training", "sdid", "sdid_training"] {
            limits::numbers(part, &tree[part])?;
        }
        self.vqsvae.validate()?;
        self.sdid.validate()?;
        self.sampling.validate()?;
        self.evaluation.bound.validate().map_err(|e| match e {
            absorbing_diffusion::Error::Core(e) => e.within("evaluation").into(),
            e => Error::from(e),
        })?;
        for (stage, training) in self.trainings() {
            training.validate().map_err(|e| e.within(stage))?;
        }
        let (height, width) = self.vqsvae.image.code_map();
        let pairs = [
            ("sdid.codes", self.sdid.codes, self.vqsvae.codes),
            ("sdid.height", self.sdid.height, height),
            ("sdid.width", self.sdid.width, width),
        ];
        for (field, value, wanted) in pairs {
            if value != wanted {
                return Err(Error::config(field, value, format!("the autoencoder's codes need {wanted}")));
            }
        }
        let counts = [
            ("samples", self.samples, 1),
            ("evaluation.bound_images", self.evaluation.bound_images, 2),
            ("evaluation.batch_size", self.evaluation.batch_size, 1),
        ];
        if self.evaluation.distance_images == 1 {
            return Err(Error::config("evaluation.distance_images", 1, "must be 0 (none) or at least 2"));
        }
        if let Some((field, count, least)) = counts.into_iter().find(|(_, count, least)| count < least) {
            return Err(Error::config(field, count, format!("must be at least {least}")));
        }
        limits::tensors(self)?;
        limits::pictures(self)
    }

    /// Rejects what cannot work on this data, before anything is trained.
    pub(crate) fn validate_for(&self, data: &Dataset) -> Result<()> {
        self.validate()?;
        let found = DataConfig::of(data);
        if self.data != found {
            let reason = format!("the data are {found:?}; start from `ExperimentConfig::for_data`");
            return Err(Error::config("data", format!("{:?}", self.data), reason));
        }
        let ImageSpec { channels, height, width } = self.vqsvae.image;
        if (channels, height, width) != data.image() {
            let reason = format!("the images of the data are {:?}", data.image());
            return Err(Error::config("vqsvae.image", format!("{:?}", (channels, height, width)), reason));
        }
        if data.test.len() < 2 {
            return Err(Error::config("data.test_images", data.test.len(), "must be at least 2"));
        }
        for (stage, training) in self.trainings() {
            training.steps(data.train.len()).map_err(|e| e.within(stage))?;
        }
        Ok(())
    }

    fn trainings(&self) -> [(&'static str, &TrainingConfig); 2] {
        [("vqsvae_training", &self.vqsvae_training), ("sdid_training", &self.sdid_training)]
    }

    pub(crate) fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::config("config", "", e.to_string()))
    }
}
