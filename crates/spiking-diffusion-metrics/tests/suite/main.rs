//! Closed forms, slow twins, invariances and rejections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod autotraits;
mod classifier;
mod download;
mod fad;
mod features;
mod frechet;
mod golden;
mod inception;
mod inception_score;
mod inception_weights;
mod kernel;
mod manifold;
mod npz;
mod npz_fuzz;
mod pixel;
mod properties;
mod protocol;
mod resize;
mod server;
mod source;
mod ssim;
mod stats;
mod threads;
mod weight_file;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Standard normal values of any shape.
fn normal(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// `x` with one element replaced.
fn with_value(x: &Tensor, at: usize, value: f64) -> Tensor {
    let mut values: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
    values[at] = value;
    Tensor::from_vec(values, x.dims(), &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "got {got}, want {want}, off by {:e}", got - want);
}

/// The message of the error that was expected.
#[track_caller]
fn message<T: std::fmt::Debug>(result: spiking_diffusion_metrics::Result<T>) -> String {
    result.unwrap_err().to_string()
}
