//! State dicts of the released code become a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use absorbing_diffusion::{Sdid, SdidConfig};
use candle_core::{Device, Tensor};
use snn_core::{Checkpoint, Model, Readout};
use snn_train::{Progress, RunDir, go_on};
use spiking_diffusion_metrics::{WeightFile, mean, mse};
use vq_svae::{VqSvae, VqSvaeConfig};

use super::names::{self, COEFFICIENTS, Entry, What};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::{ExperimentConfig, Preset, Trained};

/// Makes a run of two files of the released code: `vqsvae` is what it saves as `model.pth`, `sdid` its `diff_model.pth`.
///
/// The run's config is that of [`Preset::ReleasedCode`] for `data`, with the sizes of the files; nothing says how the networks were
/// trained. `out` must be a new or empty folder, and nothing is written there before both files have been read.
///
/// # Errors
/// Returns an error if a file cannot be read or is no state dict; if names are missing or not known, with all of them; if a tensor has
/// another shape than the rest of its network asks for, or holds what is not finite; if a buffer does not hold what the released code
/// has there; or if the folder cannot be taken.
///
/// # Examples
/// ```no_run
/// use spiking_diffusion::{data, pytorch};
///
/// # fn main() -> spiking_diffusion::Result<()> {
/// let mnist = data::mnist(Some("data/mnist".as_ref()))?;
/// let files = ["result/model.pth", "result/diff_model.pth"].map(std::path::Path::new);
/// let trained = pytorch::import(files[0], files[1], &mnist, "runs/theirs".as_ref())?;
/// let codes = trained.autoencoder.encode(&mnist.test.range(0..10, &candle_core::Device::Cpu)?)?;
/// # Ok(()) }
/// ```
pub fn import(vqsvae: &Path, sdid: &Path, data: &Dataset, out: &Path) -> Result<Trained> {
    let mut cfg = ExperimentConfig::for_data(Preset::ReleasedCode, data)?;
    let (file, denoiser) = (WeightFile::open(vqsvae)?, WeightFile::open(sdid)?);
    let tensors = read_vqsvae(&file, &mut cfg.vqsvae)?;
    cfg.sdid = SdidConfig {
        time_steps: cfg.vqsvae.time_steps,
        ..SdidConfig::released_code(cfg.vqsvae.codes, cfg.vqsvae.image.code_map())
    };
    let denoiser = read_sdid(&denoiser, &mut cfg.sdid)?;
    cfg.validate()?;
    let run = RunDir::open(out, &cfg, false)?;
    save(VqSvae::KIND, &cfg.vqsvae, tensors, &run.file("vqsvae.safetensors"))?;
    save(Sdid::KIND, &cfg.sdid, denoiser, &run.file("sdid.safetensors"))?;
    Trained::load(out, &Device::Cpu)
}

pub(super) type Tensors = BTreeMap<String, Tensor>;

pub(super) fn save(kind: &str, cfg: &impl serde::Serialize, tensors: Tensors, path: &Path) -> Result<()> {
    let mut checkpoint = Checkpoint::new(kind, cfg)?;
    checkpoint.tensors = tensors;
    Ok(checkpoint.save(path)?)
}

fn read_vqsvae(file: &WeightFile, cfg: &mut VqSvaeConfig) -> Result<Tensors> {
    check_names(file, &names::vqsvae(cfg), "VQ-SVAE")?;
    let [features, image] = COEFFICIENTS;
    cfg.time_steps = if file.has(image) { size(file, image, 0)? } else { cfg.time_steps };
    cfg.features = readout(file, (features, 0), cfg.time_steps, cfg.features)?;
    cfg.readout = readout(file, (image, 0), cfg.time_steps, cfg.readout)?;
    cfg.codes = size(file, names::EMBEDDINGS, 0)?;
    cfg.code_channels = size(file, names::EMBEDDINGS, 1)?;
    let sizes = |[(a, at_a), (b, at_b)]: [(&str, usize); 2]| -> Result<[usize; 2]> {
        Ok([size(file, a, at_a)?, size(file, b, at_b)?])
    };
    cfg.encoder_channels = sizes(names::ENCODER)?;
    cfg.decoder_channels = sizes(names::DECODER)?;
    read(file, &names::vqsvae(cfg))
}

fn read_sdid(file: &WeightFile, cfg: &mut SdidConfig) -> Result<Tensors> {
    check_names(file, &names::sdid(cfg), "SDID")?;
    for (i, channels) in cfg.channels.iter_mut().enumerate() {
        *channels = size(file, &names::sdid_kernel(i), 0)?;
    }
    read(file, &names::sdid(cfg))
}

/// All names must be there, but for those of constants, and no other.
pub(super) fn check_names(file: &WeightFile, entries: &[Entry], network: &str) -> Result<()> {
    let found: BTreeSet<String> = file.names().into_iter().collect();
    let known: BTreeSet<&String> = entries.iter().map(|entry| &entry.theirs).collect();
    let is_missing =
        |entry: &&Entry| matches!(entry.what, What::Parameter { .. }) && !found.contains(&entry.theirs);
    let list = |what: &str, names: Vec<&str>| match names.as_slice() {
        [] => String::new(),
        names => format!("; {what} `{}`", names.join("`, `")),
    };
    let missing = entries.iter().filter(is_missing).map(|entry| entry.theirs.as_str()).collect();
    let unknown = found.iter().filter(|name| !known.contains(name)).map(String::as_str).collect();
    let wrong = [list("missing:", missing), list("not known:", unknown)].concat();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::data(file.path(), format!("is no {network} of the authors' code{wrong}")))
}

/// A size of a tensor, which decides others.
pub(super) fn size(file: &WeightFile, name: &str, axis: usize) -> Result<usize> {
    let dims = file.dims(name)?;
    let size = dims.get(axis).copied();
    size.ok_or_else(|| file.error(name, format!("has the shape {dims:?}, without an axis {axis}")).into())
}

/// Reads every parameter in the shape that it must have, and checks the constants.
pub(super) fn read(file: &WeightFile, entries: &[Entry]) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for Entry { theirs, what } in entries {
        match what {
            What::Parameter { ours, shape } => {
                let values = file.values(theirs, shape)?;
                tensors.insert(ours.clone(), Tensor::from_vec(values, names::ours(shape), &Device::Cpu)?);
            }
            What::BatchesTracked if file.has(theirs) => {
                let count = file.values(theirs, &[])?.first().copied().unwrap_or(0.);
                if count < 0. || count.fract() != 0. {
                    return Err(file.error(theirs, format!("is {count}, no number of batches")).into());
                }
            }
            What::Zeros(shape) if file.has(theirs) => {
                if let Some(value) = file.values(theirs, shape)?.iter().find(|value| **value != 0.) {
                    return Err(file.error(theirs, format!("holds {value}, where all is 0")).into());
                }
            }
            What::BatchesTracked | What::Zeros(_) | What::Coefficients { .. } => {}
        }
    }
    Ok(tensors)
}

/// How far the coefficients of a read-out may be off: PyTorch computes them in f32.
const TOLERANCE: f64 = 1e-5;

/// The read-out that has these coefficients: that of the released code, or the PSP of the paper's text, which
/// [`export`](super::export) writes in their place.
pub(super) fn readout(
    file: &WeightFile,
    (name, axis): (&str, usize),
    time_steps: usize,
    released: Readout,
) -> Result<Readout> {
    if !file.has(name) {
        return Ok(released);
    }
    let found = file.values(name, &names::coefficients(time_steps, axis))?;
    for readout in [released, Readout::Psp { tau: 2. }] {
        let wanted = readout.weights(time_steps)?;
        let mut pairs = found.iter().zip(&wanted);
        if pairs.all(|(found, wanted)| (f64::from(*found) - wanted).abs() <= TOLERANCE * wanted.abs()) {
            return Ok(readout);
        }
    }
    let message =
        format!("holds {found:?}, which are the weights of no read-out over time that is known here");
    Err(file.error(name, message).into())
}

/// Writes the codes of the first `count` test images to `path`, a safetensors file with the tensor `codes` (u32 `[count, H', W']`), and
/// returns the mean squared error of the images that the autoencoder makes of them.
///
/// # Errors
/// Returns an error if there are fewer test images or `count` is 0, if the file cannot be written, or if a stop was asked for.
pub fn encode(
    trained: &Trained,
    data: &Dataset,
    count: usize,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<f64> {
    if !(1..=data.test.len()).contains(&count) {
        let reason = format!("must be at least 1 and at most {}, the number of test images", data.test.len());
        return Err(Error::config("encode", count, reason));
    }
    let (mut codes, mut errors) = (Vec::new(), Vec::new());
    progress.begin("encode", count, 0);
    let size = trained.cfg.evaluation.batch_size;
    for start in (0..count).step_by(size) {
        let end = (start + size).min(count);
        let images = data.test.range(start..end, &Device::Cpu)?;
        let batch = trained.autoencoder.encode(&images)?;
        errors.extend(mse(&images, &trained.autoencoder.decode(&batch)?)?);
        codes.push(batch);
        progress.advance(end, None);
        go_on(progress, "encode", end, count)?;
    }
    progress.end();
    save(
        "first-test-codes",
        &trained.cfg.data,
        Tensors::from([("codes".into(), Tensor::cat(&codes, 0)?)]),
        path,
    )?;
    Ok(mean(&errors)?)
}
