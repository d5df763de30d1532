//! Images to an autoencoder.

use candle_core::{DType, Device};
use rand::Rng;
use snn_core::{Model, ParamStore, Seed};
use snn_train::{Progress, RunDir, StepLoss, Trainer};
use vq_svae::VqSvae;

use super::Place;
use crate::data::Split;
use crate::error::Result;
use crate::experiment::config::ExperimentConfig;

/// Trains the autoencoder into `vqsvae.safetensors`.
///
/// # Errors
/// Returns the errors of [`Trainer::train_model`], and an error if the config's `vqsvae` does not
/// [validate](vq_svae::VqSvaeConfig::validate) or does not fit the images.
pub fn train_vqsvae(
    cfg: &ExperimentConfig,
    images: &Split,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<VqSvae> {
    train_vqsvae_in(cfg, images, Place::alone(run, device), progress)
}

/// [`train_vqsvae`], anywhere.
pub(in crate::experiment) fn train_vqsvae_in(
    cfg: &ExperimentConfig,
    images: &Split,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<VqSvae> {
    let params = ParamStore::new(cfg.seed.child("vqsvae"), DType::F32, place.device);
    let model = VqSvae::new(&cfg.vqsvae, params.builder())?;
    autoencode(cfg, (&model, &params), images, place, progress)?;
    Ok(model)
}

/// Trains a VQ-SVAE that you have built, with neurons of your own ([`VqSvae::map_layers`]) say, by the config's `vqsvae_training`, and writes it
/// to `vqsvae.safetensors` in the run's folder, or reads it from there if it was trained before. [`train_denoiser`](crate::train_denoiser) does so with a denoiser.
///
/// # Errors
/// Returns the errors of [`Trainer::train_model`], and an error if the images do not fit the network.
/// # Examples
/// ```no_run
/// use std::sync::Arc;
/// use candle_core::{DType, Device};
/// use spiking_diffusion::absorbing_diffusion::Sdid;
/// use spiking_diffusion::snn_core::{Analog, ParamStore, SpikingLayer};
/// use spiking_diffusion::vq_svae::VqSvae;
/// use spiking_diffusion::{ExperimentConfig, Networks, Preset, RunDir, Silent, data};
/// use spiking_diffusion::{encode_dataset, generate, train_autoencoder, train_denoiser};
///
/// # fn main() -> spiking_diffusion::Result<()> {
/// let digits = data::mnist(None)?;
/// let cfg = ExperimentConfig::for_data(Preset::Quick, &digits)?;
/// let cfg = cfg.with("sdid.classes", "null")?.with("classes_from", "labels")?; // nothing is told, below
/// let run = RunDir::open("runs/own-neurons".as_ref(), &cfg, false)?;
/// // Any `NeuronModel` of yours in the place of this one.
/// let own = |_: &str, layer: SpikingLayer| Ok(layer.with_neuron(Arc::new(Analog::Relu)));
/// let params = || ParamStore::new(cfg.seed, DType::F32, &Device::Cpu);
///
/// let of_images = params();
/// let vqsvae = VqSvae::new(&cfg.vqsvae, of_images.builder())?.map_layers(own)?;
/// train_autoencoder(&cfg, &vqsvae, &of_images, &digits.train, &run, &mut Silent)?;
/// let codes = encode_dataset(&cfg, &vqsvae, &digits, &run, &Device::Cpu, &mut Silent)?;
///
/// let of_codes = params();
/// let sdid = Sdid::new(&cfg.sdid, of_codes.builder())?.map_layers(own)?;
/// train_denoiser(&cfg, &sdid, &of_codes, &sdid, &codes.train, &run, &mut Silent)?;
/// let images = generate(&cfg, Networks::new(&vqsvae, &sdid), 0..64, &Device::Cpu, &mut Silent)?;
/// # Ok(()) }
/// ```
pub fn train_autoencoder(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    params: &ParamStore,
    images: &Split,
    run: &RunDir,
    progress: &mut dyn Progress,
) -> Result<()> {
    autoencode(cfg, (model, params), images, Place::alone(run, params.device()), progress)
}

/// [`train_autoencoder`], anywhere.
fn autoencode(
    cfg: &ExperimentConfig,
    (model, params): (&VqSvae, &ParamStore),
    images: &Split,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let device = place.device;
    let trainer = Trainer::new("vqsvae", &cfg.vqsvae_training, params, images.len(), cfg.seed).columns(&[
        "reconstruction",
        "dense",
        "generator",
        "commitment",
    ]);
    let trainer = place.trainer(trainer);
    let total = cfg.vqsvae_training.steps(images.len())?;
    let revive = |step: usize| match model.config().revival {
        Some(revival) if revival.is_due(step, total) => revive_codes(model, images, cfg.seed, step, device),
        _ => Ok(()),
    };
    trainer.train_model_over(place.workers, model, progress, revive, |batch| -> Result<StepLoss> {
        let images = images.batch(batch.items, device)?;
        let losses = model.losses(&images, &model.forward_t(&images, true)?)?;
        Ok(StepLoss { loss: losses.total()?, columns: losses.terms().to_vec() })
    })
}

/// Images that tell which codes are dead.
const REVIVAL_IMAGES: usize = 512;

/// Revives the codes that are dead on some images, drawn from the seed and the step alone.
fn revive_codes(model: &VqSvae, images: &Split, seed: Seed, step: usize, device: &Device) -> Result<()> {
    let label = format!("vqsvae/revival/{step}");
    let mut rng = seed.rng(&format!("{label}/images"));
    let drawn = (0..REVIVAL_IMAGES.min(images.len())).map(|_| rng.random_range(0..images.len() as u32));
    let images = images.batch(&drawn.collect::<Vec<_>>(), device)?;
    model.revive_codes(&images, seed, &label)?;
    Ok(())
}
