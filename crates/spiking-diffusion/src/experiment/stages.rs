//! The stages of a run, in order: train the VQ-SVAE, encode, train the denoiser, sample and decode.
//!
//! Each reads only what the stages before it have written into the run's folder, and does nothing where its own
//! result is already there.

use std::ops::Range;
use std::time::Instant;

use absorbing_diffusion::{AbsorbingProcess, Conditioned, Denoiser, Sampler, Sdid, draw_noise, drop_labels};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use snn_core::{Checkpoint, Model, ParamStore, Seed};
use snn_train::{Batch, Progress, RunDir, StepLoss, Trainer, go_on};
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use super::networks::Networks;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};

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

/// Holds the codes of a data set, u32 `[N, H', W']`, on the device that trains on them.
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
/// Returns an error if images do not fit the model, if a stop was asked for, or if a file cannot be read or written.
pub fn encode_dataset(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    data: &Dataset,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Codes> {
    let mut test = |progress: &mut dyn Progress| encode(cfg, model, &data.test, device, progress);
    encode_with(cfg, model, data, run, device, progress, &mut test)
}

/// [`encode_dataset`], with a way of its own to the codes of the test images, on the CPU. Its time is not that of the stage.
pub(super) fn encode_with(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    data: &Dataset,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
    test: &mut dyn FnMut(&mut dyn Progress) -> Result<Tensor>,
) -> Result<Codes> {
    let path = run.file("codes.safetensors");
    if !path.exists() {
        let (clock, mut checkpoint) = (Instant::now(), Checkpoint::new(CODES_KIND, &cfg.data)?);
        let train = encode(cfg, model, &data.train, device, progress)?;
        checkpoint.tensors.insert("train".to_owned(), train);
        run.record_seconds("encode", clock.elapsed().as_secs_f64())?;
        checkpoint.tensors.insert("test".to_owned(), test(progress)?);
        checkpoint.save(&path)?;
    }
    let checkpoint = Checkpoint::load(&path, CODES_KIND, device)?;
    Ok(Codes { train: checkpoint.tensor("train")?.clone(), test: checkpoint.tensor("test")?.clone() })
}

/// The codes of a split, on the CPU.
fn encode(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    split: &Split,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    let parts = by_batches("encode", split.len(), cfg.evaluation.batch_size, progress, |range| {
        Ok(model.encode(&split.range(range, device)?)?.to_device(&Device::Cpu)?)
    })?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Trains an SDID on codes into `sdid.safetensors`; with `sdid.classes`, on the labels of the training images too, of which
/// each step drops a share (`label_dropout`). Without, labels are not read.
///
/// # Errors
/// Returns the errors of [`train_denoiser`], and an error if the config's `sdid` does not
/// [validate](absorbing_diffusion::SdidConfig::validate), if there is not one label for each image, or if a label is no class.
pub fn train_sdid(
    cfg: &ExperimentConfig,
    codes: &Tensor,
    labels: &[u8],
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Sdid> {
    let params = ParamStore::new(cfg.seed.child("sdid"), DType::F32, device);
    let model = Sdid::new(&cfg.sdid, params.builder())?;
    let Some(classes) = cfg.sdid.classes else {
        train_denoiser(cfg, &model, &params, &model, codes, run, progress)?;
        return Ok(model);
    };
    if labels.len() != codes.dim(0)? {
        let reason = format!("there are {} training images", codes.dim(0)?);
        return Err(Error::config("labels", format!("{} labels", labels.len()), reason));
    }
    if let Some(label) = labels.iter().find(|label| usize::from(**label) >= classes) {
        return Err(Error::config("sdid.classes", classes, format!("there is a label {label}")));
    }
    let dropout = cfg.label_dropout.unwrap_or(LABEL_DROPOUT);
    train_by(cfg, (&model, &params), codes, run, progress, |batch, loss| {
        let labels: Vec<u32> = batch.items.iter().map(|&i| labels[i as usize].into()).collect();
        let label = format!("sdid/labels/{}", batch.step);
        loss(&Conditioned::new(&model, drop_labels(&labels, classes, dropout, cfg.seed, &label))?)
    })?;
    Ok(model)
}

/// The share of labels that are dropped where the config says nothing.
const LABEL_DROPOUT: f64 = 0.1;

/// Trains any denoiser on codes by the config's `sdid_training` and `weighting`, and writes the model to the file
/// `<M::KIND>.safetensors` of the run's folder, or reads it from there if it was trained before.
///
/// `model` is what is saved, with its `params`, and `denoiser` is what is trained: the same value twice, unless the denoiser is
/// made of the model and something that is not saved, such as the class of each training image. The denoiser is told the
/// numbers of the training images that a batch is made of.
///
/// # Shapes
/// `codes: u32 [N, H', W']` in `0..sdid.codes`, those of all training images.
/// # Errors
/// Returns the errors of [`Trainer::train_model`] and of [`absorbing_diffusion::loss`](absorbing_diffusion::loss()).
pub fn train_denoiser<M: Model>(
    cfg: &ExperimentConfig,
    model: &M,
    params: &ParamStore,
    denoiser: &dyn Denoiser,
    codes: &Tensor,
    run: &RunDir,
    progress: &mut dyn Progress,
) -> Result<()> {
    train_by(cfg, (model, params), codes, run, progress, |batch, loss| {
        loss(&OfBatch { denoiser, items: batch.items })
    })
}

/// [`train_denoiser`], with a denoiser for each batch, which is told places in the batch.
fn train_by<M: Model>(
    cfg: &ExperimentConfig,
    (model, params): (&M, &ParamStore),
    codes: &Tensor,
    run: &RunDir,
    progress: &mut dyn Progress,
    with_denoiser: impl Fn(Batch<'_>, &dyn Fn(&dyn Denoiser) -> Result<StepLoss>) -> Result<StepLoss>,
) -> Result<()> {
    let (device, process, stage) = (params.device(), process(cfg)?, M::KIND);
    let ((items, h, w), codes) = (codes.dims3()?, codes.to_device(device)?);
    let trainer = Trainer::new(stage, &cfg.sdid_training, params, items, cfg.seed).in_run(run);
    trainer.train_model(model, progress, |batch| -> Result<StepLoss> {
        let h0 = codes.index_select(&Tensor::new(batch.items, device)?, 0)?;
        let label = format!("{stage}/noise/{}", batch.step);
        let (t, u) = draw_noise(&process, (batch.items.len(), h, w), cfg.seed, &label)?;
        with_denoiser(batch, &|denoiser| {
            Ok(absorbing_diffusion::loss(&process, denoiser, &h0, &t, &u, cfg.weighting, true)?.into())
        })
    })
}

/// A denoiser that is told the numbers of the training images, where the loss counts from 0 in each batch.
struct OfBatch<'a> {
    denoiser: &'a dyn Denoiser,
    items: &'a [u32],
}

impl Denoiser for OfBatch<'_> {
    fn logits(&self, h_t: &Tensor, t: &Tensor, places: &[usize], train: bool) -> candle_core::Result<Tensor> {
        let images: Vec<usize> = places.iter().map(|&place| self.items[place] as usize).collect();
        self.denoiser.logits(h_t, t, &images, train)
    }
}

/// Generates images number `images` of this seed: `[n, channels, H, W]`, on the CPU, pixels as of
/// [`VqSvae::decode`].
///
/// Image `i` follows from the seed and `i`, whatever the range and the batch size.
///
/// # Errors
/// Returns an error if the networks do not fit each other, if logits are not finite, if an own order
/// [breaks its rules](absorbing_diffusion::RevealOrder), or if a stop was asked for.
pub fn generate(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    generate_observed(cfg, networks, images, device, progress, &mut |_, _, _| ())
}

/// [`generate`], with a look at every step: `observe(first, step, codes)` sees the codes of images `first`, `first + 1`, ..
/// after it, one after the other, masks included.
pub(super) fn generate_observed(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
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
pub(super) fn draw(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    let codes = draw_codes(cfg, networks, images, device, observe)?;
    Ok(networks.vqsvae.decode(&codes)?.to_device(&Device::Cpu)?)
}

/// The codes of images number `images` of this config's seed and sampling, in one batch; `observe` as in
/// [`Sampler::sample`].
pub(crate) fn draw_codes(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    draw_given(cfg, networks, images, None, device, observe)
}

/// [`draw_codes`], where some tokens are known beforehand; as [`Sampler::with_given`].
pub(super) fn draw_given(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    given: Option<&Tensor>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    let (process, map) = (process(cfg)?, (cfg.sdid.height, cfg.sdid.width));
    let mut sampler = Sampler::new(&process, networks.denoiser, &cfg.sampling)?;
    if let Some(order) = networks.order {
        sampler = sampler.with_order(order);
    }
    if let Some(given) = given {
        sampler = sampler.with_given(given);
    }
    Ok(sampler.sample(images, map, cfg.seed, device, observe)?)
}

pub(crate) fn process(cfg: &ExperimentConfig) -> Result<AbsorbingProcess> {
    Ok(AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?)
}

/// `0..n` in pieces of at most `size`.
pub(crate) fn batches(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size.max(1)).map(move |start| start..(start + size).min(n))
}

/// What is made of each batch of `0..n` in turn, as a stage of this name; asks after each whether to go on.
pub(super) fn by_batches<T>(
    stage: &str,
    n: usize,
    size: usize,
    progress: &mut dyn Progress,
    mut make: impl FnMut(Range<usize>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut made = Vec::new();
    progress.begin(stage, n, 0);
    for range in batches(n, size) {
        let done = range.end;
        made.push(make(range)?);
        progress.advance(done, None);
        go_on(progress, stage, done, n)?;
    }
    progress.end();
    Ok(made)
}
