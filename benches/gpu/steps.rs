//! Training steps and sampling of both networks at the paper's sizes on a device: one JSON object a line.
//!
//! `gpu_steps DEVICE SECONDS BATCH...`, as in `gpu_steps cuda:0 20 32 256 1024`; `SECONDS` is what each measurement may take. `scripts/gpu-suite`
//! runs it. Weights are fresh, so that spikes are as many as at the start of a training: a GPU's time does not depend on them.
#![allow(clippy::print_stdout, reason = "its output is its interface")]

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use serde_json::json;
use spiking_diffusion::ExperimentConfig;
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, Sampler, SamplingConfig, Sdid, Weighting, draw_noise, loss,
};
use spiking_diffusion::snn_core::{AdamW, AdamWConfig, ParamStore, Seed};
use spiking_diffusion::vq_svae::{ImageSpec, VqSvae};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Steps before the time counts.
const WARM_UP: usize = 3;

/// Median seconds of `work`, which it calls until the time is over, three times at least, and how often it did.
fn median(device: &Device, limit: Duration, mut work: impl FnMut() -> Result<()>) -> Result<(f64, usize)> {
    for _ in 0..WARM_UP {
        work()?;
    }
    device.synchronize()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed() < limit {
        let before = Instant::now();
        work()?;
        device.synchronize()?;
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times.len()))
}

fn report(work: &str, batch: usize, measured: Result<(f64, usize)>) {
    // One measurement that fails, for want of memory say, must not end the others.
    let line = match measured {
        Ok((seconds, times)) => {
            json!({ "work": work, "batch": batch, "seconds": seconds, "images_per_second": batch as f64 / seconds, "times": times })
        }
        Err(error) => json!({ "work": work, "batch": batch, "error": error.to_string() }),
    };
    println!("{line}");
}

fn vqsvae(cfg: &ExperimentConfig, device: &Device, limit: Duration, batch: usize) -> Result<(f64, usize)> {
    let params = ParamStore::new(Seed(0), DType::F32, device);
    let model = VqSvae::new(&cfg.vqsvae, params.builder())?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    let images = Seed(1).uniform("images", (batch, 1, 28, 28), (-0.5, 0.5), DType::F32, device)?;
    median(device, limit, || {
        let losses = model.losses(&images, &model.forward_t(&images, true)?)?;
        Ok(optimiser.step(&params.gradients(&losses.total()?.backward()?)?, 1.)?)
    })
}

fn sdid(cfg: &ExperimentConfig, device: &Device, limit: Duration, batch: usize) -> Result<(f64, usize)> {
    let params = ParamStore::new(Seed(0), DType::F32, device);
    let model = Sdid::new(&cfg.sdid, params.builder())?;
    let process = AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    let codes: Vec<u32> = (0..batch * 49).map(|i| (i * 13 % cfg.sdid.codes) as u32).collect();
    let codes = Tensor::from_vec(codes, (batch, 7, 7), device)?;
    let mut step = 0;
    median(device, limit, || {
        step += 1;
        let (t, u) = draw_noise(&process, (batch, 7, 7), Seed(2), &format!("noise/{step}"))?;
        let loss = loss(
            &process,
            &model,
            &codes,
            &t.to_device(device)?,
            &u.to_device(device)?,
            Weighting::Uniform,
            true,
        )?;
        Ok(optimiser.step(&params.gradients(&loss.backward()?)?, 1.)?)
    })
}

fn sampling(cfg: &ExperimentConfig, device: &Device, limit: Duration, batch: usize) -> Result<(f64, usize)> {
    let (autoencoder, denoiser) =
        (ParamStore::new(Seed(0), DType::F32, device), ParamStore::new(Seed(0), DType::F32, device));
    let vqsvae = VqSvae::new(&cfg.vqsvae, autoencoder.builder())?;
    let sdid = Sdid::new(&cfg.sdid, denoiser.builder())?;
    let process = AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?;
    let sampling = SamplingConfig::default();
    let sampler = Sampler::new(&process, &sdid, &sampling)?;
    median(device, limit, || {
        let codes = sampler.sample(0..batch, (7, 7), Seed(2), device, &mut |_, _| {})?;
        vqsvae.decode(&codes)?;
        Ok(())
    })
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, seconds, batches @ ..] = arguments.as_slice() else {
        return Err("gpu_steps DEVICE SECONDS BATCH...".into());
    };
    let device = match name.split_once(':') {
        Some(("cuda", index)) => Device::new_cuda(index.parse()?)?,
        _ if name == "cpu" => Device::Cpu,
        _ => return Err(format!("device {name}: must be cpu or cuda:N").into()),
    };
    let limit = Duration::from_secs_f64(seconds.parse()?);
    let cfg = ExperimentConfig::released_code(ImageSpec::MNIST);
    for batch in batches {
        let batch = batch.parse()?;
        report("vqsvae_train", batch, vqsvae(&cfg, &device, limit, batch));
        report("sdid_train", batch, sdid(&cfg, &device, limit, batch));
        report("sample_49", batch, sampling(&cfg, &device, limit, batch));
    }
    Ok(())
}
