//! How the kernel of `adamw.cu` is launched.

#[cfg(feature = "cuda")]
mod run;

use candle_core::{Layout, Result};

use super::Step;
use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous, shaped};
#[cfg(feature = "cuda")]
pub(crate) use run::step;

const FILE: &str = "ops/adamw/cuda/adamw.cu";
/// Parameters of one launch, as the kernel has it.
pub(crate) const SLOTS: usize = 32;

/// `(params, moments, grads)` of up to [`SLOTS`] parameters, the first two in place: the launch takes all of the first, then all of the
/// second, then all of the third.
pub(crate) fn launch<F: Real>(all: &[[&Layout; 3]], by: Step) -> Result<Launch> {
    let mut elements = Vec::with_capacity(all.len());
    for [param, moments, grad] in all {
        contiguous("adamw", "param", param)?;
        shaped("adamw", "moments", moments, &[&[2], param.dims()].concat())?;
        shaped("adamw", "grad", grad, param.dims())?;
        elements.push(param.shape().elem_count());
    }
    if all.len() > SLOTS {
        candle_core::bail!("adamw: {} parameters in a launch for {SLOTS}", all.len())
    }
    let pairs: Vec<_> = elements.iter().map(|n| 2 * n).collect();
    let most = elements.iter().copied().max().unwrap_or(0);
    let launch = Launch::new(FILE, "adamw", F::DTYPE, most, |_| 0)?
        .table("param", &elements, SLOTS, F::DTYPE)
        .table("moments", &pairs, SLOTS, F::DTYPE)
        .table("grad", &elements, SLOTS, F::DTYPE)
        .counts(&elements, SLOTS)
        .int("the number of parameters", all.len())?;
    let Step { beta1, beta2, eps, step_size, root, keep } = by;
    let numbers = [beta1, beta2, 1. - beta1, 1. - beta2, keep, step_size, 1. / root, eps].map(F::from_f64);
    Ok(launch.record(&numbers, &[]))
}
