//! Uses the libraries as another project would: two training steps of each network, then two images.

use absorbing_diffusion::{
    AbsorbingProcess, Sampler, SamplingConfig, Sdid, SdidConfig, Weighting, draw_noise, loss,
};
use candle_core::{DType, Device, Tensor};
use snn_core::{AdamW, AdamWConfig, ParamStore, Seed};
use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, seed) = (Device::Cpu, Seed(1));
    let images = seed.uniform("images", (4, 1, 28, 28), (-0.5, 0.5), DType::F32, &device)?;

    let cfg = VqSvaeConfig { time_steps: 4, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
    let params = ParamStore::new(seed, DType::F32, &device);
    let autoencoder = VqSvae::new(&cfg, params.builder())?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    for step in 0..2 {
        let losses = autoencoder.losses(&images, &autoencoder.forward_t(&images, true)?)?;
        println!("vq-svae step {step}: {:?}", losses.values()?);
        optimiser.step(&params.gradients(&losses.total()?.backward()?)?, 1.)?;
    }

    let codes = autoencoder.encode(&images)?;
    let cfg = SdidConfig { time_steps: 4, channels: vec![16; 5], ..SdidConfig::released_code(cfg.codes, (7, 7)) };
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps)?;
    let params = ParamStore::new(seed, DType::F32, &device);
    let denoiser = Sdid::new(&cfg, params.builder())?;
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
    for step in 0..2 {
        let (t, u) = draw_noise(&process, (4, 7, 7), seed, &format!("noise/{step}"))?;
        let bits = loss(&process, &denoiser, &codes, &t, &u, Weighting::Elbo, true)?;
        println!("sdid step {step}: {:.3} bits per token", bits.to_scalar::<f32>()?);
        optimiser.step(&params.gradients(&bits.backward()?)?, 1.)?;
    }

    let sampling = SamplingConfig::default();
    let sampler = Sampler::new(&process, &denoiser, &sampling)?;
    let new = sampler.sample(0..2, (7, 7), seed, &device, &mut |_, _| {})?;
    let pictures: Tensor = autoencoder.decode(&new)?;
    assert_eq!(pictures.dims(), [2, 1, 28, 28]);
    println!("sampled {:?}", pictures.dims());
    Ok(())
}
