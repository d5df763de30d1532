//! That the networks learn.

use candle_core::{DType, Device, Tensor};
use fsvae::{Draws, Esvae, EsvaeConfig, EsvaeDraws, Fsvae, FsvaeConfig, Losses};
use snn_core::{AdamW, AdamWConfig, ParamStore, Seed};

use crate::{both, tiny_body};

/// Images of one bright row or column each.
fn bars(n: usize) -> Tensor {
    let pixel = |i: usize, row: usize, column: usize| {
        let bright = if i.is_multiple_of(2) { row == i % 8 } else { column == i % 8 };
        if bright { 0.5f32 } else { -0.5 }
    };
    let pixels = (0..n * 64).map(|at| pixel(at / 64, at / 8 % 8, at % 8)).collect::<Vec<_>>();
    Tensor::from_vec(pixels, (n, 1, 8, 8), &Device::Cpu).unwrap()
}

/// The mean reconstruction term of the first ten steps, and of the last.
fn train(params: &ParamStore, steps: usize, mut losses: impl FnMut(usize) -> Losses) -> [f64; 2] {
    let config = AdamWConfig { lr: 1e-2, ..AdamWConfig::default() };
    let mut optimiser = AdamW::new(params.trainable(), config).unwrap();
    let mut values = Vec::new();
    for step in 0..steps {
        let losses = losses(step);
        values.push(losses.values().unwrap()[0]);
        let gradients = params.gradients(&losses.total().unwrap().backward().unwrap()).unwrap();
        optimiser.step(&gradients, 1.).unwrap();
    }
    [&values[..10], &values[steps - 10..]].map(|some| some.iter().sum::<f64>() / 10.)
}

#[test]
fn training_brings_images_back() {
    let images = bars(16);
    for cfg in both() {
        let params = ParamStore::new(Seed(1), DType::F32, &Device::Cpu);
        let cfg = FsvaeConfig { body: fsvae::BodyConfig { latent: 12, ..cfg.body }, ..cfg };
        let model = Fsvae::new(&cfg, params.builder()).unwrap();
        let [first, last] = train(&params, 60, |step| {
            let draws = Draws::new(&cfg, 16, 0.2, Seed(1), &format!("draws/{step}"), &Device::Cpu).unwrap();
            model.losses(&images, &model.forward_t(&images, &draws, true).unwrap()).unwrap()
        });
        assert!(last < 0.5 * first, "{first} -> {last}");
    }
    let cfg = EsvaeConfig::original(1);
    let cfg = EsvaeConfig { body: fsvae::BodyConfig { latent: 12, ..tiny_body(cfg.body) }, ..cfg };
    let params = ParamStore::new(Seed(1), DType::F32, &Device::Cpu);
    let model = Esvae::new(&cfg, params.builder()).unwrap();
    let [first, last] = train(&params, 60, |step| {
        let draws = EsvaeDraws::new(&cfg, 16, Seed(1), &format!("draws/{step}"), &Device::Cpu).unwrap();
        model.losses(&images, &model.forward_t(&images, &draws, true).unwrap()).unwrap()
    });
    assert!(last < 0.5 * first, "{first} -> {last}");
}
