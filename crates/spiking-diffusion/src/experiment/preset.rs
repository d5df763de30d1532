//! The presets: what an experiment starts from.

use absorbing_diffusion::{ElboConfig, Order, SamplingConfig, Schedule, SdidConfig, TokenInput, Weighting};
use snn_core::{AdamWConfig, LrSchedule, MuonConfig, Readout, Seed};
use snn_train::TrainingConfig;
use vq_svae::{Activation, ImageSpec, Reconstruction, Revival, VqSvaeConfig};

use super::config::{ClassesFrom, DataConfig, EvaluationConfig, ExperimentConfig, Preset};
use super::model::ModelName;
use crate::data::Dataset;
use crate::error::Result;

/// The loop of Gibbs sampling that pays (`docs/ablation.md`).
pub(crate) const GIBBS: Order = Order::Gibbs { masked: 0.3, redrawn: 0.16 };

/// The fewest training images that a preset has for each of its clusters, on average.
const IMAGES_A_CLUSTER: usize = 100;

impl ExperimentConfig {
    /// Makes the preset's config for a data set: its image shape, its sizes, no more clusters than there are a hundred training images for
    /// each, and, where the reconstruction term is divided by the variance of the training pixels, that variance.
    ///
    /// # Errors
    /// Returns an error if pixels cannot be read.
    pub fn for_data(preset: Preset, data: &Dataset) -> Result<Self> {
        let (channels, height, width) = data.image();
        Self::new(preset, ImageSpec { channels, height, width }).on(data)
    }

    /// The same config for a data set of its images: its sizes, the variance of its pixels, and no more clusters than have some images each.
    pub(super) fn on(mut self, data: &Dataset) -> Result<Self> {
        if let Reconstruction::OverVariance { variance } = &mut self.vqsvae.reconstruction {
            *variance = data.train.pixel_variance()?;
        }
        self.data = DataConfig::of(data);
        Ok(self.with_clusters_for(data.train.len()))
    }

    /// The same config with no more clusters than so many training images are enough for.
    pub(super) fn with_clusters_for(mut self, images: usize) -> Self {
        if self.classes_from == ClassesFrom::Clusters {
            let most = (images / IMAGES_A_CLUSTER).max(1);
            self.sdid.classes = self.sdid.classes.map(|classes| classes.min(most));
        }
        self
    }

    /// Makes the preset's config for images of this shape.
    #[must_use]
    pub fn new(preset: Preset, image: ImageSpec) -> Self {
        match preset {
            Preset::Quick => Self::quick(image),
            Preset::Cpu => Self::cpu(image),
            Preset::Best => Self::best(image),
            Preset::Paper => Self::paper(image),
            Preset::ReleasedCode => Self::released_code(image),
        }
    }

    /// The paper's text (100 epochs each, Eq. 9 and Eq. 14 as they are); elsewhere the released code's values, but for the
    /// codebook's initial spread (see `docs/deviations.md`).
    #[must_use]
    pub fn paper(image: ImageSpec) -> Self {
        let vqsvae = VqSvaeConfig::paper(image);
        Self {
            data: DataConfig::default(),
            model: ModelName::default(),
            preset: Preset::Paper,
            seed: Seed(0),
            sdid: SdidConfig::released_code(vqsvae.codes, image.code_map()),
            vqsvae,
            vqsvae_training: TrainingConfig::new(100),
            sdid_training: TrainingConfig::new(100),
            weighting: Weighting::Elbo,
            classes_from: ClassesFrom::Labels,
            label_dropout: None,
            sampling: SamplingConfig { order: Order::Posterior, ..SamplingConfig::default() },
            samples: 64,
            evaluation: EvaluationConfig {
                bound_images: 1280,
                bound: ElboConfig::default(),
                distance_images: EvaluationConfig::distance_images(),
                batch_size: 64,
            },
            vae: None,
        }
    }

    /// The released code: its loss, 100 and 200 epochs, its reweighted bound, its preview temperature.
    #[must_use]
    pub fn released_code(image: ImageSpec) -> Self {
        Self {
            preset: Preset::ReleasedCode,
            vqsvae: VqSvaeConfig::released_code(image),
            sdid_training: TrainingConfig::new(200),
            weighting: Weighting::Released,
            sampling: SamplingConfig {
                order: Order::Posterior,
                temperature: 0.65.into(),
                ..SamplingConfig::default()
            },
            ..Self::paper(image)
        }
    }

    /// Ours, for two cores and a few minutes (`docs/ablation.md` has what each part brings): `T_s = 8` and 2, a decoder that does not
    /// begin saturated and can say black, codes that come alive again, embedded tokens, a narrow SDID whose hidden layers Muon moves and which
    /// is told clusters of the training images, all diffusion times weighted alike, a cosine schedule at a higher rate, and sampling in half as
    /// many more steps as there are tokens, in which tokens are masked again and others drawn, from a temperature of 1.1 at first to 0.7 at last.
    #[must_use]
    pub fn quick(image: ImageSpec) -> Self {
        let training = |epochs, lr| TrainingConfig {
            adamw: AdamWConfig { lr, ..AdamWConfig::default() },
            schedule: LrSchedule::Cosine { floor: 0.02 },
            clip: Some(1.),
            ..TrainingConfig::new(epochs)
        };
        let vqsvae = VqSvaeConfig {
            time_steps: 8,
            codebook_std: 0.1,
            readout: Readout::Mean,
            output: Activation::ClampedTanh,
            margin: 0.05,
            revival: Some(Revival { every: 50, until: 0.6 }),
            ..VqSvaeConfig::released_code(image)
        };
        let (height, width) = image.code_map();
        let sdid = SdidConfig {
            time_steps: 2,
            channels: vec![128; 5],
            head_kernel: 1,
            token_input: TokenInput::Embedding { dim: 128 },
            classes: Some(600),
            ..SdidConfig::released_code(vqsvae.codes, (height, width))
        };
        Self {
            preset: Preset::Quick,
            vqsvae,
            sdid,
            vqsvae_training: training(8, 2e-3),
            sdid_training: TrainingConfig { muon: Some(MuonConfig::default()), ..training(10, 4e-3) },
            weighting: Weighting::Uniform,
            classes_from: ClassesFrom::Clusters,
            sampling: SamplingConfig {
                order: GIBBS,
                steps: Some(3 * height * width / 2),
                temperature: Schedule::Linear { from: 1.1, to: 0.7 },
                ..SamplingConfig::default()
            },
            ..Self::paper(image)
        }
    }

    /// Ours, for two cores and about half an hour of 60,000 images: as `quick`, with more steps of training and of sampling, and
    /// sampled as it was trained, at temperature 1.
    #[must_use]
    pub fn cpu(image: ImageSpec) -> Self {
        let quick = Self::quick(image);
        Self {
            preset: Preset::Cpu,
            vqsvae_training: TrainingConfig { epochs: 6, ..quick.vqsvae_training },
            sdid_training: TrainingConfig { epochs: 20, ..quick.sdid_training },
            sampling: SamplingConfig {
                steps: Some(2 * image.code_map().0 * image.code_map().1),
                temperature: 1.0.into(),
                ..quick.sampling
            },
            ..quick
        }
    }

    /// Ours, for the best samples (`docs/results.md`): as `cpu`, with eight times the codes, four times the code channels, and twelve
    /// and sixty epochs. One to two hours on two cores for 60,000 images.
    #[must_use]
    pub fn best(image: ImageSpec) -> Self {
        let (cpu, codes) = (Self::cpu(image), 1024);
        Self {
            preset: Preset::Best,
            vqsvae: VqSvaeConfig { codes, code_channels: 64, ..cpu.vqsvae },
            sdid: SdidConfig { codes, ..cpu.sdid },
            vqsvae_training: TrainingConfig { epochs: 12, ..cpu.vqsvae_training },
            sdid_training: TrainingConfig { epochs: 60, ..cpu.sdid_training },
            ..cpu
        }
    }
}
