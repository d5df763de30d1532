//! Batch normalisation over every axis but the channel, with batch statistics.

mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;
pub(super) mod shards;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail,
};

use super::backend::Backend;
use super::{Real, by_dtype, not_negative, operand, same_type};
use crate::exchange::{self, Exchange};
use cpu::Planes;

/// The result of [`batch_norm`], with the statistics that a layer averages for inference.
#[derive(Debug, Clone)]
pub struct BatchNormed {
    /// The normalised tensor, of the input's shape.
    pub ys: Tensor,
    /// Mean of each channel, `[C]`, without gradient.
    pub mean: Tensor,
    /// Biased variance of each channel, `[C]`, without gradient.
    pub variance: Tensor,
}

/// Batch normalisation as in training, with the statistics of the batch itself; differentiable in all three arguments.
///
/// `y = (x - mean_c) / sqrt(var_c + eps) * weight_c + bias_c`, with the mean and the (biased) variance over all axes but the
/// second.
///
/// # Shapes
/// `xs: [M, C, ...]`, `weight, bias: [C]`. f32 or f64; sums run in f64.
/// # Errors
/// Returns an error if a channel has fewer than two values (a single one has no spread to divide by, and PyTorch refuses it
/// too), if the rank is below 2, or if `weight` or `bias` has another length or element type.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let xs = Tensor::new(&[[1f32, 5.], [3., 5.]], &Device::Cpu)?; // [M = 2, C = 2]
/// let (weight, bias) = (Tensor::ones(2, DType::F32, &Device::Cpu)?, Tensor::zeros(2, DType::F32, &Device::Cpu)?);
/// let out = snn_core::batch_norm(&xs, &weight, &bias, 0.)?;
/// assert_eq!(out.mean.to_vec1::<f32>()?, [2., 5.]);
/// assert_eq!(out.variance.to_vec1::<f32>()?, [1., 0.]);
/// # Ok(()) }
/// ```
pub fn batch_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<BatchNormed> {
    Ok(batch_norm_of_copies(xs, weight, bias, eps, 1, None)?.0)
}

/// [`batch_norm`] where each element stands for `copies` equal ones. They change neither mean nor variance, but count as so
/// many values. With `exchange`, `xs` is one shard of a batch, whose statistics are those of all shards. Also returns the
/// elements of each channel, those of all shards and without copies.
pub(crate) fn batch_norm_of_copies(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    copies: usize,
    exchange: Option<Arc<dyn Exchange>>,
) -> Result<(BatchNormed, usize)> {
    check(xs, weight, bias, copies)?;
    #[cfg(feature = "cuda")]
    if Backend::of(xs) == Backend::Cuda {
        let xs = xs.contiguous()?;
        let norm = cuda::run::Normalise::of_batch(&xs, weight, bias, eps, exchange)?;
        let (moments, count) = (norm.moments.clone(), norm.count);
        let ys = xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, norm)?;
        return cuda::run::made(&moments, count, ys);
    }
    if Backend::of(xs) != Backend::Cpu {
        if exchange.is_some() {
            bail!("batch_norm: a batch in shards has no kernel on {:?}", xs.device().location())
        }
        return Ok((reference(xs, weight, bias, eps)?, xs.elem_count() / xs.dim(1)?));
    }
    let (xs, channels) = (xs.contiguous()?, xs.dim(1)?);
    let moments = xs.detach().apply_op1_no_bwd(&Moments { exchange: exchange.clone() })?;
    let [mean, variance] = [0, channels].map(|from| moments.narrow(0, from, channels));
    let (mean, variance, count) = (mean?, variance?, moments.get(2 * channels)?.to_scalar::<f64>()?);
    let op =
        BatchNorm { mean: mean.to_vec1()?, inv_std: inv_std(&variance.to_vec1()?, eps), count, exchange };
    let ys = xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    let like = |t: Tensor| t.to_dtype(xs.dtype());
    Ok((BatchNormed { ys, mean: like(mean)?, variance: like(variance)? }, count as usize))
}

/// The twin that [`batch_norm`] is tested against, made of Candle's own operations. It runs on any device.
///
/// # Shapes
/// The shapes are those of [`batch_norm`].
/// # Errors
/// Returns the errors of [`batch_norm`].
pub fn batch_norm_reference(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<BatchNormed> {
    check(xs, weight, bias, 1)?;
    reference(xs, weight, bias, eps)
}

/// Refuses what no batch norm takes.
pub(crate) fn check(xs: &Tensor, weight: &Tensor, bias: &Tensor, copies: usize) -> Result<()> {
    let channels = check_channels("batch_norm", xs, weight, bias)?;
    check_count((xs.elem_count() / channels.max(1)).saturating_mul(copies), &xs.dims())
}

/// The channels of `xs`, each of which has a weight and a bias.
pub(crate) fn check_channels(op: &str, xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<usize> {
    let channels = xs.dim(1)?;
    if weight.dims() != [channels] || bias.dims() != [channels] {
        bail!("{op}: {:?} with weight {:?} and bias {:?}", xs.dims(), weight.dims(), bias.dims())
    }
    same_type(op, &[("xs", xs), ("weight", weight), ("bias", bias)])?;
    Ok(channels)
}

/// Refuses a batch with fewer than two values in a channel, in PyTorch's words; `dims` is the shape to name. A shard may have one, if others
/// have more: [`check_count_of_all`].
pub(crate) fn check_count(values: usize, dims: &dyn std::fmt::Debug) -> Result<()> {
    if values < if exchange::current().is_some() { 1 } else { 2 } {
        bail!(
            "batch_norm: expected more than 1 value per channel when training, got {values} with input size {dims:?}"
        )
    }
    Ok(())
}

/// The same of all shards together.
pub(crate) fn check_count_of_all(values: f64) -> Result<()> {
    if values < 2. {
        bail!("batch_norm: expected more than 1 value per channel when training, got {values} in all shards")
    }
    Ok(())
}

fn reference(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<BatchNormed> {
    let (m, c) = (xs.dim(0)?, xs.dim(1)?);
    let flat = xs.reshape((m, c, ()))?.transpose(0, 1)?.flatten_from(1)?; // [C, M*S]
    let mean = flat.mean_keepdim(1)?;
    let centred = flat.broadcast_sub(&mean)?;
    // What rounding left in the mean of many elements.
    let rest = centred.mean_keepdim(1)?;
    let (mean, centred) = ((mean + &rest)?, centred.broadcast_sub(&rest)?);
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let normed = centred.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let ys = normed.broadcast_mul(&weight.reshape((c, 1))?)?.broadcast_add(&bias.reshape((c, 1))?)?;
    let ys = ys.reshape((c, m, ()))?.transpose(0, 1)?.reshape(xs.shape())?;
    Ok(BatchNormed { ys, mean: mean.flatten_all()?.detach(), variance: variance.flatten_all()?.detach() })
}

fn inv_std(variance: &[f64], eps: f64) -> Vec<f64> {
    variance.iter().map(|v| 1. / (v + eps).sqrt()).collect()
}

fn planes(layout: &Layout) -> Planes {
    let dims = layout.dims();
    Planes { channels: dims[1], size: dims[2..].iter().product() }
}

/// `x -> [2 C + 1]` in f64: the mean of each channel, the biased variance of each, and the number of their elements.
struct Moments {
    exchange: Option<Arc<dyn Exchange>>,
}

impl CustomOp1 for Moments {
    fn name(&self) -> &'static str {
        "batch_norm_moments"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let p = planes(layout);
        let n = (layout.shape().elem_count() / p.channels) as f64;
        let sums = by_dtype!(storage, "batch_norm", F => {
            let xs = operand::<F>(storage, layout)?;
            // Around a value of the channel itself, so that a large mean does not swallow a small variance.
            let pivots: Vec<f64> = (0..p.channels).map(|c| WithDType::to_f64(xs[c * p.size])).collect();
            match &self.exchange {
                Some(exchange) => {
                    shards::moments_of_all(p.channels, n, |pivots| p.sum_around(xs, pivots), &**exchange)?
                }
                None => [moments(&p, xs, &pivots, n), vec![n]].concat(),
            }
        });
        Ok((CpuStorage::F64(sums), (2 * p.channels + 1).into()))
    }
}

fn moments<F: Real>(p: &Planes, xs: &[F], pivots: &[f64], n: f64) -> Vec<f64> {
    let sums = p.sum_around(xs, pivots);
    let means = sums.iter().zip(pivots).map(|(s, pivot)| pivot + s.0 / n);
    let variances = sums.iter().map(|s| not_negative(s.1 / n - (s.0 / n).powi(2)));
    means.chain(variances).collect()
}

struct BatchNorm {
    mean: Vec<f64>,
    inv_std: Vec<f64>,
    /// Elements of each channel.
    count: f64,
    exchange: Option<Arc<dyn Exchange>>,
}

impl BatchNorm {
    /// The mean in the element type, and what that rounds off. Subtracted first, it leaves small numbers without rounding;
    /// in `scale x - scale mean` the same numbers would be what two large ones leave of each other.
    fn centre<F: Real>(&self, c: usize) -> (F, f64) {
        let centre = F::from_f64(self.mean[c]);
        (centre, self.mean[c] - centre.to_f64())
    }

    fn forward<F: Real>(&self, xs: &[F], weight: &[F], bias: &[F], p: Planes) -> Vec<F> {
        let coefficients: Vec<[F; 3]> = (0..p.channels)
            .map(|c| {
                let (scale, (centre, rest)) = (weight[c].to_f64() * self.inv_std[c], self.centre(c));
                [centre, F::from_f64(scale), F::from_f64(bias[c].to_f64() - scale * rest)]
            })
            .collect();
        p.affine(xs, &coefficients)
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = by_dtype!(s1, "batch_norm", F => {
            let (xs, weight, bias) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?, operand::<F>(s3, l3)?);
            F::storage(self.forward(xs, weight, bias, planes(l1)))
        });
        Ok((values, l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _ys: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let sums = xs.apply_op2_no_bwd(&grad, &GradientSums { mean: &self.mean, inv_std: &self.inv_std })?;
        let (grad_bias, grad_weight) = (sums.get(0)?, sums.get(1)?);
        // The parameters' gradients are this shard's; the input's sees the whole batch.
        let of_all = |own: &Tensor| match &self.exchange {
            Some(exchange) => exchange.merge(own.to_vec1()?, exchange::add),
            None => own.to_vec1(),
        };
        let op = InputGradient {
            norm: self,
            weight: weight.to_dtype(candle_core::DType::F64)?.to_vec1()?,
            grad_bias: of_all(&grad_bias)?,
            grad_weight: of_all(&grad_weight)?,
        };
        let grad_xs = xs.track_op().then(|| xs.apply_op2_no_bwd(&grad, &op)).transpose()?;
        let like = |t: Tensor| t.to_dtype(weight.dtype()).map(Some);
        Ok((grad_xs, like(grad_weight)?, like(grad_bias)?))
    }
}

/// `(x, gy) -> [2, C]` in f64: `sum gy` and `sum gy * x_hat`, the gradients of bias and weight.
struct GradientSums<'a> {
    mean: &'a [f64],
    inv_std: &'a [f64],
}

impl CustomOp2 for GradientSums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_gradient_sums"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let p = planes(l1);
        let sums = by_dtype!(s1, "batch_norm", F => {
            p.sum_products(operand::<F>(s1, l1)?, operand::<F>(s2, l2)?, self.mean)
        });
        let weights = sums.iter().zip(self.inv_std).map(|(s, inv_std)| s.1 * inv_std);
        let values = sums.iter().map(|s| s.0).chain(weights).collect();
        Ok((CpuStorage::F64(values), (2, p.channels).into()))
    }
}

/// `gx = weight inv_std (gy - mean(gy) - x_hat mean(gy x_hat))`, as one affine map of `(gy, x)` a channel.
struct InputGradient<'a> {
    norm: &'a BatchNorm,
    weight: Vec<f64>,
    grad_bias: Vec<f64>,
    grad_weight: Vec<f64>,
}

impl InputGradient<'_> {
    fn coefficients<F: Real>(&self, n: f64) -> Vec<[F; 4]> {
        (0..self.weight.len())
            .map(|c| {
                let inv_std = self.norm.inv_std[c];
                let scale = self.weight[c] * inv_std;
                let slope = -scale * inv_std * self.grad_weight[c] / n;
                let (centre, rest) = self.norm.centre(c);
                let offset = -scale * self.grad_bias[c] / n - slope * rest;
                let [scale, slope, offset] = [scale, slope, offset].map(F::from_f64);
                [scale, slope, centre, offset]
            })
            .collect()
    }
}

impl CustomOp2 for InputGradient<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_input_gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (p, n) = (planes(l1), self.norm.count);
        let values = by_dtype!(s1, "batch_norm", F => {
            let (xs, grad) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?);
            F::storage(p.map(grad, xs, &self.coefficients(n)))
        });
        Ok((values, l1.shape().clone()))
    }
}
