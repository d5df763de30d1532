//! Codes to a denoiser.

use absorbing_diffusion::{
    AbsorbingProcess, Conditioned, Denoiser, NoisyCodes, Sdid, draw_noise, drop_labels,
};
use candle_core::{DType, Device, Tensor};
use snn_core::{Model, ParamStore};
use snn_train::{Batch, Progress, RunDir, StepLoss, Trainer};

use super::Place;
use crate::error::{Error, Result};
use crate::experiment::batches::process;
use crate::experiment::config::ExperimentConfig;

/// Trains an SDID on codes into `sdid.safetensors`; with `sdid.classes`, on the classes of the training images too, those that
/// [`find_classes`](crate::find_classes) finds or whatever else, of which each step drops a share (`label_dropout`). Without, `classes` are not read.
///
/// # Errors
/// Returns the errors of [`train_denoiser`], and an error if the config's `sdid` does not
/// [validate](absorbing_diffusion::SdidConfig::validate), if there is not one class for each image, or if one is not below
/// `sdid.classes`.
pub fn train_sdid(
    cfg: &ExperimentConfig,
    codes: &Tensor,
    classes: &[u32],
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Sdid> {
    train_sdid_in(cfg, codes, classes, Place::alone(run, device), progress)
}

/// [`train_sdid`], anywhere.
pub(in crate::experiment) fn train_sdid_in(
    cfg: &ExperimentConfig,
    codes: &Tensor,
    classes: &[u32],
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Sdid> {
    let params = ParamStore::new(cfg.seed.child("sdid"), DType::F32, place.device);
    let model = Sdid::new(&cfg.sdid, params.builder())?;
    let Some(known) = cfg.sdid.classes else {
        train_by(cfg, (&model, &params), codes, place, progress, |_, loss| loss(&model))?;
        return Ok(model);
    };
    if classes.len() != codes.dim(0)? {
        let reason = format!("there are {} training images", codes.dim(0)?);
        return Err(Error::config("classes", format!("those of {} images", classes.len()), reason));
    }
    if let Some(class) = classes.iter().find(|class| **class as usize >= known) {
        return Err(Error::config("sdid.classes", known, format!("there is an image of class {class}")));
    }
    model.set_class_shares(&counts(classes, known))?;
    let dropout = cfg.label_dropout.unwrap_or(LABEL_DROPOUT);
    train_by(cfg, (&model, &params), codes, place, progress, |batch, loss| {
        // Behind those of the shards before it, whose draws are none of ours.
        let (first, label) = (batch.first, format!("sdid/labels/{}", batch.step));
        let mut all = vec![0; first];
        all.extend(batch.items.iter().map(|&i| classes[i as usize]));
        let dropped = drop_labels(&all, known, dropout, cfg.seed, &label).split_off(first);
        loss(&Conditioned::new(&model, dropped)?)
    })?;
    Ok(model)
}

/// How often each of so many classes occurs.
fn counts(classes: &[u32], known: usize) -> Vec<f64> {
    let mut counts = vec![0.; known];
    classes.iter().for_each(|&class| counts[class as usize] += 1.);
    counts
}

/// The share of labels that are dropped where the config says nothing.
const LABEL_DROPOUT: f64 = 0.1;

/// Trains any denoiser on codes by the config's `sdid_training` and `weighting`, and writes the model to the file
/// `<M::KIND>.safetensors` of the run's folder, or reads it from there if it was trained before.
///
/// `model` is what is saved, with its `params`, and `denoiser` is what is trained: the same value twice, unless the denoiser is
/// made of the model and something that is not saved, such as the class of each training image. The denoiser is told the
/// numbers of the training images that a batch is made of. An `Sdid` with classes draws all equally often, unless it is
/// [told](Sdid::set_class_shares) their shares.
///
/// # Shapes
/// `codes: u32 [N, H', W']` in `0..sdid.codes`, those of all training images.
/// # Errors
/// Returns the errors of [`Trainer::train_model`] and of [`absorbing_diffusion::loss`](absorbing_diffusion::loss()).
pub fn train_denoiser<M: Model>(
    cfg: &ExperimentConfig,
    model: &M,
    params: &ParamStore,
    denoiser: &(dyn Denoiser + Sync),
    codes: &Tensor,
    run: &RunDir,
    progress: &mut dyn Progress,
) -> Result<()> {
    let place = Place::alone(run, params.device());
    train_by(cfg, (model, params), codes, place, progress, |batch, loss| {
        loss(&OfBatch { denoiser, items: batch.items })
    })
}

/// [`train_denoiser`], with a denoiser for each batch, which is told places in the batch.
fn train_by<M: Model>(
    cfg: &ExperimentConfig,
    (model, params): (&M, &ParamStore),
    codes: &Tensor,
    place: Place<'_>,
    progress: &mut dyn Progress,
    with_denoiser: impl Fn(Batch<'_>, &dyn Fn(&dyn Denoiser) -> Result<StepLoss>) -> Result<StepLoss> + Sync,
) -> Result<()> {
    let (device, process, stage) = (params.device(), process(cfg)?, M::KIND);
    let ((items, h, w), codes) = (codes.dims3()?, codes.to_device(device)?);
    let trainer = place.trainer(Trainer::new(stage, &cfg.sdid_training, params, items, cfg.seed));
    trainer.train_model_over(
        place.workers,
        model,
        progress,
        |_| Ok(()),
        |batch| -> Result<StepLoss> {
            let h0 = codes.index_select(&Tensor::new(batch.items, device)?, 0)?;
            let label = format!("{stage}/noise/{}", batch.step);
            let (t, u) = draw_noise(&process, (batch.whole, h, w), cfg.seed, &label)?;
            let own = |noise: Tensor| noise.narrow(0, batch.first, batch.items.len());
            let (t, u) = (own(t)?, own(u)?);
            with_denoiser(batch, &|denoiser| {
                Ok(absorbing_diffusion::loss(&process, denoiser, &h0, &t, &u, cfg.weighting, true)?.into())
            })
        },
    )
}

/// A denoiser that is told the numbers of the training images, where the loss counts from 0 in each batch.
struct OfBatch<'a> {
    denoiser: &'a dyn Denoiser,
    items: &'a [u32],
}

impl OfBatch<'_> {
    /// What the denoiser is asked where the loss asks for these places.
    fn ask<R>(&self, noisy: &NoisyCodes<'_>, ask: impl FnOnce(&NoisyCodes<'_>) -> R) -> R {
        let images: Vec<usize> = noisy.images.iter().map(|&place| self.items[place] as usize).collect();
        ask(&NoisyCodes { images: &images, ..*noisy })
    }
}

impl Denoiser for OfBatch<'_> {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> candle_core::Result<Tensor> {
        self.ask(noisy, |noisy| self.denoiser.logits(noisy, train))
    }

    fn check_process(&self, process: &AbsorbingProcess) -> absorbing_diffusion::Result<()> {
        self.denoiser.check_process(process)
    }

    fn logits_at(
        &self,
        noisy: &NoisyCodes<'_>,
        positions: &[Vec<u32>],
        train: bool,
    ) -> absorbing_diffusion::Result<Tensor> {
        self.ask(noisy, |noisy| self.denoiser.logits_at(noisy, positions, train))
    }
}
