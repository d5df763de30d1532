//! Which term teaches which part, and finite differences where no spike depends on the parameter.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use fsvae::{Divergence, Draws, FsvaeConfig, Losses};
use snn_core::Seed;

use crate::{Fixture, both, flat, images, norm};

const KLD: Divergence = Divergence::Kld { weight: 1e-4, floor: 1e-2 };

fn losses(fixture: &Fixture, cfg: &FsvaeConfig) -> Losses {
    let draws = Draws::new(cfg, 3, 0., Seed(1), "draws", &Device::Cpu).unwrap();
    let images = images(3, DType::F64);
    let out = fixture.model.forward_t(&images, &draws, true).unwrap();
    fixture.model.losses(&images, &out).unwrap()
}

/// The parts that have a gradient of a loss.
fn taught(fixture: &Fixture, loss: &Tensor) -> Vec<String> {
    let grads = fixture.params.gradients(&loss.backward().unwrap()).unwrap();
    let parts: BTreeMap<String, bool> = grads.iter().fold(BTreeMap::new(), |mut parts, (name, grad)| {
        let part = name.split('.').next().unwrap().to_owned();
        *parts.entry(part).or_default() |= norm(grad) > 0.;
        parts
    });
    parts.into_iter().filter_map(|(part, taught)| taught.then_some(part)).collect()
}

#[test]
fn the_image_teaches_the_posterior_and_the_divergence_both_chains() {
    for cfg in both() {
        for divergence in [cfg.divergence, KLD] {
            let cfg = FsvaeConfig { divergence, ..cfg.clone() };
            let fixture = Fixture::lively(&cfg, 1, DType::F64);
            let losses = losses(&fixture, &cfg);
            let by_image = ["decoder", "encoder", "from_latent", "head", "posterior", "to_latent"];
            assert_eq!(taught(&fixture, &losses.reconstruction), by_image);
            assert_eq!(taught(&fixture, &losses.divergence), ["encoder", "posterior", "prior", "to_latent"]);
        }
    }
}

/// No spike depends on the head.
#[test]
fn the_heads_gradient_is_the_slope_of_the_loss() {
    const STEP: f64 = 1e-5;
    for cfg in both() {
        let fixture = Fixture::lively(&cfg, 2, DType::F64);
        let loss = || losses(&fixture, &cfg).total().unwrap();
        let grads = fixture.params.gradients(&loss().backward().unwrap()).unwrap();
        for name in ["head.weight", "head.bias"] {
            let var = fixture.params.vars().into_iter().find(|(key, _)| key == name).unwrap().1;
            let (start, grad) = (flat(var.as_tensor()), flat(&grads[name]));
            let at = |i: usize, by: f64| {
                let mut moved = start.clone();
                moved[i] += by;
                var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap()).unwrap();
                loss().to_scalar::<f64>().unwrap()
            };
            for (i, grad) in grad.iter().enumerate() {
                let slope = (at(i, STEP) - at(i, -STEP)) / (2. * STEP);
                at(i, 0.);
                assert!(
                    (slope - grad).abs() <= 1e-7 + 1e-5 * slope.abs(),
                    "{name}[{i}]: {slope}, not {grad}"
                );
            }
            assert!(grad.iter().any(|g| g.abs() > 1e-3), "{name}: {grad:?}");
        }
    }
}
