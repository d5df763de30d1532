//! How the kernel of `adamw.cu` is launched.

use candle_core::{Layout, Result};

use super::Step;
use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous, shaped};

/// `(param, moments, grad)`, the first two in place.
pub(crate) fn step<F: Real>(param: &Layout, moments: &Layout, grad: &Layout, by: Step) -> Result<Launch> {
    contiguous("adamw", "param", param)?;
    shaped("adamw", "moments", moments, &[&[2], param.dims()].concat())?;
    shaped("adamw", "grad", grad, param.dims())?;
    let elements = param.shape().elem_count();
    let launch = Launch::new("adamw", F::DTYPE, elements, |_| 0)?
        .operand("param", elements, F::DTYPE)
        .operand("moments", 2 * elements, F::DTYPE)
        .operand("grad", elements, F::DTYPE)
        .count(elements);
    let Step { beta1, beta2, eps, step_size, root, keep } = by;
    let numbers = [beta1, beta2, 1. - beta1, 1. - beta2, keep, step_size, 1. / root, eps].map(F::from_f64);
    Ok(launch.record(&numbers, &[]))
}
