//! How the kernel of `nearest.cu` is launched.

#[cfg(feature = "cuda")]
pub(crate) mod run;

use candle_core::{DType, Layout, Result};

use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous};

const FILE: &str = "ops/nearest/cuda/nearest.cu";

/// `(z, codes, found, odd)`: `u32` codes, and a counter, zero before, of threads that met what only the twin settles.
pub(crate) fn nearest<F: Real>(z: &Layout, codes: &Layout) -> Result<Launch> {
    contiguous("nearest", "z", z)?;
    contiguous("nearest", "codes", codes)?;
    let ((n, c, h, w), (number, _)) = (z.shape().dims4()?, codes.shape().dims2()?);
    let vectors = n * h * w;
    let shared = |block| c * block * F::DTYPE.size_in_bytes();
    let launch = Launch::new(FILE, "nearest", F::DTYPE, vectors, shared)?
        .operand("z", vectors * c, F::DTYPE)
        .operand("codes", number * c, F::DTYPE)
        .operand("found", vectors, DType::U32)
        .operand("odd", 1, DType::U32)
        .count(vectors);
    let launch = launch.int("the number of channels", c)?.int("the size of a map", h * w)?;
    let launch = launch.int("the number of codes", number)?;
    Ok(launch.record(&[super::least(F::DTYPE)], &[]))
}
