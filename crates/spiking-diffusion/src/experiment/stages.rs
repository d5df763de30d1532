//! The stages of a run up to its samples: train the VQ-SVAE, encode, train the denoiser.
//!
//! Each reads only what the stages before it have written into the run's folder, and does nothing where its own
//! result is already there. With many workers, all run the same stages; worker 0 has the folder.

use std::time::Instant;

use absorbing_diffusion::{Conditioned, Denoiser, Sdid, draw_noise, drop_labels};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use snn_core::{Checkpoint, Model, ParamStore, Seed};
use snn_train::{Alone, Batch, Collective, Progress, RunDir, StepLoss, Trainer, share_tensor};
use vq_svae::VqSvae;

use super::batches::{process, share_batches};
use super::config::ExperimentConfig;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};

/// Where a stage runs: with these workers, the first of which has the run's folder, on this device.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) workers: &'a dyn Collective,
    pub(super) run: Option<&'a RunDir>,
    pub(super) device: &'a Device,
}

impl<'a> Place<'a> {
    fn alone(run: &'a RunDir, device: &'a Device) -> Self {
        Self { workers: &Alone, run: Some(run), device }
    }

    fn trainer<'b>(self, trainer: Trainer<'b>) -> Trainer<'b>
    where
        'a: 'b,
    {
        match self.run {
            Some(run) => trainer.in_run(run),
            None => trainer,
        }
    }

    /// What worker 0 says of its folder, to all.
    fn there(self, file: &str) -> Result<bool> {
        let there = self.run.is_some_and(|run| run.file(file).exists());
        Ok(self.workers.broadcast(vec![there.into()])? == [u8::from(true)])
    }
}

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
pub(super) fn train_vqsvae_in(
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
/// to `vqsvae.safetensors` in the run's folder, or reads it from there if it was trained before. [`train_denoiser`] does so with a denoiser.
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
/// let run = RunDir::open("runs/own-neurons".as_ref(), &cfg, false)?;
/// // Any `NeuronModel` of yours in the place of this one.
/// let own = |_: &str, layer: SpikingLayer| Ok(layer.with_neuron(Arc::new(Analog::Relu)));
/// let params = || ParamStore::new(cfg.seed, DType::F32, &Device::Cpu);
///
/// let of_images = params();
/// let vqsvae = VqSvae::new(&cfg.vqsvae, of_images.builder())?.map_layers(own)?;
/// train_autoencoder(&cfg, &vqsvae, &of_images, &digits.train, &run, &mut Silent)?;
/// let codes = encode_dataset(&cfg, &digits, &vqsvae, &run, &Device::Cpu, &mut Silent)?;
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
    let revive = |step: usize| match cfg.vqsvae.revival {
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

/// Holds the codes of a data set, u32 `[N, H', W']`, on the device that trains on them.
#[derive(Clone, Debug)]
pub struct Codes {
    /// Of the training images.
    pub train: Tensor,
    /// Of the test images.
    pub test: Tensor,
}

pub(super) const CODES_KIND: &str = "codes";

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
    let place = Place::alone(run, device);
    let mut test = |progress: &mut dyn Progress| encode(cfg, model, &data.test, place, progress);
    encode_with(cfg, model, data, place, progress, &mut test)
}

/// [`encode_dataset`], anywhere, with a way of its own to the codes of the test images, on the CPU, which worker 0 gets. Its time is
/// not that of the stage.
pub(super) fn encode_with(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    data: &Dataset,
    place: Place<'_>,
    progress: &mut dyn Progress,
    test: &mut dyn FnMut(&mut dyn Progress) -> Result<Option<Tensor>>,
) -> Result<Codes> {
    if !place.there(CODES)? {
        let (clock, mut checkpoint) = (Instant::now(), Checkpoint::new(CODES_KIND, &cfg.data)?);
        let train = encode(cfg, model, &data.train, place, progress)?;
        checkpoint.tensors.extend(train.map(|train| ("train".to_owned(), train)));
        let seconds = clock.elapsed().as_secs_f64();
        place.run.map_or(Ok(()), |run| run.record_seconds("encode", seconds))?;
        checkpoint.tensors.extend(test(progress)?.map(|test| ("test".to_owned(), test)));
        place.run.map_or(Ok(()), |run| checkpoint.save(&run.file(CODES)))?;
    }
    let read = |run: &RunDir| Checkpoint::load(&run.file(CODES), CODES_KIND, place.device);
    let checkpoint = place.run.map(read).transpose()?;
    let shared = |name: &str| -> Result<Tensor> {
        let own = checkpoint.as_ref().map(|checkpoint| checkpoint.tensor(name).cloned()).transpose()?;
        Ok(share_tensor(place.workers, own)?.to_device(place.device)?)
    };
    Ok(Codes { train: shared("train")?, test: shared("test")? })
}

pub(super) const CODES: &str = "codes.safetensors";

/// The codes of a split, on the CPU, for worker 0.
pub(super) fn encode(
    cfg: &ExperimentConfig,
    model: &VqSvae,
    split: &Split,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<Tensor>> {
    let (n, size) = (split.len(), cfg.evaluation.batch_size);
    let parts = share_batches(place.workers, "encode", n, size, progress, |range| {
        Ok(vec![model.encode(&split.range(range, place.device)?)?.to_device(&Device::Cpu)?])
    })?;
    let parts = parts.concat();
    Ok((!parts.is_empty()).then(|| Tensor::cat(&parts, 0)).transpose()?)
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
    train_sdid_in(cfg, codes, labels, Place::alone(run, device), progress)
}

/// [`train_sdid`], anywhere.
pub(super) fn train_sdid_in(
    cfg: &ExperimentConfig,
    codes: &Tensor,
    labels: &[u8],
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Sdid> {
    let params = ParamStore::new(cfg.seed.child("sdid"), DType::F32, place.device);
    let model = Sdid::new(&cfg.sdid, params.builder())?;
    let Some(classes) = cfg.sdid.classes else {
        train_by(cfg, (&model, &params), codes, place, progress, |_, loss| loss(&model))?;
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
    train_by(cfg, (&model, &params), codes, place, progress, |batch, loss| {
        // Behind those of the shards before it, whose draws are none of ours.
        let (first, label) = (batch.places.0, format!("sdid/labels/{}", batch.step));
        let mut all = vec![0; first];
        all.extend(batch.items.iter().map(|&i| u32::from(labels[i as usize])));
        let dropped = drop_labels(&all, classes, dropout, cfg.seed, &label).split_off(first);
        loss(&Conditioned::new(&model, dropped)?)
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
            let (label, (first, whole), own) =
                (format!("{stage}/noise/{}", batch.step), batch.places, batch.items.len());
            let (t, u) = draw_noise(&process, (whole, h, w), cfg.seed, &label)?;
            let (t, u) = (t.narrow(0, first, own)?, u.narrow(0, first, own)?);
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
    fn images(&self, places: &[usize]) -> Vec<usize> {
        places.iter().map(|&place| self.items[place] as usize).collect()
    }
}

impl Denoiser for OfBatch<'_> {
    fn logits(&self, h_t: &Tensor, t: &Tensor, places: &[usize], train: bool) -> candle_core::Result<Tensor> {
        self.denoiser.logits(h_t, t, &self.images(places), train)
    }

    fn logits_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        places: &[usize],
        positions: &[Vec<u32>],
        train: bool,
    ) -> absorbing_diffusion::Result<Tensor> {
        self.denoiser.logits_at(h_t, t, &self.images(places), positions, train)
    }
}
