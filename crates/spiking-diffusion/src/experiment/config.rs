//! One experiment as plain data: what travels through a whole run, into `config.json` and into the report.

use absorbing_diffusion::{ElboConfig, SamplingConfig, SdidConfig, Weighting};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snn_core::Seed;
use snn_train::TrainingConfig;
use vq_svae::{ImageSpec, VqSvaeConfig};

use super::model::ModelName;
use super::vae_config::VaeConfig;
use crate::data::Dataset;
use crate::error::{Error, Result};

/// Names a config to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// Minutes on two cores: few spiking steps, a narrow SDID that is told clusters of images, few epochs.
    Quick,
    /// About half an hour on two cores for 60,000 images, an hour on one.
    Cpu,
    /// The best samples so far: as `cpu` with a larger codebook and more epochs (one to two hours on two cores for 60,000 images).
    Best,
    /// The paper's text; the released code's value where it is silent (most of a day on two cores).
    Paper,
    /// The released PyTorch code (a day and a half on two cores).
    ReleasedCode,
}

impl Preset {
    /// Returns the name that the preset has on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Cpu => "cpu",
            Self::Best => "best",
            Self::Paper => "paper",
            Self::ReleasedCode => "released-code",
        }
    }
}

/// Says what is measured after training, and on how much.
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

/// Says which data a run is made on.
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
    /// How many of the last training images stand in the place of the test images; 0 where those are the test set.
    #[serde(default)]
    pub held_out: usize,
    /// Training images, after `limit`.
    pub train_images: usize,
    /// Test images.
    pub test_images: usize,
    /// SHA-256 of all pixels and labels: a run is never resumed on other data.
    pub sha256: String,
}

impl DataConfig {
    /// Describes a data set.
    #[must_use]
    pub fn of(data: &Dataset) -> Self {
        Self {
            name: data.name.clone(),
            synthetic: data.synthetic,
            partial: data.partial.clone(),
            held_out: data.held_out,
            train_images: data.train.len(),
            test_images: data.test.len(),
            sha256: data.sha256(),
        }
    }
}

/// Says what the classes of images are: what the denoiser is told in training, and what is drawn first where an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClassesFrom {
    /// The labels of the data set.
    #[default]
    Labels,
    /// Clusters of training images, which need no labels: the means of k-means over pixels.
    Clusters,
}

impl ClassesFrom {
    fn are_labels(&self) -> bool {
        *self == Self::Labels
    }
}

/// Describes a whole run as plain data: everything that it depends on.
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
    /// The model; a config that names none is of the paper's.
    #[serde(default, skip_serializing_if = "ModelName::is_the_papers")]
    pub model: ModelName,
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
    /// What the classes of a denoiser that has [some](SdidConfig::classes) are.
    #[serde(default, skip_serializing_if = "ClassesFrom::are_labels")]
    pub classes_from: ClassesFrom,
    /// The share of training images that the denoiser sees without their class, where it has [classes](SdidConfig::classes), so
    /// that guidance has something to compare with. `None` is 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_dropout: Option<f64>,
    /// Reverse diffusion.
    pub sampling: SamplingConfig,
    /// Images to generate.
    pub samples: usize,
    /// Evaluation.
    pub evaluation: EvaluationConfig,
    /// The network of a model that is a variational autoencoder, and its training. Such a run looks at no field of those between `seed`
    /// and `samples`, but for the images' shape (`vqsvae.image`) and the batch of sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<VaeConfig>,
}

/// What a config says of a model with codes, but for the [batch](BATCH) of sampling.
const OF_CODES: [&str; 8] = [
    "vqsvae",
    "vqsvae_training",
    "sdid",
    "sdid_training",
    "weighting",
    "classes_from",
    "label_dropout",
    "sampling",
];

/// The one field of those by which a variational autoencoder draws too.
const BATCH: &str = "sampling.batch_size";

impl ExperimentConfig {
    /// Returns channels, rows and columns of the images that the model makes.
    #[must_use]
    pub fn image(&self) -> [usize; 3] {
        let ImageSpec { channels, height, width } = self.vqsvae.image;
        self.vae.as_ref().map_or([channels, height, width], |vae| vae.network.image())
    }

    /// The number of classes, if that is what they are.
    pub(crate) fn classes_that_are(&self, from: ClassesFrom) -> Option<usize> {
        self.sdid.classes.filter(|_| self.classes_from == from)
    }

    /// Returns the same config with one field set; `key` is dotted, `value` JSON (a bare word counts as a string).
    ///
    /// # Errors
    /// Returns an error if there is no such field, if the value does not fit it, or if the field says what the run is (`data`, `model`, `preset`,
    /// `seed`), or if the model has no such part.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        if matches!(key.split('.').next(), Some("data" | "model" | "preset" | "seed")) {
            return Err(Error::config(
                key,
                value,
                "says what the run is: --seed, --preset, --model and the data set decide it",
            ));
        }
        let of_codes = || OF_CODES.contains(&key.split('.').next().unwrap_or(key)) && key != BATCH;
        if self.vae.is_some() && of_codes() {
            let reason = format!("is no part of the model `{}`, which has no codes", self.model.name());
            return Err(Error::config(key, value, reason));
        }
        let no_such_field = || Error::config(key, value, "there is no such field");
        let wanted = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let with = |wanted: Option<&Value>| {
            let mut tree = self.to_value()?;
            put(&mut tree, key, wanted).ok_or_else(no_such_field)?;
            serde_json::from_value(tree).map_err(|e| match e.to_string() {
                message if message.starts_with("unknown field") => no_such_field(),
                message => Error::config(key, value, message),
            })
        };
        match with(Some(&wanted)) {
            // A field that is left out where it has its default reads as null where configs are compared.
            Err(e) if wanted.is_null() && !e.to_string().ends_with("no such field") => {
                with(None).map_err(|_| e)
            }
            read => read,
        }
    }

    pub(crate) fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::config("config", "", e.to_string()))
    }
}

/// Sets the field of this dotted path, or takes it out; none where there is no place for it. A key of a map may have dots itself.
fn put(tree: &mut Value, path: &str, value: Option<&Value>) -> Option<()> {
    match tree {
        Value::Object(fields) => match path.split_once('.') {
            Some((part, rest)) if fields.contains_key(part) && !fields.contains_key(path) => {
                put(fields.get_mut(part)?, rest, value)
            }
            // A field that is left out where it has its default, or a key of a map: the config's own type says whether there can be one.
            _ => {
                match value {
                    Some(value) => fields.insert(path.to_owned(), value.clone()),
                    None => fields.remove(path),
                };
                Some(())
            }
        },
        Value::Array(items) => {
            let (index, rest) = path.split_once('.').unwrap_or((path, ""));
            let item = items.get_mut(index.parse::<usize>().ok()?)?;
            match (rest, value) {
                ("", value) => *item = value?.clone(),
                (rest, value) => put(item, rest, value)?,
            }
            Some(())
        }
        _ => None,
    }
}
