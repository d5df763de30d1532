//! The cross entropy of tokens, and its gradient, in one pass each.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use num_traits::Float;
use rayon::prelude::*;

const NAME: &str = "cross-entropy";

/// `-ln p(code)` of each token, by the softmax of its logits: `[M, K]` and `M` codes -> `[M]`.
///
/// No tensor is made of all probabilities. That is on the CPU, which takes f32 and f64; elsewhere Candle's operations do the same
/// ([`reference`]).
pub(crate) fn cross_entropy(logits: &Tensor, truth: &[u32]) -> Result<Tensor> {
    if !logits.device().is_cpu() {
        return reference(logits, truth);
    }
    logits.contiguous()?.apply_op1(OfTokens { truth: truth.to_vec() })
}

/// [`cross_entropy`] by Candle's operations.
fn reference(logits: &Tensor, truth: &[u32]) -> Result<Tensor> {
    // -log_softmax, gathered before the normaliser is taken off: no second tensor of all logits.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let normaliser = shifted.exp()?.sum_keepdim(1)?.log()?;
    let of_truth = shifted.gather(&Tensor::new(truth, logits.device())?.unsqueeze(1)?, 1)?;
    (normaliser - of_truth)?.squeeze(1)
}

struct OfTokens {
    truth: Vec<u32>,
}

impl CustomOp1 for OfTokens {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, codes) = layout.shape().dims2()?;
        let nats = match logits {
            CpuStorage::F32(logits) => CpuStorage::F32(nats(contiguous(logits, layout)?, &self.truth, codes)),
            CpuStorage::F64(logits) => CpuStorage::F64(nats(contiguous(logits, layout)?, &self.truth, codes)),
            other => bail!("{NAME}: no {:?}", other.dtype()),
        };
        Ok((nats, Shape::from(tokens)))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        logits.detach().apply_op2_no_bwd(&grad.detach().contiguous()?, self).map(Some)
    }
}

/// The gradient: `grad (softmax - 1 at the true code)`.
impl CustomOp2 for OfTokens {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        of_a: &Layout,
        b: &CpuStorage,
        of_b: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, codes) = of_a.shape().dims2()?;
        let slopes = match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => {
                CpuStorage::F32(slopes(contiguous(a, of_a)?, contiguous(b, of_b)?, &self.truth, codes))
            }
            (CpuStorage::F64(a), CpuStorage::F64(b)) => {
                CpuStorage::F64(slopes(contiguous(a, of_a)?, contiguous(b, of_b)?, &self.truth, codes))
            }
            (a, b) => bail!("{NAME}: no {:?} with {:?}", a.dtype(), b.dtype()),
        };
        Ok((slopes, of_a.shape().clone()))
    }
}

fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("{NAME}: needs a contiguous tensor"),
    }
}

trait Real: Float + Send + Sync + std::iter::Sum {}

impl Real for f32 {}
impl Real for f64 {}

fn nats<T: Real>(logits: &[T], truth: &[u32], codes: usize) -> Vec<T> {
    let of_token = |(logits, &code): (&[T], &u32)| {
        let largest = largest(logits);
        let sum: T = logits.iter().map(|&x| (x - largest).exp()).sum();
        sum.ln() - (logits[code as usize] - largest)
    };
    logits.par_chunks(codes.max(1)).zip(truth).map(of_token).collect()
}

fn slopes<T: Real>(logits: &[T], grad: &[T], truth: &[u32], codes: usize) -> Vec<T> {
    let mut slopes = vec![T::zero(); logits.len()];
    let tokens = slopes.par_chunks_mut(codes.max(1)).zip(logits.par_chunks(codes.max(1)));
    tokens.zip(truth).zip(grad).for_each(|(((slopes, logits), &code), &grad)| {
        let largest = largest(logits);
        slopes.iter_mut().zip(logits).for_each(|(slope, &x)| *slope = (x - largest).exp());
        let scale = grad / slopes.iter().copied().sum::<T>();
        slopes.iter_mut().for_each(|slope| *slope = *slope * scale);
        slopes[code as usize] = slopes[code as usize] - grad;
    });
    slopes
}

fn largest<T: Real>(logits: &[T]) -> T {
    logits.iter().fold(T::neg_infinity(), |largest, &x| if x > largest { x } else { largest })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use snn_core::Seed;

    use super::*;

    const TRUTH: [u32; 5] = [3, 0, 6, 3, 1];

    fn logits(dtype: DType, scale: f64) -> Var {
        let logits = Seed(1).normal("logits", &[5, 7], (0., scale), dtype, &Device::Cpu).unwrap();
        Var::from_tensor(&logits).unwrap()
    }

    fn largest(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        difference.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_candles_operations() {
        for (dtype, scale, most) in
            [(DType::F64, 2., 1e-13), (DType::F64, 200., 1e-11), (DType::F32, 2., 2e-6)]
        {
            let logits = logits(dtype, scale);
            let weights =
                Tensor::new(&[1f64, -2., 0.5, 3., 1.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let both = [cross_entropy, reference].map(|f| {
                let nats = f(logits.as_tensor(), &TRUTH).unwrap();
                let grads = (&nats * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                (nats.detach(), grads.get(&logits).unwrap().clone())
            });
            let [(value, slope), (wanted, of_wanted)] = &both;
            assert!(largest(value, wanted) < most * scale, "{dtype:?} {value} {wanted}");
            assert!(largest(slope, of_wanted) < most, "{dtype:?}");
        }
    }

    #[test]
    fn a_spoilt_token_spoils_itself_alone() {
        let logits = logits(DType::F32, 1.);
        let mut values = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (values[2 * 7 + 1], values[4 * 7]) = (f32::NAN, f32::INFINITY);
        let spoilt = Tensor::from_vec(values, logits.shape(), &Device::Cpu).unwrap();
        let before = cross_entropy(logits.as_tensor(), &TRUTH).unwrap().to_vec1::<f32>().unwrap();
        let after = cross_entropy(&spoilt, &TRUTH).unwrap().to_vec1::<f32>().unwrap();
        for (i, (before, after)) in before.iter().zip(after).enumerate() {
            assert!(
                if [2, 4].contains(&i) { after.is_nan() } else { *before == after },
                "{i}: {before} {after}"
            );
        }
    }
}
