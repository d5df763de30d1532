//! Golden training steps and samples, twins, finite differences, rejections, files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod autotraits;
mod config;
mod esvae;
mod golden;
mod gradients;
mod model;
mod training;

use candle_core::{DType, Device, Tensor};
use fsvae::{BodyConfig, Fsvae, FsvaeConfig};
use snn_core::{ParamStore, Seed};

/// A model and the parameters that it was built on.
struct Fixture {
    params: ParamStore,
    model: Fsvae,
}

impl Fixture {
    fn new(cfg: &FsvaeConfig, seed: u64, dtype: DType) -> Self {
        let params = ParamStore::new(Seed(seed), dtype, &Device::Cpu);
        let model = Fsvae::new(cfg, params.builder()).unwrap();
        Self { params, model }
    }

    /// With more current everywhere, so that there are spikes in every layer.
    fn lively(cfg: &FsvaeConfig, seed: u64, dtype: DType) -> Self {
        let fixture = Self::new(cfg, seed, dtype);
        for (name, var) in fixture.params.vars() {
            let value = var.as_detached_tensor();
            let value = match name.rsplit_once('.').unwrap() {
                (layer, "bias") if layer.ends_with("bn") => value + 0.3,
                (layer, "bias") if layer.ends_with("linear") => value + 0.8,
                (layer, "weight") if layer.ends_with("linear") => value * 2.5,
                (_, "running_var") => value * 0.05,
                _ => continue,
            };
            var.set(&value.unwrap()).unwrap();
        }
        fixture
    }
}

/// Narrow, on images of 8 x 8; these are the sizes of the golden files.
fn tiny(cfg: FsvaeConfig) -> FsvaeConfig {
    FsvaeConfig { body: tiny_body(cfg.body), candidates: 4, hidden: vec![10, 12], ..cfg }
}

fn tiny_body(body: BodyConfig) -> BodyConfig {
    BodyConfig {
        image: [1, 8, 8],
        time_steps: 8,
        encoder: vec![4, 6],
        mix: body.mix.map(|_| 3),
        decoder: vec![6, 4],
        latent: 5,
        ..body
    }
}

/// Both networks.
fn both() -> [FsvaeConfig; 2] {
    [tiny(FsvaeConfig::table1()), tiny(FsvaeConfig::original(1))]
}

fn images(n: usize, dtype: DType) -> Tensor {
    Seed(7).uniform("images", (n, 1, 8, 8), (-0.5, 0.5), dtype, &Device::Cpu).unwrap()
}

/// All elements as f64, which holds each of f32, u32 and small i64 exactly.
fn flat(xs: &Tensor) -> Vec<f64> {
    xs.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn norm(xs: &Tensor) -> f64 {
    flat(xs).iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Same shape, same elements.
#[track_caller]
fn assert_same(what: &str, got: &Tensor, wanted: &Tensor) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let (got, wanted) = (flat(got), flat(wanted));
    let differ = got.iter().zip(&wanted).filter(|(a, b)| a != b).count();
    assert!(differ == 0, "{what}: {differ} of {} elements differ", wanted.len());
}

/// `|got - wanted| <= bound |wanted|` in the Euclidean norm.
#[track_caller]
fn assert_relative(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let distance = flat(got).iter().zip(flat(wanted)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let wanted = norm(wanted);
    assert!(wanted > 0., "{what}: compared with nothing but zeros");
    assert!(distance <= bound * wanted, "{what}: off by {:e}, allowed {bound:e}", distance / wanted);
}

/// Asserts that this is an error, with each of these parts in its message, a backtrace aside.
#[track_caller]
fn rejects<T>(result: Result<T, impl std::fmt::Display>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, wanted {parts:?}"));
    let line = message.lines().next().unwrap_or_default();
    assert!(parts.iter().all(|part| line.contains(part)), "{line:?} lacks one of {parts:?}");
}
