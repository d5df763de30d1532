//! The network of a finished run.

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};
use fsvae::{Esvae, Fsvae};
use snn_core::{LayerDescription, Model, Observer};
use snn_train::Progress;

use super::network::Vae;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::experiment::batches::{batches, by_batches};
use crate::experiment::config::ExperimentConfig;
use crate::experiment::saved::{finished_vae, read, sha256};
use crate::experiment::vae_config::{VaeConfig, VaeNetwork};

/// Draws images from a finished run of a variational autoencoder, by [`samples`](Self::samples) and
/// [`generation::save`](crate::generation::save).
#[non_exhaustive]
pub struct TrainedVae {
    /// The run's config, its seed among it.
    pub cfg: ExperimentConfig,
    /// SHA-256 of the network's file: two runs with equal ones have equal networks.
    pub sha256: String,
    vae: VaeConfig,
    network: Box<dyn Vae>,
}

impl std::fmt::Debug for TrainedVae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainedVae").field("cfg", &self.cfg).finish_non_exhaustive()
    }
}

impl TrainedVae {
    /// Reads `config.json` and the network's file, such as `fsvae.safetensors`, from a run's folder, to which nothing is written.
    ///
    /// # Errors
    /// Returns an error if a file is missing, damaged or of another kind, if the config does not
    /// [validate](ExperimentConfig::validate), or if the run is of another model.
    /// # Examples
    /// ```no_run
    /// use candle_core::Device;
    /// use spiking_diffusion::{Silent, TrainedVae};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let trained = TrainedVae::load("runs/mnist-fsvae-quick-0".as_ref(), &Device::Cpu)?;
    /// assert_eq!(trained.samples(100, &Device::Cpu, &mut Silent)?.dims(), [100, 1, 28, 28]);
    /// # Ok(()) }
    /// ```
    pub fn load(run: &Path, device: &Device) -> Result<Self> {
        let (cfg, vae, file) = finished_vae(run)?;
        let network: Box<dyn Vae> = match &vae.network {
            VaeNetwork::Fsvae(_) => Box::new(Fsvae::load(&file, device)?),
            VaeNetwork::Esvae(_) => Box::new(Esvae::load(&file, device)?),
        };
        Ok(Self { cfg, sha256: sha256(&[&read(&file)?]), vae, network })
    }

    /// Draws the first `count` images of the config's seed: `[count, channels, H, W]`, on the CPU, in [-0.5, 0.5]. Image `i` follows from the
    /// seed and `i`.
    ///
    /// # Errors
    /// Returns an error if `count` is 0 or if a stop was asked for.
    pub fn samples(&self, count: usize, device: &Device, progress: &mut dyn Progress) -> Result<Tensor> {
        if count == 0 {
            return Err(Error::config("samples", count, "must be at least 1"));
        }
        self.generate(0..count, device, progress)
    }

    /// Images with these numbers.
    pub(in super::super) fn generate(
        &self,
        images: Range<usize>,
        device: &Device,
        progress: &mut dyn Progress,
    ) -> Result<Tensor> {
        let parts = by_batches("sample", images.len(), self.cfg.sampling.batch_size, progress, |range| {
            self.draw(images.start + range.start..images.start + range.end, device)
        })?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// [`generate`](Self::generate) in one batch.
    pub(in super::super) fn draw(&self, images: Range<usize>, device: &Device) -> Result<Tensor> {
        let drawn = self.network.sample(images, self.cfg.seed, device)?;
        Ok((drawn / self.vae.scale())?.to_device(&Device::Cpu)?)
    }

    /// What comes back of test images with these numbers.
    pub(super) fn reconstruct(
        &self,
        images: &Tensor,
        numbers: Range<usize>,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let shown = (images * self.vae.scale())?;
        Ok((self.network.reconstruct(&shown, numbers, self.cfg.seed, observe)? / self.vae.scale())?)
    }

    /// What comes back of the first test images, on the CPU.
    pub(in super::super) fn reconstruct_first(
        &self,
        count: usize,
        test: &Split,
        device: &Device,
    ) -> Result<Tensor> {
        let batch = |numbers: Range<usize>| -> Result<Tensor> {
            let images = test.range(numbers.clone(), device)?;
            Ok(self.reconstruct(&images, numbers, None)?.to_device(&Device::Cpu)?)
        };
        let parts = batches(count, self.cfg.evaluation.batch_size).map(batch).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The layers of the network.
    pub(super) fn layers(&self) -> Result<Vec<LayerDescription>> {
        Ok(self.network.describe_layers()?)
    }

    /// The kind of its checkpoints.
    pub(in super::super) fn kind(&self) -> &'static str {
        self.vae.network.kind()
    }
}
