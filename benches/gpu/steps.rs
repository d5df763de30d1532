//! Training steps and sampling of both networks at the paper's sizes on a device: one JSON object a line.
//!
//! `gpu_steps DEVICE SECONDS PRECISIONS WORKS BATCH...`, as in `gpu_steps cuda:0 20 f32,tf32,bf16 all 32 256 1024`; `SECONDS` is what each
//! measurement may take, and WORKS some of vqsvae_train, sdid_train, sample_49 and losses. `scripts/gpu-suite` runs it, and beside it
//! `benches/peer/device.py`, which does the same in PyTorch. Weights are fresh, so that spikes are as many as at the start of a training: a
//! GPU's time does not depend on them. `losses` are means over the last of the same 200 steps, to compare precisions by.
#![allow(clippy::print_stdout, reason = "its output is its interface")]

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use spiking_diffusion::ExperimentConfig;
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, Sampler, SamplingConfig, Sdid, Weighting, draw_noise, loss,
};
use spiking_diffusion::data::synthetic_digits;
use spiking_diffusion::snn_core::{AdamW, AdamWConfig, ParamStore, Precision, Seed};
use spiking_diffusion::vq_svae::{ImageSpec, VqSvae};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Works before the time counts, or fewer, if they take longer than a measurement may.
const WARM_UP: usize = 3;

/// All that can be asked for.
const WORKS: &str = "vqsvae_train,sdid_train,sample_49,losses";

/// Steps whose losses are compared, their batch, and the last ones, of which the mean is taken.
const COMPARED: (usize, usize, usize) = (200, 32, 20);

/// A training of one network, on one batch again and again.
struct Training<'a> {
    params: ParamStore,
    optimiser: AdamW,
    loss: Box<dyn FnMut(usize) -> Result<Tensor> + 'a>,
    steps: usize,
}

impl<'a> Training<'a> {
    fn new(params: ParamStore, loss: impl FnMut(usize) -> Result<Tensor> + 'a) -> Result<Self> {
        let optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
        Ok(Self { params, optimiser, loss: Box::new(loss), steps: 0 })
    }

    /// The VQ-SVAE on these images.
    fn of_vqsvae(cfg: &ExperimentConfig, images: Tensor) -> Result<Self> {
        let params = ParamStore::new(Seed(0), DType::F32, images.device());
        let model = VqSvae::new(&cfg.vqsvae, params.builder())?;
        Self::new(params, move |_| Ok(model.losses(&images, &model.forward_t(&images, true)?)?.total()?))
    }

    /// SDID on codes of a pattern, masked anew in each step.
    fn of_sdid(cfg: &ExperimentConfig, device: &Device, batch: usize) -> Result<Self> {
        let params = ParamStore::new(Seed(0), DType::F32, device);
        let model = Sdid::new(&cfg.sdid, params.builder())?;
        let process = AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?;
        let codes: Vec<u32> = (0..batch * 49).map(|i| (i * 13 % cfg.sdid.codes) as u32).collect();
        let codes = Tensor::from_vec(codes, (batch, 7, 7), device)?;
        let device = device.clone();
        Self::new(params, move |step| {
            let (t, u) = draw_noise(&process, (batch, 7, 7), Seed(2), &format!("noise/{step}"))?;
            let (t, u) = (t.to_device(&device)?, u.to_device(&device)?);
            Ok(loss(&process, &model, &codes, &t, &u, Weighting::Uniform, true)?)
        })
    }

    /// One step, and its loss, on the device.
    fn step(&mut self) -> Result<Tensor> {
        self.steps += 1;
        let loss = (self.loss)(self.steps)?;
        self.optimiser.step(&self.params.gradients(&loss.backward()?)?, 1.)?;
        Ok(loss.detach())
    }

    /// The mean loss of the last of the compared steps.
    fn last_losses(mut self) -> Result<f64> {
        let (steps, _, last) = COMPARED;
        (last..steps).try_for_each(|_| self.step().map(drop))?;
        let losses = (0..last).map(|_| self.step()).collect::<Result<Vec<_>>>()?;
        let mean = Tensor::stack(&losses, 0)?.to_dtype(DType::F64)?.mean_all()?;
        Ok(mean.to_scalar()?)
    }
}

/// Median seconds of `work`, which it calls until the time is over, and how often it did.
fn median(device: &Device, limit: Duration, mut work: impl FnMut() -> Result<()>) -> Result<(f64, usize)> {
    let start = Instant::now();
    for i in 0..WARM_UP {
        if i == 0 || start.elapsed() < limit {
            work()?;
            device.synchronize()?;
        }
    }
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed() < limit {
        let before = Instant::now();
        work()?;
        device.synchronize()?;
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times.len()))
}

/// A line of what was measured, or of why it was not: one measurement that fails, for want of memory say, must not end the others.
fn report(work: &str, batch: usize, measured: Result<Value>) {
    let mut line = json!({ "work": work, "precision": Precision::in_use().name(), "batch": batch });
    let measured = measured.unwrap_or_else(|error| json!({ "error": error.to_string() }));
    if let (Some(line), Value::Object(measured)) = (line.as_object_mut(), measured) {
        line.extend(measured);
    }
    println!("{line}");
}

fn time(device: &Device, limit: Duration, batch: usize, work: impl FnMut() -> Result<()>) -> Result<Value> {
    let (seconds, times) = median(device, limit, work)?;
    Ok(json!({ "seconds": seconds, "images_per_second": batch as f64 / seconds, "times": times }))
}

fn sampling(cfg: &ExperimentConfig, device: &Device, limit: Duration, batch: usize) -> Result<Value> {
    let (autoencoder, denoiser) =
        (ParamStore::new(Seed(0), DType::F32, device), ParamStore::new(Seed(0), DType::F32, device));
    let vqsvae = VqSvae::new(&cfg.vqsvae, autoencoder.builder())?;
    let sdid = Sdid::new(&cfg.sdid, denoiser.builder())?;
    let process = AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?;
    // All at once, as the peer does.
    let sampling = SamplingConfig { batch_size: batch, ..SamplingConfig::default() };
    let sampler = Sampler::new(&process, &sdid, &sampling)?;
    time(device, limit, batch, || {
        let codes = sampler.sample(0..batch, (7, 7), Seed(2), device, &mut |_, _| {})?;
        vqsvae.decode(&codes)?;
        Ok(())
    })
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, seconds, precisions, works, batches @ ..] = arguments.as_slice() else {
        return Err("gpu_steps DEVICE SECONDS PRECISIONS WORKS BATCH...".into());
    };
    let works: Vec<&str> = if works == "all" { WORKS } else { works }.split(',').collect();
    if let Some(unknown) = works.iter().find(|work| !WORKS.split(',').any(|known| known == **work)) {
        return Err(format!("work {unknown}: must be all, or some of {WORKS}").into());
    }
    let device = match name.split_once(':') {
        Some(("cuda", index)) => Device::new_cuda(index.parse()?)?,
        _ if name == "cpu" => Device::Cpu,
        _ => return Err(format!("device {name}: must be cpu or cuda:N").into()),
    };
    let limit = Duration::from_secs_f64(seconds.parse()?);
    let cfg = ExperimentConfig::released_code(ImageSpec::MNIST);
    let precisions =
        precisions.split(',').map(str::parse).collect::<std::result::Result<Vec<Precision>, _>>()?;
    for &precision in &precisions {
        if let Err(error) = precision.use_everywhere() {
            println!(
                "{}",
                json!({ "work": "all", "precision": precision.name(), "batch": 0, "error": error.to_string() })
            );
            continue;
        }
        for batch in batches {
            let batch = batch.parse()?;
            let train = |training: Result<Training<'_>>| {
                let mut training = training?;
                time(&device, limit, batch, || training.step().map(drop))
            };
            if works.contains(&"vqsvae_train") {
                let images =
                    Seed(1).uniform("images", (batch, 1, 28, 28), (-0.5, 0.5), DType::F32, &device)?;
                report("vqsvae_train", batch, train(Training::of_vqsvae(&cfg, images)));
            }
            if works.contains(&"sdid_train") {
                report("sdid_train", batch, train(Training::of_sdid(&cfg, &device, batch)));
            }
            if works.contains(&"sample_49") {
                report("sample_49", batch, sampling(&cfg, &device, limit, batch));
            }
        }
        if works.contains(&"losses") {
            let (_, batch, _) = COMPARED;
            let last = |training: Result<Training<'_>>| Ok(json!({ "loss": training?.last_losses()? }));
            let digits = synthetic_digits()?.train.range(0..batch, &device)?;
            report("vqsvae_200_steps", batch, last(Training::of_vqsvae(&cfg, digits)));
            report("sdid_200_steps", batch, last(Training::of_sdid(&cfg, &device, batch)));
        }
    }
    Ok(())
}
