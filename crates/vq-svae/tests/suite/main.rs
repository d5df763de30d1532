//! Golden training steps, exact zeros, rejections, files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod autotraits;
mod checkpoint;
mod config;
mod golden;
mod golden_analog;
mod gradients;
mod model;
mod neurons;
mod published;
mod quantiser;

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{ParamStore, Seed};
use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};

/// A model and the parameters that it was built on.
struct Fixture {
    params: ParamStore,
    model: VqSvae,
}

impl Fixture {
    fn new(cfg: &VqSvaeConfig, seed: u64, dtype: DType) -> Self {
        let params = ParamStore::new(Seed(seed), dtype, &Device::Cpu);
        let model = VqSvae::new(cfg, params.builder()).unwrap();
        Self { params, model }
    }

    /// Less idle than a fresh model: every norm is shifted towards the threshold, and the codes lie among the
    /// features, which are not negative, so that several are used.
    fn lively(cfg: &VqSvaeConfig, seed: u64, dtype: DType) -> Self {
        let fixture = Self::new(cfg, seed, dtype);
        for (_, var) in fixture.params.trainable().into_iter().filter(|(name, _)| name.ends_with("bn.bias")) {
            var.set(&(var.as_detached_tensor() + 0.5).unwrap()).unwrap();
        }
        let shape = (cfg.codes, cfg.code_channels);
        let codebook = Seed(seed).uniform("codebook", shape, (0., 0.8), dtype, &Device::Cpu).unwrap();
        fixture.var("codebook.weight").set(&codebook).unwrap();
        fixture
    }

    /// Makes the statistics of these images the running ones, so that evaluation is no idler than training.
    fn settle(&self, images: &Tensor) {
        let vars = self.params.vars().into_iter().map(|(name, var)| (name.contains("running"), var));
        let statistics: Vec<Var> = vars.filter_map(|(running, var)| running.then_some(var)).collect();
        statistics.iter().for_each(|var| var.set(&var.zeros_like().unwrap()).unwrap());
        self.model.forward_t(images, true).unwrap(); // They move a tenth of the way.
        statistics.iter().for_each(|var| var.set(&(var.as_detached_tensor() * 10.).unwrap()).unwrap());
    }

    fn var(&self, name: &str) -> Var {
        let found = self.params.vars().into_iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no variable `{name}`")).1
    }
}

/// A small model that runs in a millisecond: 8x12 images, 2x3 codes.
fn tiny(cfg: fn(ImageSpec) -> VqSvaeConfig) -> VqSvaeConfig {
    VqSvaeConfig {
        time_steps: 4,
        encoder_channels: [5, 6],
        code_channels: 4,
        codes: 9,
        decoder_channels: [6, 5],
        ..cfg(ImageSpec { channels: 1, height: 8, width: 12 })
    }
}

/// Random images for this config, in [-0.5, 0.5).
fn images(cfg: &VqSvaeConfig, n: usize, dtype: DType) -> Tensor {
    let ImageSpec { channels, height, width } = cfg.image;
    Seed(7).uniform("images", (n, channels, height, width), (-0.5, 0.5), dtype, &Device::Cpu).unwrap()
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
    let differ = got.iter().zip(&wanted).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
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

/// Asserts that a result about codes is not one about a single code.
#[track_caller]
fn assert_several(codes: &Tensor) {
    let codes: Vec<u32> = codes.flatten_all().unwrap().to_vec1().unwrap();
    assert!(codes.iter().any(|code| *code != codes[0]), "one code for everything");
}

/// Asserts that this is an error, with each of these parts in its message, a backtrace aside.
#[track_caller]
fn rejects<T>(result: Result<T, impl std::fmt::Display>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, wanted {parts:?}"));
    let line = message.lines().next().unwrap_or_default();
    assert!(parts.iter().all(|part| line.contains(part)), "{line:?} lacks one of {parts:?}");
}
