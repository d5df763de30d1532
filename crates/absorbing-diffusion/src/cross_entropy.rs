//! The cross entropy of masked tokens, and its gradient, in one pass each.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use num_traits::Float;
use rayon::prelude::*;

const NAME: &str = "masked-cross-entropy";

/// `-ln p(h_0(i, j) | h_t)` summed over the masked tokens of each image: `[N, K, H', W']` -> `[N]`.
///
/// Only logits of masked tokens are read, so the others may be anything; and no tensor is made of all logits. That is on the CPU, which
/// takes f32 and f64; elsewhere Candle's operations do the same ([`reference`]).
pub(crate) fn masked_cross_entropy(logits: &Tensor, h0: &Tensor, masked: &Tensor) -> Result<Tensor> {
    if !logits.device().is_cpu() {
        return reference(logits, h0, masked);
    }
    let truth: Vec<u32> = h0.flatten_all()?.to_vec1()?;
    let masked: Vec<u8> = masked.flatten_all()?.to_vec1()?;
    let truth = truth.into_iter().zip(masked).map(|(code, masked)| (masked != 0).then_some(code)).collect();
    logits.contiguous()?.apply_op1(Masked { truth })
}

/// [`masked_cross_entropy`] by Candle's operations.
fn reference(logits: &Tensor, h0: &Tensor, masked: &Tensor) -> Result<Tensor> {
    // Selected before the softmax, not multiplied by 0 behind it: a logit that is not read may be anything.
    let read = masked.unsqueeze(1)?.broadcast_as(logits.shape())?.contiguous()?;
    let logits = read.where_cond(logits, &logits.zeros_like()?)?;
    // -log_softmax, gathered before the normaliser is taken off: no second tensor of all logits.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let normaliser = shifted.exp()?.sum_keepdim(1)?.log()?;
    let of_truth = shifted.gather(&h0.unsqueeze(1)?.contiguous()?, 1)?;
    let nats = (normaliser - of_truth)?.squeeze(1)?;
    masked.where_cond(&nats, &nats.zeros_like()?)?.sum((1, 2))
}

/// The true code of each token that is masked, image by image.
struct Masked {
    truth: Vec<Option<u32>>,
}

impl CustomOp1 for Masked {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = layout.shape().dims4()?;
        let nats = match logits {
            CpuStorage::F32(logits) => CpuStorage::F32(nats(contiguous(logits, layout)?, &self.truth, shape)),
            CpuStorage::F64(logits) => CpuStorage::F64(nats(contiguous(logits, layout)?, &self.truth, shape)),
            other => bail!("{NAME}: no {:?}", other.dtype()),
        };
        Ok((nats, Shape::from(shape.0)))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        logits.detach().apply_op2_no_bwd(&grad.detach().contiguous()?, self).map(Some)
    }
}

/// The gradient: `grad (softmax - 1 at the true code)` at masked tokens, and 0 elsewhere.
impl CustomOp2 for Masked {
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
        let shape = of_a.shape().dims4()?;
        let slopes = match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => {
                CpuStorage::F32(slopes(contiguous(a, of_a)?, contiguous(b, of_b)?, &self.truth, shape))
            }
            (CpuStorage::F64(a), CpuStorage::F64(b)) => {
                CpuStorage::F64(slopes(contiguous(a, of_a)?, contiguous(b, of_b)?, &self.truth, shape))
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

trait Real: Float + Send + Sync {}

impl Real for f32 {}
impl Real for f64 {}

fn nats<T: Real>(logits: &[T], truth: &[Option<u32>], (n, k, h, w): (usize, usize, usize, usize)) -> Vec<T> {
    let image = |i: usize| {
        let (logits, truth) = (&logits[i * k * h * w..][..k * h * w], &truth[i * h * w..][..h * w]);
        let (largest, sums) = normalisers(logits, truth);
        let of_token = |(at, code): (usize, &Option<u32>)| {
            code.map(|code| sums[at].ln() - (logits[code as usize * h * w + at] - largest[at]))
        };
        truth.iter().enumerate().filter_map(of_token).fold(T::zero(), |sum, nats| sum + nats)
    };
    (0..n).into_par_iter().map(image).collect()
}

fn slopes<T: Real>(
    logits: &[T],
    grad: &[T],
    truth: &[Option<u32>],
    (_, k, h, w): (usize, usize, usize, usize),
) -> Vec<T> {
    let mut slopes = vec![T::zero(); logits.len()];
    let images = slopes.par_chunks_mut((k * h * w).max(1)).zip(logits.par_chunks((k * h * w).max(1)));
    images.zip(truth.par_chunks((h * w).max(1))).zip(grad).for_each(|(((slopes, logits), truth), &grad)| {
        let (largest, sums) = normalisers(logits, truth);
        let masked: Vec<usize> = (0..h * w).filter(|&at| truth[at].is_some()).collect();
        for (slopes, logits) in slopes.chunks_mut(h * w).zip(logits.chunks(h * w)) {
            for &at in &masked {
                slopes[at] = grad * ((logits[at] - largest[at]).exp() / sums[at]);
            }
        }
        for (at, code) in truth.iter().enumerate() {
            if let Some(code) = code {
                let slope = &mut slopes[*code as usize * h * w + at];
                *slope = *slope - grad;
            }
        }
    });
    slopes
}

/// The largest logit of each token of an image, `[K, H', W']`, and of masked ones `sum_k exp(logit - largest)`.
fn normalisers<T: Real>(logits: &[T], truth: &[Option<u32>]) -> (Vec<T>, Vec<T>) {
    let tokens = truth.len();
    let (mut largest, mut sums) = (vec![T::neg_infinity(); tokens], vec![T::zero(); tokens]);
    for logits in logits.chunks(tokens.max(1)) {
        largest
            .iter_mut()
            .zip(logits)
            .for_each(|(largest, &x)| *largest = if x > *largest { x } else { *largest });
    }
    let masked: Vec<usize> = (0..tokens).filter(|&at| truth[at].is_some()).collect();
    for logits in logits.chunks(tokens.max(1)) {
        masked.iter().for_each(|&at| sums[at] = sums[at] + (logits[at] - largest[at]).exp());
    }
    (largest, sums)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use snn_core::Seed;

    use super::*;

    fn case(dtype: DType, scale: f64) -> (Var, Tensor, Tensor) {
        let (n, k, h, w) = (5, 7, 3, 4);
        let logits = Seed(1).normal("logits", &[n, k, h, w], (0., scale), dtype, &Device::Cpu).unwrap();
        let h0: Vec<u32> = (0..n * h * w).map(|i| (i * 5 % k) as u32).collect();
        // All, none, and some of the tokens of an image.
        let masked: Vec<u8> = (0..n * h * w).map(|i| u8::from(i < 12 || (i > 24 && i % 3 > 0))).collect();
        (
            Var::from_tensor(&logits).unwrap(),
            Tensor::from_vec(h0, (n, h, w), &Device::Cpu).unwrap(),
            Tensor::from_vec(masked, (n, h, w), &Device::Cpu).unwrap(),
        )
    }

    fn largest(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        difference.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_candles_operations() {
        for (dtype, scale, most) in
            [(DType::F64, 2., 1e-13), (DType::F64, 200., 1e-11), (DType::F32, 2., 2e-5)]
        {
            let (logits, h0, masked) = case(dtype, scale);
            let weights =
                Tensor::new(&[1f64, -2., 0.5, 3., 1.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let both = [masked_cross_entropy, reference].map(|f| {
                let nats = f(logits.as_tensor(), &h0, &masked).unwrap();
                let grads = (&nats * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                (nats.detach(), grads.get(&logits).unwrap().clone())
            });
            let [(value, slope), (wanted, of_wanted)] = &both;
            assert!(largest(value, wanted) < most * scale, "{dtype:?} {value} {wanted}");
            assert!(largest(slope, of_wanted) < most, "{dtype:?}");
            assert!(value.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[1] == 0.);
        }
    }

    #[test]
    fn what_is_not_masked_may_be_anything_and_what_is_spoils_its_image_alone() {
        let (logits, h0, masked) = case(DType::F32, 1.);
        let mut values = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[7 * 12 + 5] = f32::NAN; // image 1: nothing masked
        values[2 * 7 * 12 + 1] = f32::NAN; // image 2, token 1: masked
        values[3 * 7 * 12] = f32::INFINITY; // image 3, token 0: not masked
        let spoilt = Tensor::from_vec(values, logits.shape(), &Device::Cpu).unwrap();
        let before =
            masked_cross_entropy(logits.as_tensor(), &h0, &masked).unwrap().to_vec1::<f32>().unwrap();
        let after = masked_cross_entropy(&spoilt, &h0, &masked).unwrap().to_vec1::<f32>().unwrap();
        for (i, (before, after)) in before.iter().zip(after).enumerate() {
            assert!(if i == 2 { after.is_nan() } else { *before == after }, "{i}: {before} {after}");
        }
    }
}
