//! A whole run, from data to report.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_train::{Progress, RunDir};

use super::config::ExperimentConfig;
use super::distance::{self, Features, Images};
use super::evaluation::evaluate;
#[cfg(feature = "report")]
use super::stages::process;
use super::stages::{Networks, encode_dataset, generate, generate_observed, train_sdid, train_vqsvae};
use super::starter::Starter;
use super::summary;
use crate::data::Dataset;
#[cfg(feature = "report")]
use crate::data::Split;
use crate::error::Result;
#[cfg(feature = "report")]
use crate::report::{self, Unmasking, picture, size::square};
use crate::report::{Machine, Report};
#[cfg(feature = "report")]
use vq_svae::VqSvae;

/// Trains, encodes, samples, measures and reports, all into the folder `out`.
///
/// With `resume`, goes on where an earlier run of the same config in that folder stopped, and ends with the same
/// bytes as one that never did (times aside).
///
/// # Errors
/// A config that does not [validate](ExperimentConfig::validate) or was made for other data; a folder that
/// [cannot be taken](RunDir::open); a loss that is not finite; files that cannot be read or written.
pub fn run_experiment(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Report> {
    run_experiment_with(cfg, data, out, resume, device, &Features::None, progress)
}

/// [`run_experiment`], and the distances of `cfg.evaluation.distance_images` generated images to as many test images.
///
/// # Errors
/// As [`run_experiment`]; features that cannot be had: weights that cannot be read or lack a layer, images that the
/// network does not take.
pub fn run_experiment_with(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    features: &Features,
    progress: &mut dyn Progress,
) -> Result<Report> {
    run_started(cfg, data, out, resume, device, (features, Starter::Example), progress)
}

/// [`run_experiment_with`], whose report says how to start the same program again.
pub(crate) fn run_started(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    (features, starter): (&Features, Starter),
    progress: &mut dyn Progress,
) -> Result<Report> {
    cfg.validate_for(data)?;
    let count = cfg.evaluation.distance_images;
    let features = if count > 0 { features } else { &Features::None };
    features.validate(data)?;
    let run = RunDir::open(out, cfg, resume)?;
    let vqsvae = train_vqsvae(cfg, &data.train, &run, device, progress)?;
    let codes = encode_dataset(cfg, &vqsvae, data, &run, device, progress)?;
    #[cfg(feature = "report")]
    save_reconstructions(&vqsvae, &data.test, &codes.test, &run)?;
    let sdid = train_sdid(cfg, &codes.train, &run, device, progress)?;
    #[cfg(feature = "report")]
    report::save_losses(&run, &cfg.data.name, cfg.weighting)?;
    let networks = Networks { vqsvae: &vqsvae, denoiser: &sdid };
    let samples = draw_samples(cfg, networks, &run, device, progress)?;

    let clock = Instant::now();
    let mut evaluation = evaluate(cfg, networks, &data.test, &codes.test, device, progress)?;
    run.record_seconds("evaluate", clock.elapsed().as_secs_f64())?;

    if let Some(extractor) = distance::extractor(cfg, features, data, &run, progress)? {
        let clock = Instant::now();
        // The first ones are there already, and image i is the same in any range.
        let (there, wanted) = (samples.narrow(0, 0, cfg.samples.min(count))?, cfg.samples.min(count)..count);
        let generated = match wanted.is_empty() {
            true => there,
            false => Tensor::cat(&[there, generate(cfg, networks, wanted, device, progress)?], 0)?,
        };
        let images = Images { test: &data.test, test_codes: &codes.test, generated: &generated };
        let found = distance::measure(cfg, &*extractor, images, &vqsvae, progress)?;
        evaluation.metrics.distance = Some(found);
        run.record_seconds("distance", clock.elapsed().as_secs_f64())?;
    }
    #[cfg(feature = "report")]
    report::save_codebook(&evaluation.code_counts, &run)?;
    let machine = Machine::here(&name_of(device));
    let report = summary::report(cfg, evaluation, (features, starter), run.seconds()?, machine);
    run.write_json("report.json", &report)?;
    #[cfg(feature = "report")]
    {
        report::save_firing_rates(&report, &run)?;
        report.save_pages(&run)?;
    }
    Ok(report)
}

/// The first samples, and how they come to be.
fn draw_samples(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    #[cfg(feature = "report")]
    let mut film = Unmasking::new(cfg.samples, process(cfg)?.mask(), (cfg.sdid.height, cfg.sdid.width));
    #[cfg(feature = "report")]
    let mut observe = |first: usize, step: usize, codes: &[u32]| film.record(first, step, codes);
    #[cfg(not(feature = "report"))]
    let mut observe = |_: usize, _: usize, _: &[u32]| ();
    let clock = Instant::now();
    let samples = generate_observed(cfg, networks, 0..cfg.samples, device, progress, &mut observe)?;
    run.record_seconds("sample", clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    {
        picture::save_grid(&run.file("samples.png"), &samples, square(cfg.samples).1)?;
        film.save(networks.vqsvae, run, device)?;
    }
    Ok(samples)
}

/// The first test images over what comes back of them.
#[cfg(feature = "report")]
fn save_reconstructions(vqsvae: &VqSvae, test: &Split, codes: &Tensor, run: &RunDir) -> Result<()> {
    let count = test.len().min(16);
    let (originals, again) =
        (test.range(0..count, &Device::Cpu)?, vqsvae.decode(&codes.narrow(0, 0, count)?)?);
    picture::save_pairs(&run.file("reconstructions.png"), &originals, &again)
}

fn name_of(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
