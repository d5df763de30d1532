//! The stages of a run, in order: train the VQ-SVAE, encode, train the SDID, sample and decode.
//!
//! Each reads only what the stages before it have written into the run's folder, and does nothing where its own
//! result is already there.

use std::ops::Range;
use std::time::Instant;

use absorbing_diffusion::{AbsorbingProcess, Denoiser, Sampler, Sdid, draw_noise};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use snn_core::{Checkpoint, ParamStore, Seed};
use snn_train::{Progress, RunDir, StepLoss, Trainer, go_on};
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use crate::data::{Dataset, Split};
use crate::error::Result;

/// Trains the autoencoder into `vqsvae.safetensors`.
///
/// # Errors
/// See [`run_experiment`](crate::run_experiment).
pub fn train_vqsvae(
    cfg: &ExperimentConfig,
    images: &Split,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<VqSvae> {
    let params = ParamStore::new(cfg.seed.child("vqsvae"), DType::F32, device);
    let model = VqSvae::new(&cfg.vqsvae, params.builder())?;
    let trainer = Trainer::new("vqsvae", &cfg.vqsvae_training, &params, images.len(), cfg.seed)
        .columns(&["reconstruction", "dense", "generator", "commitment"])
        .in_run(run);
    let total = cfg.vqsvae_training.steps(images.len())?;
    trainer.train_model(&model, progress, |batch| -> Result<StepLoss> {
        if cfg.vqsvae.revival.is_some_and(|revival| revival.is_due(batch.step, total)) {
            revive_codes(&model, images, cfg.seed, batch.step, device)?;
        }
        let images = images.batch(batch.items, device)?;
        let losses = model.losses(&images, &model.forward_t(&images, true)?)?;
        Ok(StepLoss { loss: losses.total()?, columns: losses.values()?.to_vec() })
    })?;
    Ok(model)
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

/// The codes of a data set, u32 `[N, H', W']`, on the device that trains on them.
#[derive(Clone, Debug)]
pub struct Codes {
    /// Of the training images.
    pub train: Tensor,
    /// Of the test images.
    pub test: Tensor,
}

const CODES_KIND: &str = "codes";

/// Encodes all images into `codes.safetensors`.
///
/// # Errors
/// See [`run_experiment`](crate::run_experiment).
pub fn encode_dataset(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    data: &Dataset,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Codes> {
    let path = run.file("codes.safetensors");
    if !path.exists() {
        let clock = Instant::now();
        let total = data.train.len() + data.test.len();
        progress.begin("encode", total, 0);
        let mut checkpoint = Checkpoint::new(CODES_KIND, &cfg.data)?;
        let mut done = 0;
        for (name, split) in [("train", &data.train), ("test", &data.test)] {
            let mut parts = Vec::new();
            for range in batches(split.len(), cfg.evaluation.batch_size) {
                done += range.len();
                parts.push(model.encode(&split.range(range, device)?)?.to_device(&Device::Cpu)?);
                progress.advance(done, None);
                go_on(progress, "encode", done, total)?;
            }
            checkpoint.tensors.insert(name.to_owned(), Tensor::cat(&parts, 0)?);
        }
        progress.end();
        run.record_seconds("encode", clock.elapsed().as_secs_f64())?;
        checkpoint.save(&path)?;
    }
    let checkpoint = Checkpoint::load(&path, CODES_KIND, device)?;
    let get = |name: &str| {
        let found = checkpoint.tensors.get(name).cloned();
        found.ok_or_else(|| checkpoint.error(format!("tensor `{name}` is missing")))
    };
    Ok(Codes { train: get("train")?, test: get("test")? })
}

/// Trains the denoiser on codes into `sdid.safetensors`.
///
/// # Errors
/// See [`run_experiment`](crate::run_experiment).
pub fn train_sdid(
    cfg: &ExperimentConfig,
    codes: &Tensor,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Sdid> {
    let params = ParamStore::new(cfg.seed.child("sdid"), DType::F32, device);
    let (process, model) = (process(cfg)?, Sdid::new(&cfg.sdid, params.builder())?);
    let ((items, h, w), codes) = (codes.dims3()?, codes.to_device(device)?);
    let trainer = Trainer::new("sdid", &cfg.sdid_training, &params, items, cfg.seed).in_run(run);
    trainer.train_model(&model, progress, |batch| -> Result<StepLoss> {
        let h0 = codes.index_select(&Tensor::new(batch.items, device)?, 0)?;
        let label = format!("sdid/noise/{}", batch.step);
        let (t, u) = draw_noise(&process, (batch.items.len(), h, w), cfg.seed, &label)?;
        Ok(absorbing_diffusion::loss(&process, &model, &h0, &t, &u, cfg.weighting, true)?.into())
    })?;
    Ok(model)
}

/// An autoencoder and a denoiser of its codes: what draws images.
#[derive(Debug)]
pub struct Networks<'a, D: ?Sized = Sdid> {
    /// Codes to images.
    pub vqsvae: &'a VqSvae,
    /// The run's SDID, or any other of the same codes, map and steps.
    pub denoiser: &'a D,
}

impl<D: ?Sized> Clone for Networks<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: ?Sized> Copy for Networks<'_, D> {}

/// Generates images number `images` of this seed: `[n, channels, H, W]`, on the CPU, pixels as of
/// [`VqSvae::decode`].
///
/// Image `i` follows from the seed and `i`, whatever the range and the batch size.
///
/// # Errors
/// Networks that do not fit each other, logits that are not finite.
pub fn generate<D: Denoiser>(
    cfg: &ExperimentConfig,
    networks: Networks<'_, D>,
    images: Range<usize>,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    generate_observed(cfg, networks, images, device, progress, &mut |_, _, _| ())
}

/// [`generate`], with a look at every step: `observe(first, step, codes)` sees the codes of images `first`, `first + 1`, ..
/// after it, one after the other, masks included.
pub(super) fn generate_observed<D: Denoiser>(
    cfg: &ExperimentConfig,
    networks: Networks<'_, D>,
    images: Range<usize>,
    device: &Device,
    progress: &mut dyn Progress,
    observe: &mut dyn FnMut(usize, usize, &[u32]),
) -> Result<Tensor> {
    let (size, steps) = (cfg.sampling.batch_size, cfg.sampling.steps_of(&process(cfg)?));
    let total = images.len().div_ceil(size.max(1)) * steps;
    progress.begin("sample", total, 0);
    let mut decoded = Vec::new();
    for range in batches(images.len(), size) {
        let before = decoded.len() * steps;
        let range = images.start + range.start..images.start + range.end;
        let first = range.start;
        let mut shown = |codes: &[u32], left: usize| {
            progress.advance(before + steps - left, None);
            observe(first, steps - 1 - left, codes);
        };
        decoded.push(draw(cfg, networks, range, device, &mut shown)?);
        go_on(progress, "sample", before + steps, total)?;
    }
    progress.end();
    Ok(Tensor::cat(&decoded, 0)?)
}

/// [`generate`] in one batch; `observe` as in [`Sampler::sample`].
pub(super) fn draw<D: Denoiser>(
    cfg: &ExperimentConfig,
    networks: Networks<'_, D>,
    images: Range<usize>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    Ok(networks
        .vqsvae
        .decode(&draw_codes(cfg, networks.denoiser, images, device, observe)?)?
        .to_device(&Device::Cpu)?)
}

/// The codes of images number `images` of this config's seed and sampling, in one batch; `observe` as in
/// [`Sampler::sample`].
pub(crate) fn draw_codes(
    cfg: &ExperimentConfig,
    denoiser: &dyn Denoiser,
    images: Range<usize>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    let (process, map) = (process(cfg)?, (cfg.sdid.height, cfg.sdid.width));
    Ok(Sampler::new(&process, denoiser, &cfg.sampling)?.sample(images, map, cfg.seed, device, observe)?)
}

pub(crate) fn process(cfg: &ExperimentConfig) -> Result<AbsorbingProcess> {
    Ok(AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?)
}

/// `0..n` in pieces of at most `size`.
pub(crate) fn batches(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size.max(1)).map(move |start| start..(start + size).min(n))
}
