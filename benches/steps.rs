//! Whole steps of both networks at the paper's sizes (batch 32, T = 16, MNIST), and at the quick preset's.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may stop")]

use absorbing_diffusion::{AbsorbingProcess, Sdid, SdidConfig, Weighting, draw_noise};
use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use snn_core::{AdamW, AdamWConfig, ParamStore, Seed, on_workers};
use spiking_diffusion::{ExperimentConfig, absorbing_diffusion, snn_core, vq_svae};
use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;

fn presets() -> [(&'static str, ExperimentConfig); 2] {
    let new = [ExperimentConfig::released_code, ExperimentConfig::quick];
    [("released-code", new[0](ImageSpec::MNIST)), ("quick", new[1](ImageSpec::MNIST))]
}

fn vqsvae(c: &mut Criterion, name: &str, cfg: &VqSvaeConfig) -> candle_core::Result<()> {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let model = VqSvae::new(cfg, params.builder()).map_err(candle_core::Error::wrap)?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    let images = Seed(1).uniform("images", (BATCH, 1, 28, 28), (-0.5, 0.5), DType::F32, &Device::Cpu)?;
    let mut step = || -> candle_core::Result<()> {
        let losses = model.losses(&images, &model.forward_t(&images, true)?)?;
        optimiser.step(&params.gradients(&losses.total()?.backward()?)?, 1.)
    };
    let id = format!("{name}/{BATCH}x1x28x28xT{}", cfg.time_steps);
    c.bench_function(&format!("vqsvae_train/{id}"), |b| {
        b.iter(|| on_workers(&Device::Cpu, &mut step).unwrap())
    });
    c.bench_with_input(BenchmarkId::new("vqsvae_infer", id), &images, |b, images| {
        b.iter(|| model.decode(&model.encode(images).unwrap()).unwrap())
    });
    Ok(())
}

fn sdid(c: &mut Criterion, name: &str, cfg: &SdidConfig) -> candle_core::Result<()> {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let model = Sdid::new(cfg, params.builder()).map_err(candle_core::Error::wrap)?;
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).map_err(candle_core::Error::wrap)?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    let h0 = Tensor::arange(0u32, (BATCH * 49) as u32, &Device::Cpu)?.reshape((BATCH, 7, 7))?;
    let h0 = (h0.to_dtype(DType::F64)? * 0.08)?.to_dtype(DType::U32)?;
    let (t, u) = draw_noise(&process, (BATCH, 7, 7), Seed(2), "noise").map_err(candle_core::Error::wrap)?;
    let mut step = || -> candle_core::Result<()> {
        let loss = absorbing_diffusion::loss(&process, &model, &h0, &t, &u, Weighting::Uniform, true)
            .map_err(candle_core::Error::wrap)?;
        optimiser.step(&params.gradients(&loss.backward()?)?, 1.)
    };
    let id = format!("{name}/{BATCH}x7x7xT{}", cfg.time_steps);
    c.bench_function(&format!("sdid_train/{id}"), |b| {
        b.iter(|| on_workers(&Device::Cpu, &mut step).unwrap())
    });
    c.bench_function(&format!("sdid_infer/{id}"), |b| b.iter(|| model.forward_t(&h0, &t, false).unwrap()));
    Ok(())
}

fn steps(c: &mut Criterion) {
    for (name, cfg) in presets() {
        vqsvae(c, name, &cfg.vqsvae).unwrap();
        sdid(c, name, &cfg.sdid).unwrap();
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(10); targets = steps }
criterion_main!(benches);
