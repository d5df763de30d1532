//! Runs of a variational autoencoder: one network, trained in one stage, that draws images by its own prior.

mod flip;
mod network;
mod trained;

use std::time::Instant;

use candle_core::{DType, Device};
use fsvae::{Esvae, Fsvae};
use snn_core::{Model, ParamStore};
use snn_train::{Progress, RunDir, StepLoss, Trainer};
use spiking_diffusion_metrics::mean;

use self::flip::flip;
use self::network::{At, Vae};
use super::config::ExperimentConfig;
use super::energy::Activity;
use super::evaluation::{Evaluation, compare};
use super::vae_config::{VaeConfig, VaeNetwork};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::report::energy::Energy;
use crate::report::metrics::Metrics;
#[cfg(feature = "report")]
use crate::report::picture;

pub use trained::TrainedVae;

/// Trains the network into `<kind>.safetensors`, or finds it there.
pub(super) fn train(
    cfg: &ExperimentConfig,
    vae: &VaeConfig,
    images: &Split,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<()> {
    let to = (images, run, device);
    match &vae.network {
        VaeNetwork::Fsvae(network) => train_network::<Fsvae>(cfg, vae, network, to, progress),
        VaeNetwork::Esvae(network) => train_network::<Esvae>(cfg, vae, network, to, progress),
    }
}

fn train_network<M: Model + Vae>(
    cfg: &ExperimentConfig,
    vae: &VaeConfig,
    network: &M::Config,
    (images, run, device): (&Split, &RunDir, &Device),
    progress: &mut dyn Progress,
) -> Result<()>
where
    Error: From<M::Error>,
{
    let params = ParamStore::new(cfg.seed.child(M::KIND), DType::F32, device);
    let model = M::build(network, params.builder())?;
    let trainer = Trainer::new(M::KIND, &vae.training, &params, images.len(), cfg.seed)
        .columns(&["reconstruction", "divergence"])
        .in_run(run);
    trainer.train_model(&model, progress, |batch| -> Result<StepLoss> {
        let label = format!("{}/draws/{}", M::KIND, batch.step);
        let images = (images.batch(batch.items, device)? * vae.scale())?;
        let images = match vae.flip {
            Some(share) => flip(&images, share, cfg.seed, &label)?,
            None => images,
        };
        let at = At { label: &label, epoch: batch.epoch, epochs: vae.training.epochs };
        let losses = Vae::losses(&model, &images, cfg.seed, &at)?;
        Ok(StepLoss { loss: losses.total()?, columns: losses.terms().to_vec() })
    })
}

/// Measures the reconstructions of all test images, firing rates and operations.
pub(super) fn evaluate(
    trained: &TrainedVae,
    test: &Split,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let (clock, kind, mut activity) = (Instant::now(), trained.kind(), Activity::default());
    let (errors, similarities) = compare(&trained.cfg, test, device, progress, &mut |images, numbers| {
        let mut observe = |layer: &str, spikes: &_| activity.record(&format!("{kind}.{layer}"), spikes);
        trained.reconstruct(images, numbers, Some(&mut observe))
    })?;
    let metrics = Metrics::without_codes(mean(&errors)?, mean(&similarities)?);
    let layers = trained.layers()?.into_iter().map(|layer| layer.within(kind)).collect::<Vec<_>>();
    let energy = Energy::of_vae(&layers, &format!("{kind}.prior."), &activity)?;
    run.record_seconds("evaluate", clock.elapsed().as_secs_f64())?;
    Ok(Evaluation { metrics, firing_rates: activity.rates.rates(), energy, code_counts: Vec::new() })
}

/// The first test images over what comes back of them.
#[cfg(feature = "report")]
pub(super) fn save_reconstructions(
    trained: &TrainedVae,
    test: &Split,
    run: &RunDir,
    device: &Device,
) -> Result<()> {
    let count = test.len().min(16);
    let again = trained.reconstruct_first(count, test, device)?;
    picture::save_pairs(&run.file("reconstructions.png"), &test.range(0..count, &Device::Cpu)?, &again)
}
