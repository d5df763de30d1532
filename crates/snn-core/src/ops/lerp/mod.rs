//! Linear interpolation between two tensors with a trainable coefficient, in one pass.

mod cpu;

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::backend::Backend;
use super::{Real, by_dtype, operand, same_type};

/// Mixes two tensors by a trainable coefficient: `k pair[0] + (1 - k) pair[1]`, differentiable in both arguments
/// (paper Eq. 6).
///
/// # Shapes
/// `pair: [2, ...]`, `k: [1]` -> `[...]`.
/// # Errors
/// Returns an error if the shapes or element types do not fit.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let (pair, k) = (Tensor::new(&[[1f32, 2.], [5., 2.]], &Device::Cpu)?, Tensor::new(&[0.25f32], &Device::Cpu)?);
/// assert_eq!(snn_core::lerp(&pair, &k)?.to_vec1::<f32>()?, [4., 2.]);
/// # Ok(()) }
/// ```
pub fn lerp(pair: &Tensor, k: &Tensor) -> Result<Tensor> {
    if pair.dims().first() != Some(&2) || k.dims() != [1] {
        bail!("lerp: pair {:?} and k {:?}, wants [2, ...] and [1]", pair.dims(), k.dims())
    }
    same_type("lerp", &[("pair", pair), ("k", k)])?;
    if Backend::of(pair) != Backend::Cpu {
        return lerp_reference(pair, k);
    }
    pair.contiguous()?.apply_op2(&k.contiguous()?, Lerp)
}

/// The twin that [`lerp`] is tested against, made of Candle's own operations. It runs on any device.
///
/// # Shapes
/// The shapes are those of [`lerp`].
/// # Errors
/// Returns an error if the shapes or element types do not fit.
pub fn lerp_reference(pair: &Tensor, k: &Tensor) -> Result<Tensor> {
    let (a, b) = (pair.get(0)?, pair.get(1)?);
    &b + (a - &b)?.broadcast_mul(k)?
}

struct Lerp;

impl CustomOp2 for Lerp {
    fn name(&self) -> &'static str {
        "lerp"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ys = by_dtype!(s1, "lerp", F => {
            F::storage(cpu::forward(operand::<F>(s1, l1)?, operand::<F>(s2, l2)?[0]))
        });
        Ok((ys, l1.dims()[1..].into()))
    }

    fn bwd(
        &self,
        pair: &Tensor,
        k: &Tensor,
        _ys: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (pair, grad) = (pair.contiguous()?, grad.contiguous()?);
        let both = pair.apply_op2_no_bwd(&grad, &Gradient { k: k.to_dtype(DType::F64)?.to_vec1()?[0] })?;
        let n = pair.elem_count();
        Ok((Some(both.narrow(0, 0, n)?.reshape(pair.shape())?), Some(both.narrow(0, n, 1)?)))
    }
}

/// `(pair, grad)` -> the gradient of the pair and, behind it, of `k`.
struct Gradient {
    k: f64,
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "lerp_backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let both = by_dtype!(s1, "lerp", F => {
            F::storage(cpu::gradient(operand::<F>(s1, l1)?, operand::<F>(s2, l2)?, self.k))
        });
        Ok((both, (l1.shape().elem_count() + 1).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_relative, check_gradients, check_threads, random, run};

    #[test]
    fn agrees_with_its_twin_and_with_finite_differences() -> Result<()> {
        for (shape, dtype, bound) in [(&[2, 3, 5][..], DType::F64, 1e-14), (&[2, 9001], DType::F32, 1e-5)] {
            let inputs = [random("pair", shape, dtype)?, random("k", &[1], dtype)?];
            let fast = run(|x| lerp(&x[0], &x[1]), &inputs)?;
            let slow = run(|x| lerp_reference(&x[0], &x[1]), &inputs)?;
            for (fast, slow) in fast.iter().zip(&slow) {
                assert_relative("lerp", fast, slow, bound);
            }
        }
        let inputs = [random("pair", &[2, 3], DType::F64)?, random("k", &[1], DType::F64)?];
        check_gradients("lerp", |x| lerp(&x[0], &x[1]), &inputs, 1e-5, 1e-8)
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        let inputs = [random("pair", &[2, 20_001], DType::F32)?, random("k", &[1], DType::F32)?];
        check_threads(|| run(|x| lerp(&x[0], &x[1]), &inputs))
    }

    #[test]
    fn unfit_operands_are_errors() -> Result<()> {
        let (pair, k) = (random("pair", &[2, 3], DType::F32)?, random("k", &[1], DType::F32)?);
        assert!(lerp(&pair.t()?, &k).is_err() && lerp(&pair, &k.get(0)?).is_err());
        assert!(lerp(&pair, &k.to_dtype(DType::F64)?).is_err());
        Ok(())
    }
}
