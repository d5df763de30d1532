//! The run of an autoencoder and a denoiser of its codes.

use std::time::Instant;

use absorbing_diffusion::{Conditioned, Sdid};
use candle_core::{Device, Tensor};
use snn_train::{Alone, Collective, Progress, RunDir};
use vq_svae::VqSvae;

use crate::data::Dataset;
#[cfg(feature = "report")]
use crate::data::Split;
use crate::error::Result;
#[cfg(feature = "report")]
use crate::experiment::batches::process;
#[cfg(feature = "report")]
use crate::experiment::classes::save_pictures;
use crate::experiment::command::Asked;
use crate::experiment::config::ExperimentConfig;
use crate::experiment::distance;
use crate::experiment::drawing::{Film, draw, generate_over};
use crate::experiment::evaluation::{Evaluation, Reconstructions, evaluate_denoiser};
use crate::experiment::fad::FadFiles;
use crate::experiment::finish::{Made, Session, finish};
use crate::experiment::networks::Networks;
use crate::experiment::sharing::{assist, dismiss};
use crate::experiment::stages::{
    Classes, Codes, Place, encode_with, find_classes_in, train_sdid_in, train_vqsvae_in,
};
use crate::report::Report;
#[cfg(feature = "report")]
use crate::report::{self, Unmasking, picture, size::square};

/// The run of an autoencoder and a denoiser of its codes, with the workers that [follow](follow).
pub(super) fn of_codes(
    session: Session<'_>,
    workers: &dyn Collective,
    asked: Asked<'_>,
    fad: Option<&FadFiles>,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let Session { cfg, data, run, device } = session;
    let place = Place { workers, run: Some(run), device };
    let vqsvae = train_vqsvae_in(cfg, &data.train, place, progress)?;
    let (codes, measured) = encode(cfg, data, &vqsvae, place, progress)?;
    #[cfg(feature = "report")]
    save_reconstructions(&vqsvae, &data.test, &codes.test, run)?;
    let classes = find_classes_in(cfg, data, place, progress)?;
    let sdid = train_sdid_in(cfg, &codes.train, &classes.train, place, progress)?;
    #[cfg(feature = "report")]
    report::save_losses(run, &cfg.data.name, cfg.weighting)?;
    let networks = Networks::spiking(&vqsvae, &sdid);
    let samples = draw_samples(cfg, networks, workers, run, device, progress)?;
    #[cfg(feature = "report")]
    save_pictures(cfg, (&vqsvae, &sdid), &classes, run, device, progress)?;

    let measured = match measured {
        Some(measured) => measured,
        None => Reconstructions::measure(cfg, &vqsvae, &data.test, (&Alone, device), progress)?.0,
    };
    let (clock, before) = (Instant::now(), measured.seconds);
    let evaluation =
        evaluate_told(cfg, (networks, &sdid), &classes, measured, &codes.test, device, progress)?;
    run.record_seconds("evaluate", before + clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    report::save_codebook(&evaluation.code_counts, run)?;

    let made = Made {
        evaluation,
        samples,
        generate: &|images, progress| generate_over(workers, (cfg, networks), images, device, progress, None),
        reconstruct: &|count| distance::reconstructions(cfg, &vqsvae, &codes.test.narrow(0, 0, count)?),
    };
    let report = finish(session, made, asked, fad, progress)?;
    dismiss(workers)?;
    Ok(report)
}

/// Measures the networks, where the denoiser is told the classes of the test images if it knows any. What it costs to tell them is then a
/// part of the bits: `p(h_0) >= p(c) p(h_0 | c)`.
fn evaluate_told(
    cfg: &ExperimentConfig,
    (networks, sdid): (Networks<'_>, &Sdid),
    classes: &Classes,
    found: Reconstructions,
    codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    if classes.test.is_empty() {
        return evaluate_denoiser(cfg, networks, found, codes, device, progress);
    }
    let told = Conditioned::new(sdid, classes.test.clone())?;
    let networks = Networks::spiking(networks.autoencoder, &told);
    let mut evaluation = evaluate_denoiser(cfg, networks, found, codes, device, progress)?;
    let metrics = &mut evaluation.metrics;
    let tokens = (cfg.sdid.height * cfg.sdid.width) as f64;
    metrics.bits_per_token += classes.bits_of_test(metrics.bits_per_token_images) / tokens;
    Ok(evaluation)
}

/// The part of a worker in the run that worker 0 [leads](of_codes).
pub(super) fn follow(
    cfg: &ExperimentConfig,
    data: &Dataset,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let vqsvae = train_vqsvae_in(cfg, &data.train, place, progress)?;
    let (codes, _) = encode(cfg, data, &vqsvae, place, progress)?;
    let classes = find_classes_in(cfg, data, place, progress)?;
    let sdid = train_sdid_in(cfg, &codes.train, &classes.train, place, progress)?;
    let networks = Networks::spiking(&vqsvae, &sdid);
    assist(place.workers, &|images, observe| draw(cfg, networks, images, place.device, observe))
}

/// The codes of all images. Test images are encoded once, by the pass that measures what comes back of them; in an earlier
/// session, if nothing is returned of that.
fn encode(
    cfg: &ExperimentConfig,
    data: &Dataset,
    vqsvae: &VqSvae,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<(Codes, Option<Reconstructions>)> {
    let mut measured = None;
    let mut of_test = |progress: &mut dyn Progress| {
        let at = (place.workers, place.device);
        let (found, codes) = Reconstructions::measure(cfg, vqsvae, &data.test, at, progress)?;
        measured = Some(found);
        Ok(codes)
    };
    let codes = encode_with(cfg, vqsvae, data, place, progress, &mut of_test)?;
    Ok((codes, measured))
}

/// The first samples, and how they come to be.
fn draw_samples(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    workers: &dyn Collective,
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
    let (clock, shown): (_, Film<'_>) = (Instant::now(), &mut observe);
    let samples = generate_over(workers, (cfg, networks), 0..cfg.samples, device, progress, Some(shown))?;
    run.record_seconds("sample", clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    {
        picture::save_grid(&run.file("samples.png"), &samples, square(cfg.samples).1)?;
        film.save(&|codes| networks.autoencoder.decode(codes), run, device)?;
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
