//! One step of AdamW on one parameter, in place: Candle's own operations would make a dozen passes and tensors of it.

mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor};

use super::backend::Backend;
use super::{by_dtype, operand};

/// The numbers of a step (see [`AdamW`](crate::AdamW)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) eps: f64,
    /// `lr / (1 - beta1^t)`
    pub(crate) step_size: f64,
    /// `sqrt(1 - beta2^t)`
    pub(crate) root: f64,
    /// `1 - lr weight_decay`
    pub(crate) keep: f64,
}

/// The element type of a parameter's moments: f32 for those of half precision, in which squares of gradients vanish.
pub(crate) fn moments_type(param: &Tensor) -> DType {
    match param.dtype() {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// Moves a parameter and its moments by one step.
///
/// # Shapes
/// `param` and `grad` have the same shape; `moments: [2, ...]`, of [`moments_type`], holds the first and the second moment in that
/// shape.
/// # Errors
/// Returns an error if shapes, element types or devices do not fit; the moments may have been moved then.
pub(crate) fn step(param: &Tensor, moments: &Tensor, grad: &Tensor, by: Step) -> Result<()> {
    #[cfg(feature = "cuda")]
    if Backend::of(param) == Backend::Cuda {
        return cuda::step(&[(param, moments, grad)], by);
    }
    // The kernels are of single and double precision; variables are always contiguous.
    let has_kernel = matches!(param.dtype(), DType::F32 | DType::F64);
    if Backend::of(param) != Backend::Cpu || !has_kernel {
        return step_reference(param, moments, grad, by);
    }
    check(param, moments, grad)?;
    moments.inplace_op2(&grad.contiguous()?, &Moments(by))?;
    param.inplace_op2(moments, &Descent(by))
}

/// Moves parameters by one step each: `(param, moments, grad)`. On a GPU, in few launches.
///
/// # Errors
/// Returns the errors of [`step`]; those before what does not fit may have been moved.
pub(crate) fn step_all(all: &[(&Tensor, &Tensor, &Tensor)], by: Step) -> Result<()> {
    #[cfg(feature = "cuda")]
    if all.iter().all(|(param, ..)| Backend::of(param) == Backend::Cuda) {
        return cuda::step(all, by);
    }
    all.iter().try_for_each(|(param, moments, grad)| step(param, moments, grad, by))
}

/// The twin of [`step`], made of Candle's own operations. It runs on any device.
pub(crate) fn step_reference(param: &Tensor, moments: &Tensor, grad: &Tensor, by: Step) -> Result<()> {
    check(param, moments, grad)?;
    let Step { beta1, beta2, eps, step_size, root, keep } = by;
    let wide = moments.dtype();
    let (start, grad) = (param.detach().to_dtype(wide)?, grad.to_dtype(wide)?);
    let m = ((moments.get(0)? * beta1)? + (&grad * (1. - beta1))?)?;
    let v = ((moments.get(1)? * beta2)? + (grad.sqr()? * (1. - beta2))?)?;
    let update = ((&m * step_size)? / ((v.sqrt()? / root)? + eps)?)?;
    let moved = ((start * keep)? - update)?.to_dtype(param.dtype())?;
    moments.slice_set(&Tensor::stack(&[m, v], 0)?, 0, 0)?;
    // A slice as long as the whole; a scalar has no axis to cut.
    param.flatten_all()?.slice_set(&moved.flatten_all()?, 0, 0)
}

fn check(param: &Tensor, moments: &Tensor, grad: &Tensor) -> Result<()> {
    let fits = moments.dims().split_first() == Some((&2, param.dims())) && grad.dims() == param.dims();
    if fits && grad.dtype() == param.dtype() && moments.dtype() == moments_type(param) {
        return Ok(());
    }
    candle_core::bail!(
        "adamw: a gradient of {:?} in {:?} for a parameter of {:?} in {:?}",
        grad.dims(),
        grad.dtype(),
        param.dims(),
        param.dtype()
    )
}

struct Moments(Step);

impl InplaceOp2 for Moments {
    fn name(&self) -> &'static str {
        "adamw_moments"
    }

    fn cpu_fwd(&self, moments: &mut CpuStorage, l1: &Layout, grad: &CpuStorage, l2: &Layout) -> Result<()> {
        by_dtype!(grad, self.name(), F => {
            let grad = operand::<F>(grad, l2)?;
            let (m, v) = cpu::elements::<F>(moments, l1)?.split_at_mut(grad.len());
            cpu::moments(self.0, m, v, grad);
        });
        Ok(())
    }
}

struct Descent(Step);

impl InplaceOp2 for Descent {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, l1: &Layout, moments: &CpuStorage, l2: &Layout) -> Result<()> {
        by_dtype!(moments, self.name(), F => {
            let (m, v) = operand::<F>(moments, l2)?.split_at(l1.shape().elem_count());
            cpu::descent(self.0, cpu::elements::<F>(param, l1)?, m, v);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops::testing::{assert_identical, check_threads, random};

    const BY: Step = Step { beta1: 0.9, beta2: 0.999, eps: 1e-8, step_size: 0.013, root: 0.21, keep: 0.999 };

    /// Parameter and moments after three steps.
    fn run(
        step: impl Fn(&Tensor, &Tensor, &Tensor, Step) -> Result<()>,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Vec<Tensor>> {
        let param = Var::from_tensor(&random("param", shape, dtype)?)?;
        let moments = Tensor::zeros([&[2], shape].concat(), moments_type(&param), &Device::Cpu)?;
        for i in 0..3 {
            let grad = random(&format!("grad {i}"), shape, dtype)?;
            // Zeros of both signs, and a gradient that vanishes when squared.
            let grad = (&grad * if i == 1 { -0. } else { 1. })?;
            step(&param, &moments, &grad, Step { step_size: BY.step_size / f64::from(i + 1), ..BY })?;
        }
        Ok(vec![param.as_tensor().copy()?, moments])
    }

    #[test]
    fn equals_its_twin_bit_for_bit() -> Result<()> {
        for (shape, dtype) in
            [(&[7, 5][..], DType::F32), (&[70_001], DType::F32), (&[], DType::F64), (&[3, 4, 2], DType::F64)]
        {
            for (fast, slow) in run(step, shape, dtype)?.iter().zip(&run(step_reference, shape, dtype)?) {
                assert_identical("adamw", fast, slow);
            }
        }
        Ok(())
    }

    /// There is no kernel of half precision: the twin runs, with moments in f32. A step with small gradients is that of f32, rounded.
    #[test]
    fn half_precision_moves_as_single() -> Result<()> {
        for (dtype, rounding) in [(DType::BF16, 1. / 256.), (DType::F16, 1. / 2048.)] {
            let grad = (random("grad", &[7], DType::F32)? * 1e-3)?.to_dtype(dtype)?;
            let start = random("param", &[7], DType::F32)?.to_dtype(dtype)?;
            let moved = |dtype| -> Result<Vec<f64>> {
                let param = Var::from_tensor(&start.to_dtype(dtype)?)?;
                let moments = Tensor::zeros((2, 7), DType::F32, &Device::Cpu)?;
                step(&param, &moments, &grad.to_dtype(dtype)?, Step { eps: 1e-12, ..BY })?;
                param.as_tensor().to_dtype(DType::F64)?.to_vec1()
            };
            for (half, single) in moved(dtype)?.into_iter().zip(moved(DType::F32)?) {
                assert!((half - single).abs() <= rounding * single.abs(), "{dtype:?}: {half} {single}");
            }
        }
        Ok(())
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        check_threads(|| run(step, &[123_457], DType::F32))
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let (param, moments) = (random("p", &[3], DType::F32)?, random("m", &[2, 3], DType::F32)?);
        for step in [step, step_reference] {
            assert!(step(&param, &moments, &random("g", &[4], DType::F32)?, BY).is_err());
            assert!(step(&param, &moments, &random("g", &[3], DType::F64)?, BY).is_err());
            assert!(step(&param, &param, &random("g", &[3], DType::F32)?, BY).is_err());
        }
        Ok(())
    }
}
