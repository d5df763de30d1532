//! One side of the comparison with PyTorch + SpikingJelly: this project. `scripts/compare-peer` runs it; see there.
//!
//! Writes the inputs for both sides, then reads one word a line and answers one JSON object a line.
#![allow(clippy::print_stdout, reason = "its output is its interface")]

mod classifier;
mod fsvae;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use classifier::Classifier;
use fsvae::Fsvae;
use serde_json::json;
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, NoisyCodes, Sampler, SamplingConfig, Sdid, Weighting, draw_noise, loss,
};
use spiking_diffusion::data;
use spiking_diffusion::fsvae::Fsvae as Network;
use spiking_diffusion::snn_core::{
    AdamW, AdamWConfig, Checkpoint, FiringRates, Model, ParamStore, Seed, on_workers,
};
use spiking_diffusion::vq_svae::VqSvae;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BATCH: usize = 32;
/// Times that the work on a single image is repeated, of which the mean is taken.
const REPEATS: u32 = 20;

struct Ours {
    classifier: Classifier,
    fsvae: Option<Fsvae>,
    vqsvae: (VqSvae, ParamStore, AdamW),
    sdid: (Sdid, ParamStore, AdamW),
    process: AbsorbingProcess,
    images: Tensor,
    codes: Tensor,
    t: Tensor,
    u: Tensor,
    before: f64,
}

/// Resident memory now, and at most so far, in MiB.
fn memory() -> Result<(f64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such field")?;
        Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse::<f64>()? / 1024.)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// A model on a checkpoint of its kind, ready to train.
macro_rules! model {
    ($model:ident, $path:expr) => {{
        let checkpoint = Checkpoint::load($path, $model::KIND, &Device::Cpu)?;
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let model = $model::new(&checkpoint.config()?, params.builder())?;
        params.restore(&checkpoint, "")?;
        let optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
        (model, params, optimiser)
    }};
}

impl Ours {
    fn new(vqsvae: &Path, sdid: &Path, fsvae: Option<&Path>, data_dir: &Path) -> Result<Self> {
        let digits = data::mnist(Some(data_dir))?;
        let (before, _) = memory()?;
        let classifier = Classifier::new(&digits)?;
        let (vqsvae, sdid) = (model!(VqSvae, vqsvae), model!(Sdid, sdid));
        let cfg = sdid.0.config();
        let process = AbsorbingProcess::new(cfg.codes, cfg.steps)?;
        let images = digits.train.range(0..BATCH, &Device::Cpu)?;
        let fsvae = match fsvae {
            Some(file) => Some(Fsvae::new(model!(Network, file), &images)?),
            None => None,
        };
        let codes = vqsvae.0.encode(&images)?;
        let (t, u) = draw_noise(&process, (BATCH, cfg.height, cfg.width), Seed(1), "peer")?;
        Ok(Self { classifier, fsvae, vqsvae, sdid, process, images, codes, t, u, before })
    }

    fn write_inputs(&self, path: &Path) -> Result<()> {
        let inputs = [
            ("images", self.images.clone()),
            ("codes", self.codes.to_dtype(DType::I64)?),
            ("t", self.t.to_dtype(DType::I64)?),
            ("u", self.u.to_dtype(DType::F32)?),
            ("classifier_images", self.classifier.images.clone()),
            ("classifier_labels", self.classifier.labels.to_dtype(DType::I64)?),
        ];
        let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
        let fsvae = self.fsvae.as_ref().map(Fsvae::tensors).transpose()?;
        let networks = self.classifier.tensors()?.into_iter().chain(fsvae.into_iter().flatten());
        let tensors: HashMap<String, Tensor> = inputs.chain(networks).collect();
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }

    fn work(&mut self, word: &str) -> Result<serde_json::Value> {
        let start = Instant::now();
        match word {
            "vqsvae_train" => {
                let (model, params, optimiser) = &mut self.vqsvae;
                let losses = model.losses(&self.images, &model.forward_t(&self.images, true)?)?;
                optimiser.step(&params.gradients(&losses.total()?.backward()?)?, 1.)?;
            }
            "sdid_train" => {
                let (model, params, optimiser) = &mut self.sdid;
                let loss = loss(&self.process, model, &self.codes, &self.t, &self.u, Weighting::Elbo, true)?;
                optimiser.step(&params.gradients(&loss.backward()?)?, 1.)?;
            }
            "vqsvae_infer" => {
                self.vqsvae.0.decode(&self.vqsvae.0.encode(&self.images)?)?;
            }
            "classifier_train" => self.classifier.train()?,
            "classifier_infer" => self.classifier.infer()?,
            "classifier_prepared" => self.classifier.infer_prepared()?,
            "classifier_1" => return repeated(|| self.classifier.one_image()),
            "vqsvae_1" => {
                let image = self.images.narrow(0, 0, 1)?;
                return repeated(|| {
                    self.vqsvae.0.decode(&self.vqsvae.0.encode(&image)?)?;
                    Ok(())
                });
            }
            "encode_256" => {
                for _ in 0..256 / BATCH {
                    self.vqsvae.0.encode(&self.images)?;
                }
            }
            "sdid_infer" => {
                self.sdid.0.forward_t(&self.codes.narrow(0, 0, 16)?, &self.t.narrow(0, 0, 16)?, false)?;
            }
            // The peer has two ways of drawing in time; this side has one.
            "fsvae_train" | "fsvae_train_stepwise" => self.fsvae()?.train()?,
            "fsvae_infer" | "fsvae_infer_stepwise" => self.fsvae()?.infer()?,
            "fsvae_sample" | "fsvae_sample_stepwise" => self.fsvae()?.sample()?,
            "fsvae_value" | "fsvae_value_stepwise" => return self.fsvae()?.value(),
            "sample_49" => self.sample(16)?,
            "sample_49_1" => self.sample(1)?,
            "memory" => return Ok(json!(memory()?.1 - self.before)),
            "density" => return self.density(),
            _ => return Err(format!("no such work: {word}").into()),
        }
        Ok(json!(start.elapsed().as_secs_f64()))
    }

    fn fsvae(&mut self) -> Result<&mut Fsvae> {
        self.fsvae.as_mut().ok_or_else(|| "no checkpoint of an FSVAE was named".into())
    }

    /// So many images in all diffusion steps, decoded.
    fn sample(&self, images: usize) -> Result<()> {
        let (cfg, device) = (self.sdid.0.config(), Device::Cpu);
        let (sampling, map) = (SamplingConfig::default(), (cfg.height, cfg.width));
        let sampler = Sampler::new(&self.process, &self.sdid.0, &sampling)?;
        let codes = sampler.sample(0..images, map, Seed(2), &device, &mut |_, _| {})?;
        self.vqsvae.0.decode(&codes)?;
        Ok(())
    }

    fn density(&self) -> Result<serde_json::Value> {
        let mut rates = FiringRates::default();
        self.classifier.record(&mut rates)?;
        if let Some(fsvae) = &self.fsvae {
            fsvae.record(&mut rates)?;
        }
        self.vqsvae
            .0
            .forward_observed(&self.images, false, &mut |l, s| rates.record(&format!("vqsvae.{l}"), s))?;
        let (codes, t) = (self.codes.narrow(0, 0, 16)?, self.t.narrow(0, 0, 16)?);
        let noisy = NoisyCodes::new(&codes, &t, &[]);
        self.sdid.0.logits_observed(&noisy, false, &mut |l, s| rates.record(&format!("sdid.{l}"), s))?;
        Ok(json!(rates.rates()))
    }
}

/// The mean time of a work that is over too soon to be timed once.
fn repeated(mut work: impl FnMut() -> Result<()>) -> Result<serde_json::Value> {
    let start = Instant::now();
    for _ in 0..REPEATS {
        work()?;
    }
    Ok(json!(start.elapsed().as_secs_f64() / f64::from(REPEATS)))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vqsvae, sdid, data_dir, inputs, fsvae @ ..] = arguments.as_slice() else {
        return Err("usage: peer VQSVAE SDID DATA_DIR INPUTS [FSVAE] (see scripts/compare-peer)".into());
    };
    let fsvae = fsvae.first().map(Path::new);
    let mut ours = Ours::new(vqsvae.as_ref(), sdid.as_ref(), fsvae, data_dir.as_ref())?;
    ours.write_inputs(inputs.as_ref())?;
    println!("{}", json!({"ready": true}));
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "quit" => break,
            word => println!("{}", json!({word: on_workers(&Device::Cpu, || ours.work(word))?})),
        }
    }
    Ok(())
}
