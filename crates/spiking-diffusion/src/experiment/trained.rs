//! The networks of a finished run.

use std::path::Path;

use absorbing_diffusion::Sdid;
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use snn_core::Model;
use snn_train::{Progress, read_config};
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use super::stages::{Networks, generate};
use crate::error::{Error, Result};

/// What a run has trained, read from its folder; nothing is written there.
#[derive(Debug)]
pub struct Trained {
    /// The run's config, its seed among it.
    pub cfg: ExperimentConfig,
    /// The autoencoder.
    pub vqsvae: VqSvae,
    /// The denoiser.
    pub sdid: Sdid,
    /// SHA-256 of the files of both networks: two runs with equal ones have equal networks.
    pub sha256: String,
}

impl Trained {
    /// Reads `config.json`, `vqsvae.safetensors` and `sdid.safetensors`.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another kind; a config that does not
    /// [validate](ExperimentConfig::validate).
    /// # Examples
    /// ```no_run
    /// use candle_core::Device;
    /// use spiking_diffusion::{Silent, Trained};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let trained = Trained::load("runs/mnist-cpu-0".as_ref(), &Device::Cpu)?;
    /// assert_eq!(trained.samples(100, &Device::Cpu, &mut Silent)?.dims(), [100, 1, 28, 28]);
    /// # Ok(()) }
    /// ```
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let cfg: ExperimentConfig = read_config(folder)?;
        cfg.validate()?;
        let files = ["vqsvae.safetensors", "sdid.safetensors"].map(|name| folder.join(name));
        if let Some(file) = files.iter().find(|file| !file.exists()) {
            let message = "is not there: the run is not finished; go on with its command and --resume";
            return Err(Error::run(file, message));
        }
        let vqsvae = VqSvae::load(&files[0], device)?;
        let sdid = Sdid::load(&files[1], device)?;
        let mut hash = Sha256::new();
        for file in &files {
            hash.update(std::fs::read(file).map_err(Error::io(file))?);
        }
        let sha256 = format!("{:x}", hash.finalize());
        Ok(Self { cfg, vqsvae, sdid, sha256 })
    }

    /// Both networks.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        Networks { vqsvae: &self.vqsvae, denoiser: &self.sdid }
    }

    /// The first `count` images of the config's seed and sampling: `[count, channels, H, W]`, on the CPU, pixels as of
    /// [`VqSvae::decode`]. [`generation::save`](crate::generation::save) writes them as files instead, clamped.
    ///
    /// # Errors
    /// As [`generate`]; `count = 0`.
    pub fn samples(&self, count: usize, device: &Device, progress: &mut dyn Progress) -> Result<Tensor> {
        if count == 0 {
            return Err(Error::config("samples", count, "must be at least 1"));
        }
        generate(&self.cfg, self.networks(), 0..count, device, progress)
    }
}
