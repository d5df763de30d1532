//! Closed forms, slow twins, golden tensors, invariances and rejections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod autotraits;
mod classes;
mod elbo;
mod golden;
mod loss;
mod neurons;
mod orders;
mod process;

mod sample;
mod sample_distribution;
mod sdid;
mod sdid_checkpoint;
mod sdid_config;
mod threshold;
mod total_variation;
mod toy;

use absorbing_diffusion::{Denoiser, from_fn};
use candle_core::{DType, Device, Tensor};

/// A denoiser of constant logits: `[K, H', W']`, whatever it is shown.
fn constant(logits: Tensor) -> impl Denoiser {
    from_fn(move |h_t, _, _| {
        let (k, h, w) = logits.dims3()?;
        logits.unsqueeze(0)?.broadcast_as((h_t.dim(0)?, k, h, w))
    })
}

/// Knows nothing: zero logits.
fn uniform(k: usize, (h, w): (usize, usize)) -> impl Denoiser {
    constant(Tensor::zeros((k, h, w), DType::F32, &Device::Cpu).unwrap())
}

/// Knows everything: a logit of 100 on the codes of this map, `[H', W']`.
fn oracle(k: usize, map: &[u32], (h, w): (usize, usize)) -> impl Denoiser {
    let mut logits = vec![0f32; k * h * w];
    map.iter().enumerate().for_each(|(i, &code)| logits[code as usize * h * w + i] = 100.);
    constant(Tensor::from_vec(logits, (k, h, w), &Device::Cpu).unwrap())
}

/// The codes of `f(image, position)`.
fn maps((n, h, w): (usize, usize, usize), f: impl Fn(usize, usize) -> u32) -> Tensor {
    let codes: Vec<u32> = (0..n * h * w).map(|i| f(i / (h * w), i % (h * w))).collect();
    Tensor::from_vec(codes, (n, h, w), &Device::Cpu).unwrap()
}

/// Asserts that this is an error, with each of these parts in its message.
fn rejects<T>(result: absorbing_diffusion::Result<T>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, wanted {parts:?}"));
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}
