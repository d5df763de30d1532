//! How the kernel of `weighted_sums.cu` is launched.

use candle_core::{Layout, Result, bail};

use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous};

/// `(xs, weights, ys)`, for the sums and, with `rows` and time steps exchanged and the weights transposed, for their gradient.
pub(crate) fn weighted_sums<F: Real>(xs: &Layout, rows: usize) -> Result<Launch> {
    contiguous("weighted_sums", "xs", xs)?;
    let [steps, dims @ ..] = xs.dims() else { bail!("weighted_sums: wants [T, ...], got a scalar") };
    let (neurons, weights) = (dims.iter().product(), rows * steps);
    let shared = weights * F::DTYPE.size_in_bytes();
    let launch = Launch::new("weighted_sums", F::DTYPE, neurons, |_| shared)?
        .operand("xs", steps * neurons, F::DTYPE)
        .operand("weights", weights, F::DTYPE)
        .operand("ys", rows * neurons, F::DTYPE)
        .count(neurons);
    launch.int("the number of time steps", *steps)?.int("the number of rows", rows)
}
