//! How the kernels of `weighted_sums.cu` and `psp.cu` are launched.

#[cfg(feature = "cuda")]
pub(crate) mod run;

use candle_core::{DType, Layout, Result, bail};

use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous, shaped, warp_scratch};

const FILE: &str = "ops/time/cuda/weighted_sums.cu";
const PSP: &str = "ops/time/cuda/psp.cu";

/// `(xs, weights, ys)`, for the sums and, with `rows` and time steps exchanged and the weights transposed, for their gradient.
pub(crate) fn weighted_sums<F: Real>(xs: &Layout, rows: usize) -> Result<Launch> {
    contiguous("weighted_sums", "xs", xs)?;
    let [steps, dims @ ..] = xs.dims() else { bail!("weighted_sums: wants [T, ...], got a scalar") };
    let (neurons, weights) = (dims.iter().product(), rows * steps);
    let shared = weights * F::DTYPE.size_in_bytes();
    let launch = Launch::new(FILE, "weighted_sums", F::DTYPE, neurons, |_| shared)?
        .operand("xs", steps * neurons, F::DTYPE)
        .operand("weights", weights, F::DTYPE)
        .operand("ys", rows * neurons, F::DTYPE)
        .count(neurons);
    launch.int("the number of time steps", *steps)?.int("the number of rows", rows)
}

/// Time steps and neurons of `a`, which `b` has too.
fn pair(kernel: &str, a: &Layout, b: &Layout) -> Result<(usize, usize)> {
    contiguous(kernel, "a", a)?;
    shaped(kernel, "b", b, a.dims())?;
    match a.dims() {
        [steps, dims @ ..] => Ok((*steps, dims.iter().product())),
        [] => bail!("{kernel}: wants [T, ...], got a scalar"),
    }
}

/// `1 - 1/tau` and `1/tau`.
fn synapse<F: Real>(tau: f64) -> [F; 2] {
    [1. - 1. / tau, 1. / tau].map(F::from_f64)
}

/// `(a, b, parts)`: [`psp_total`] adds the parts, one for each block.
pub(crate) fn psp_distances<F: Real>(a: &Layout, b: &Layout, tau: f64) -> Result<Launch> {
    let (steps, neurons) = pair("psp_distances", a, b)?;
    let launch = Launch::new(PSP, "psp_distances", F::DTYPE, neurons, warp_scratch)?
        .operand("a", steps * neurons, F::DTYPE)
        .operand("b", steps * neurons, F::DTYPE);
    let parts = launch.grid as usize;
    let launch = launch.operand("parts", parts, DType::F64).count(neurons);
    Ok(launch.int("the number of time steps", steps)?.record(&synapse::<F>(tau), &[]))
}

/// `(parts, distances)`, in one block.
pub(crate) fn psp_total<F: Real>(parts: usize) -> Result<Launch> {
    let launch = Launch::new(PSP, "psp_total", F::DTYPE, 1, warp_scratch)?;
    launch
        .operand("parts", parts, DType::F64)
        .operand("distances", 2, F::DTYPE)
        .int("the number of parts", parts)
}

/// `(a, b, grad, ys)`, with the gradients of two distances -> `[2, T, ...]`.
pub(crate) fn psp_gradients<F: Real>(a: &Layout, b: &Layout, grad: &Layout, tau: f64) -> Result<Launch> {
    let (steps, neurons) = pair("psp_gradients", a, b)?;
    shaped("psp_gradients", "grad", grad, &[2])?;
    let launch = Launch::new(PSP, "psp_gradients", F::DTYPE, neurons, |_| 0)?
        .operand("a", steps * neurons, F::DTYPE)
        .operand("b", steps * neurons, F::DTYPE)
        .operand("grad", 2, F::DTYPE)
        .operand("ys", 2 * steps * neurons, F::DTYPE)
        .count(neurons);
    let launch = launch.int("the number of time steps", steps)?.record(&synapse::<F>(tau), &[]);
    Ok(launch.record(&[tau], &[]))
}
