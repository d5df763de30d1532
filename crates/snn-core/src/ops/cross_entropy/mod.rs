//! The cross entropy of classes or codes, and its gradient, in one pass each.

mod cpu;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::backend::Backend;
use super::{Real, by_dtype, operand};

/// `-ln p(truth)` by the softmax of each row of logits, differentiable: `torch.nn.functional.cross_entropy` with `reduction="none"`.
///
/// No tensor is made of all probabilities.
///
/// # Shapes
/// `logits: [M, K]`, `M` numbers below `K` -> `[M]`.
/// # Errors
/// Returns an error if there are not as many numbers as rows, if one of them is `K` or more, or if the elements are neither f32 nor
/// f64.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let logits = Tensor::new(&[[0f32, 0.], [1000., 0.]], &Device::Cpu)?;
/// assert_eq!(snn_core::cross_entropy(&logits, &[1, 0])?.to_vec1::<f32>()?, [2f32.ln(), 0.]);
/// # Ok(()) }
/// ```
pub fn cross_entropy(logits: &Tensor, truth: &[u32]) -> Result<Tensor> {
    check(logits, truth)?;
    if Backend::of(logits) != Backend::Cpu {
        return cross_entropy_reference(logits, truth);
    }
    logits.contiguous()?.apply_op1(CrossEntropy { truth: truth.to_vec() })
}

/// The twin that [`cross_entropy`] is tested against, made of Candle's own operations. It runs on any device.
///
/// # Shapes
/// The shapes are those of [`cross_entropy`].
/// # Errors
/// Returns an error if there are not as many numbers as rows, or if one of them is `K` or more.
pub fn cross_entropy_reference(logits: &Tensor, truth: &[u32]) -> Result<Tensor> {
    check(logits, truth)?;
    if truth.is_empty() {
        return logits.sum(1);
    }
    // -log_softmax, gathered before the normaliser is taken off: no second tensor of all logits.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let normaliser = shifted.exp()?.sum_keepdim(1)?.log()?;
    let of_truth = shifted.gather(&Tensor::new(truth, logits.device())?.unsqueeze(1)?, 1)?;
    (normaliser - of_truth)?.squeeze(1)
}

/// Makes of one row of logits the weights of its softmax at a temperature, in place: `e^((x - largest) / temperature)`. Returns the largest
/// logit and the sum of the weights, or nothing if there is no such distribution: a NaN, no finite largest logit (`-inf` has weight 0), or a temperature
/// that is not above 0.
///
/// The exponential function is computed in vectors, within two roundings, and the sum in sixteen lanes: the same on all machines.
///
/// # Examples
/// ```
/// let mut logits = [1f64.ln(), 3f64.ln(), f64::NEG_INFINITY];
/// let (largest, sum) = snn_core::softmax_weights(&mut logits, 1.).unwrap();
/// assert!((largest - 3f64.ln()).abs() < 1e-15 && (logits[0] / sum - 0.25).abs() < 1e-15 && logits[2] == 0.);
/// assert!(snn_core::softmax_weights(&mut [f64::NAN, 0.], 1.).is_none());
/// assert!(snn_core::softmax_weights(&mut [0., 800.], -1.).is_none());
/// ```
pub fn softmax_weights(logits: &mut [f64], temperature: f64) -> Option<(f64, f64)> {
    if temperature.is_nan() || temperature <= 0. {
        return None;
    }
    let (largest, sum) = cpu::double(logits, temperature);
    (largest.is_finite() && sum.is_finite()).then_some((largest, sum))
}

fn check(logits: &Tensor, truth: &[u32]) -> Result<()> {
    let (rows, classes) = logits.dims2()?;
    if rows != truth.len() {
        bail!("cross_entropy: logits {:?} of {} truths, wants a row for each", logits.dims(), truth.len())
    }
    if let Some(i) = truth.iter().position(|&class| class as usize >= classes) {
        bail!("cross_entropy: truth {i} is {}, of {classes} classes", truth[i])
    }
    Ok(())
}

struct CrossEntropy {
    truth: Vec<u32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let nats = by_dtype!(s, "cross_entropy", F => {
            F::storage(cpu::nats(operand::<F>(s, l)?, &self.truth))
        });
        Ok((nats, self.truth.len().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        logits.detach().apply_op2_no_bwd(&grad.detach().contiguous()?, self).map(Some)
    }
}

/// `(logits, grad)` -> the gradient of the logits, `grad (softmax - 1 at the truth)`.
impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let slopes = by_dtype!(s1, "cross_entropy_backward", F => {
            F::storage(cpu::slopes(operand::<F>(s1, l1)?, operand::<F>(s2, l2)?, &self.truth))
        });
        Ok((slopes, l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops::testing::{assert_relative, check_gradients, check_threads, flat, random, run};

    const TRUTH: [u32; 5] = [3, 0, 36, 3, 17];

    #[test]
    fn agrees_with_its_twin_and_with_finite_differences() -> Result<()> {
        for (dtype, scale, bound) in [
            (DType::F64, 2., 1e-14),
            (DType::F64, 200., 1e-14),
            (DType::F32, 2., 3e-7),
            (DType::F32, 200., 3e-7),
        ] {
            let logits = [(random("logits", &[5, 37], dtype)? * scale)?];
            let fast = run(|x| cross_entropy(&x[0], &TRUTH), &logits)?;
            let slow = run(|x| cross_entropy_reference(&x[0], &TRUTH), &logits)?;
            for (fast, slow) in fast.iter().zip(&slow) {
                assert_relative("cross_entropy", fast, slow, bound);
            }
        }
        let logits = [random("logits", &[5, 37], DType::F64)?];
        check_gradients("cross_entropy", |x| cross_entropy(&x[0], &TRUTH), &logits, 1e-5, 1e-8)
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        let truth: Vec<u32> = (0..1001).map(|i| i % 65).collect();
        let logits = [random("logits", &[1001, 65], DType::F32)?];
        check_threads(|| run(|x| cross_entropy(&x[0], &truth), &logits))
    }

    #[test]
    fn a_spoilt_row_spoils_itself_alone() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let logits = random("logits", &[5, 37], dtype)?;
            let mut values = flat(&logits)?;
            (values[2 * 37 + 1], values[4 * 37], values[1]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
            let spoilt = Tensor::from_vec(values, (5, 37), &Device::Cpu)?.to_dtype(dtype)?;
            let before = flat(&cross_entropy(&logits, &TRUTH)?)?;
            let after = flat(&cross_entropy(&spoilt, &TRUTH)?)?;
            assert!(after[2].is_nan() && after[4].is_nan() && after[0] < before[0]);
            assert_eq!([before[1], before[3]], [after[1], after[3]]);
        }
        Ok(())
    }

    #[test]
    fn unfit_operands_are_errors() -> Result<()> {
        let logits = random("logits", &[2, 3], DType::F32)?;
        for (truth, part) in [(&[0][..], "of 1 truths"), (&[0, 3], "truth 1 is 3, of 3 classes")] {
            let refused = [cross_entropy(&logits, truth), cross_entropy_reference(&logits, truth)];
            assert!(
                refused.iter().all(|r| r.as_ref().is_err_and(|e| e.to_string().contains(part))),
                "{part}"
            );
        }
        assert!(cross_entropy(&logits.to_dtype(DType::BF16)?, &[0, 1]).is_err());
        let none = cross_entropy(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?, &[])?;
        assert_eq!(none.dims(), [0]);
        Ok(())
    }
}
