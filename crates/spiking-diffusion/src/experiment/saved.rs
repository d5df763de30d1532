//! Finished runs as they lie in folders, as one file each, and the one that the library carries in itself.

use std::path::{Path, PathBuf};

use absorbing_diffusion::{Denoiser, Sdid};
use candle_core::{DType, Device};
use sha2::{Digest, Sha256};
use snn_core::{Checkpoint, Model};
use snn_train::read_config;
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use super::trained::Trained;
use super::vae_config::VaeConfig;
use crate::error::{Error, Result, absent};

const KIND: &str = "run";
/// What the names of each network's tensors begin with.
const NETWORKS: [(&str, &str); 2] = [(VqSvae::KIND, "vqsvae."), (Sdid::KIND, "sdid.")];

/// A generator of MNIST digits; `models/README.md` says how it was trained and what it reaches.
#[cfg(feature = "mnist-model")]
const MNIST: &[u8] = include_bytes!("../../models/mnist.safetensors");

/// Packs a finished run into one file, which [`Trained::load`] takes instead of the run's folder: its config and both
/// networks, with a SHA-256. With `dtype` f16 it is half as large, and draws other
/// images of the same kind: a logit that moves in its last bits moves a draw, and with it all that follow.
///
/// # Errors
/// Returns an error if a file of the run is missing or damaged, if `dtype` is not f16, bf16 or f32, if there is something at `out`
/// already, or if it cannot be written.
pub fn pack(run: &Path, out: &Path, dtype: DType) -> Result<()> {
    if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32) {
        return Err(Error::config("dtype", format!("{dtype:?}"), "must be f16, bf16 or f32"));
    }
    absent(out)?;
    let (cfg, files) = finished(run, ["vqsvae.safetensors", "sdid.safetensors"])?;
    let mut package = Checkpoint::new(KIND, &cfg)?;
    for ((kind, prefix), file) in NETWORKS.into_iter().zip(files) {
        for (name, value) in Checkpoint::load(&file, kind, &Device::Cpu)?.tensors {
            package.tensors.insert(format!("{prefix}{name}"), value.to_dtype(dtype)?);
        }
    }
    Ok(package.save(out)?)
}

impl Trained {
    /// Reads `config.json`, `vqsvae.safetensors` and `sdid.safetensors` from a run's folder, to which nothing is written; or all of
    /// it from one file that [`pack`](crate::pack) has made of a run.
    ///
    /// # Errors
    /// Returns an error if a file is missing, damaged or of another kind, or if the config does not
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
    pub fn load(run: &Path, device: &Device) -> Result<Self> {
        if run.is_file() {
            return unpack(&read(run)?, run, device);
        }
        let (cfg, [vqsvae, sdid]) = finished(run, ["vqsvae.safetensors", "sdid.safetensors"])?;
        let denoiser = Sdid::load(&sdid, device)?;
        let (sha256, vqsvae) = (sha256(&[&read(&vqsvae)?, &read(&sdid)?]), VqSvae::load(&vqsvae, device)?);
        Ok(Self::of(cfg, vqsvae, denoiser, sha256).spiking())
    }

    /// The model that comes along: a generator of MNIST digits, trained by the preset `best`, with weights in f16, 2.8 MB (the feature
    /// `mnist-model`, on by default). `docs/results.md` has its numbers.
    ///
    /// # Errors
    /// Returns an error if the tensors cannot be put on the device.
    /// # Examples
    /// ```
    /// use candle_core::Device;
    /// use spiking_diffusion::{Silent, Trained};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let digits = Trained::mnist(&Device::Cpu)?.samples(4, &Device::Cpu, &mut Silent)?;
    /// assert_eq!(digits.dims(), [4, 1, 28, 28]);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "mnist-model")]
    pub fn mnist(device: &Device) -> Result<Self> {
        unpack(MNIST, Path::new("the model in the box"), device)
    }
}

impl<D: Denoiser> Trained<D> {
    /// Reads the config and the autoencoder of a run's folder, and takes a denoiser of your own: any, with whatever it knows
    /// of each image that is to be drawn.
    ///
    /// `name` says which denoiser it is, conditions included: [`generation::save`](crate::generation::save) takes the images of two
    /// denoisers with one name for the same.
    ///
    /// # Errors
    /// Returns an error if a file is missing, damaged or of another kind, or if the config does not
    /// [validate](ExperimentConfig::validate).
    pub fn with_denoiser(folder: &Path, denoiser: D, name: &str, device: &Device) -> Result<Self> {
        let (cfg, [vqsvae]) = finished(folder, ["vqsvae.safetensors"])?;
        let (sha256, vqsvae) = (sha256(&[&read(&vqsvae)?, name.as_bytes()]), VqSvae::load(&vqsvae, device)?);
        Ok(Self::of(cfg, vqsvae, denoiser, sha256))
    }
}

/// Reads what [`pack`] has written; `path` is what errors call it.
fn unpack(bytes: &[u8], path: &Path, device: &Device) -> Result<Trained> {
    let package = Checkpoint::from_bytes(bytes, path, KIND, device)?;
    let cfg: ExperimentConfig = package.config()?;
    cfg.validate()?;
    let known = |name: &String| NETWORKS.iter().any(|(_, prefix)| name.starts_with(prefix));
    if let Some(name) = package.tensors.keys().find(|name| !known(name)) {
        return Err(package.error(format!("unexpected tensor `{name}`")).into());
    }
    let vqsvae = VqSvae::from_checkpoint(&cfg.vqsvae, &package, NETWORKS[0].1, device)?;
    let sdid = Sdid::from_checkpoint(&cfg.sdid, &package, NETWORKS[1].1, device)?;
    Ok(Trained::of(cfg, vqsvae, sdid, sha256(&[bytes])).spiking())
}

/// The config of a finished run of a model with codes, and the paths of some of its files.
fn finished<const N: usize>(folder: &Path, names: [&str; N]) -> Result<(ExperimentConfig, [PathBuf; N])> {
    let cfg: ExperimentConfig = read_config(folder)?;
    cfg.validate()?;
    if cfg.vae.is_some() {
        let message = format!("is a run of the model `{}`, which has no codes", cfg.model.name());
        return Err(Error::run(
            folder,
            format!("{message}: its images are drawn by `generate`, or from code by TrainedVae"),
        ));
    }
    with_files(folder, cfg, names)
}

/// The config of a finished run of a variational autoencoder, its `vae`, and the network's file.
pub(super) fn finished_vae(folder: &Path) -> Result<(ExperimentConfig, VaeConfig, PathBuf)> {
    let cfg: ExperimentConfig = read_config(folder)?;
    cfg.validate()?;
    let Some(vae) = cfg.vae.clone() else {
        let message =
            format!("is a run of the model `{}`, which is no variational autoencoder", cfg.model.name());
        return Err(Error::run(folder, message));
    };
    let (cfg, [file]) = with_files(folder, cfg, [format!("{}.safetensors", vae.network.kind()).as_str()])?;
    Ok((cfg, vae, file))
}

fn with_files<const N: usize>(
    folder: &Path,
    cfg: ExperimentConfig,
    names: [&str; N],
) -> Result<(ExperimentConfig, [PathBuf; N])> {
    let files = names.map(|name| folder.join(name));
    if let Some(file) = files.iter().find(|file| !file.exists()) {
        let message = "is not there: the run is not finished; go on with its command and --resume";
        return Err(Error::run(file, message));
    }
    Ok((cfg, files))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(Error::io(file))
}

/// Of these bytes, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    format!("{:x}", hash.finalize())
}
