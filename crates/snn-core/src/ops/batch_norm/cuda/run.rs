//! Batch norm on a GPU: its statistics leave it where other shards of the batch must know them, else never.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaViewMut};
use candle_core::{CudaStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::Planes;
use crate::exchange::{self, Exchange};
use crate::ops::batch_norm::BatchNormed;
use crate::ops::batch_norm::shards::merge_moments;
use crate::ops::cuda::apply::{Stored, apply1, apply3, no_cpu_fwd3};
use crate::ops::cuda::gpu::{Call, Element, by_element, uninitialised};

/// `x -> [2, C]` in f64: mean and biased variance of each channel.
fn moments(xs: &Tensor) -> Result<Tensor> {
    let name = "batch_norm_moments";
    apply1(name, xs, |(xs, layout)| {
        let planes = Planes::new(name, "xs", layout)?;
        let moments = by_element!(xs, name, F => moments_of::<F>(planes, xs, layout)?);
        Ok((moments, (2, planes.channels).into()))
    })
}

fn moments_of<F: Element>(planes: Planes, xs: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let device = xs.device();
    let mut parts = uninitialised::<f64>(device, planes.sums())?;
    let call = Call::new(device, planes.sum::<F>()?).read::<F>(xs, layout)?;
    call.write(&mut parts.slice_mut(..))?.run()?;
    let call = Call::new(device, planes.moments::<F>()?).read::<F>(xs, layout)?.view(&parts.slice(..))?;
    call.fill::<f64>(2 * planes.channels)
}

/// `(moments, weight, bias) -> [C, 3]`, the kernels' `by`.
fn coefficients(moments: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let name = "batch_norm_coefficients";
    let operands = [moments, &weight.contiguous()?, &bias.contiguous()?];
    apply3(name, operands, |[(moments, l1), (weight, l2), (bias, l3)]| {
        let planes = Planes::new(name, "moments", l1)?;
        let by = by_element!(weight, name, F => {
            let call = Call::new(weight.device(), planes.coefficients::<F>(eps)?).read::<f64>(moments, l1)?;
            call.read::<F>(weight, l2)?.read::<F>(bias, l3)?.fill::<F>(3 * planes.channels)?
        });
        Ok((by, (planes.channels, 3).into()))
    })
}

/// `(x, weight, bias) -> y`, and what both passes know of the statistics behind it.
#[derive(Clone, Debug)]
pub(crate) struct Normalise {
    /// `[2, C]`, of all shards.
    pub(crate) moments: Tensor,
    /// `[C, 3]`
    pub(crate) by: Tensor,
    eps: f64,
    /// Elements of each channel, those of all shards.
    pub(crate) count: usize,
    exchange: Option<Arc<dyn Exchange>>,
}

impl Normalise {
    /// By the statistics of a contiguous batch.
    pub(crate) fn of_batch(
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
        exchange: Option<Arc<dyn Exchange>>,
    ) -> Result<Self> {
        let (mut moments, channels) = (moments(xs)?, xs.dim(1)?);
        let mut count = xs.elem_count() / channels;
        if let Some(exchange) = &exchange {
            let own = moments.flatten_all()?.to_vec1()?;
            let all = merge_moments(count as f64, &own, &**exchange)?;
            moments = Tensor::from_slice(&all[..2 * channels], (2, channels), xs.device())?;
            count = all[2 * channels] as usize;
        }
        Ok(Self { by: coefficients(&moments, weight, bias, eps)?, moments, eps, count, exchange })
    }

    /// `y = scale x + shift`: what a mean of 0 and a variance of 0 make of it with an `eps` of 1.
    pub(crate) fn by_map(scale: &Tensor, shift: &Tensor) -> Result<Self> {
        let moments = Tensor::zeros((2, scale.elem_count()), DType::F64, scale.device())?;
        let (by, eps) = (coefficients(&moments, scale, shift, 1.)?, 1.);
        Ok(Self { by, moments, eps, count: 0, exchange: None })
    }
}

/// What became of a batch, with its statistics, and the elements of each channel.
pub(crate) fn made(moments: &Tensor, count: usize, ys: Tensor) -> Result<(BatchNormed, usize)> {
    let (mean, variance) = mean_and_variance(moments, ys.dtype())?;
    Ok((BatchNormed { ys, mean, variance }, count))
}

/// The moments apart, in the element type of what they are of.
pub(crate) fn mean_and_variance(moments: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    Ok((moments.get(0)?.to_dtype(dtype)?, moments.get(1)?.to_dtype(dtype)?))
}

/// Hands on the storage of a tensor on a GPU.
pub(crate) fn on_gpu<R>(tensor: &Tensor, then: impl FnOnce(&CudaStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => then(storage, layout),
        _ => bail!("a tensor of shape {:?} is not on the GPU", tensor.dims()),
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    no_cpu_fwd3!();

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        layout: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let planes = Planes::new(self.name(), "xs", layout)?;
        let ys = on_gpu(&self.by, |by, l2| {
            by_element!(xs, self.name(), F => {
                let call = Call::new(xs.device(), planes.affine::<F>()?).read::<F>(xs, layout)?;
                call.read::<F>(by, l2)?.fill::<F>(planes.all())
            })
        })?;
        Ok((ys, layout.shape().clone()))
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
        let all = gradients(xs, &grad, weight, self)?;
        let (by, [grad_weight, grad_bias]) = split(&all)?;
        let grad_xs = xs.track_op().then(|| input_gradient(xs, &grad, &by)).transpose()?;
        Ok((grad_xs, Some(grad_weight), Some(grad_bias)))
    }
}

/// The parts of what [`finish`] fills: `by` of [`input_gradient`], and the gradients of weight and bias.
pub(crate) fn split(all: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
    let c = all.elem_count() / 6;
    Ok((all.narrow(0, 2 * c, 4 * c)?, [all.narrow(0, c, c)?, all.narrow(0, 0, c)?]))
}

/// `(x, grad, weight) -> [6 C]`, see [`split`].
fn gradients(xs: &Tensor, grad: &Tensor, weight: &Tensor, norm: &Normalise) -> Result<Tensor> {
    let name = "batch_norm_gradients";
    apply3(name, [xs, grad, weight], |[(xs, l1), (grad, l2), weight]| {
        let planes = Planes::new(name, "xs", l1)?;
        let all = by_element!(xs, name, F => {
            let device = xs.device();
            let mut parts: CudaSlice<f64> = uninitialised(device, planes.sums())?;
            on_gpu(&norm.moments, |moments, layout| {
                let call = Call::new(device, planes.gradient_sums::<F>()?).read::<F>(xs, l1)?;
                let call = call.read::<F>(grad, l2)?.read::<f64>(moments, layout)?;
                call.write(&mut parts.slice_mut(..))?.run()
            })?;
            let mut all = uninitialised::<F>(device, 6 * planes.channels)?;
            finish::<F>(norm, planes, &parts, weight, &mut all.slice_mut(..))?;
            CudaStorage::wrap_cuda_slice(all, device.clone())
        });
        Ok((all, (6 * planes.channels).into()))
    })
}

/// `(parts, weight) -> [6 C]`, see [`split`], of the sums of this shard's elements.
pub(crate) fn finish<F: Element>(
    norm: &Normalise,
    planes: Planes,
    parts: &CudaSlice<f64>,
    (weight, layout): Stored<'_>,
    all: &mut CudaViewMut<'_, F>,
) -> Result<()> {
    let (device, c) = (weight.device(), planes.channels);
    let (mut grads, mut by) = all.split_at_mut(2 * c);
    let add = |planes: Planes, parts: &CudaSlice<f64>, grads: &mut CudaViewMut<'_, F>, by: &mut _| {
        on_gpu(&norm.moments, |moments, l1| {
            let call = Call::new(device, planes.gradients::<F>(norm.eps)?).view(&parts.slice(..))?;
            let call = call.read::<f64>(moments, l1)?.read::<F>(weight, layout)?;
            call.write(grads)?.write(by)?.run()
        })
    };
    add(planes, parts, &mut grads, &mut by)?;
    if let Some(exchange) = &norm.exchange {
        // The parameters' gradients are this shard's; the input's sees the whole batch.
        let sums = exchange.merge(planes.total(&device.clone_dtoh(parts)?), exchange::add)?;
        let mut unused = uninitialised::<F>(device, 2 * c)?;
        let (planes, sums) = (planes.of_all(norm.count)?, device.clone_htod(&sums)?);
        add(planes, &sums, &mut unused.slice_mut(..), &mut by)?;
    }
    Ok(())
}

/// `(x, grad, by) -> grad_x`
pub(crate) fn input_gradient(xs: &Tensor, grad: &Tensor, by: &Tensor) -> Result<Tensor> {
    let name = "batch_norm_input_gradient";
    apply3(name, [xs, grad, by], |[(xs, l1), (grad, l2), (by, l3)]| {
        let planes = Planes::new(name, "xs", l1)?;
        let ys = by_element!(xs, name, F => {
            let call = Call::new(xs.device(), planes.input_gradient::<F>()?).read::<F>(xs, l1)?;
            call.read::<F>(grad, l2)?.read::<F>(by, l3)?.fill::<F>(planes.all())?
        });
        Ok((ys, l1.shape().clone()))
    })
}
