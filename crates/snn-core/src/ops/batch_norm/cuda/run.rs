//! Batch norm on a GPU: its statistics leave it where other shards of the batch must know them, else never.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaViewMut};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};

use super::Planes;
use crate::exchange::{self, Exchange};
use crate::ops::cuda::apply::{apply1, apply3};
use crate::ops::cuda::gpu::{Call, Element, by_element, uninitialised};

/// `x -> [2, C]` in f64: mean and biased variance of each channel.
pub(crate) fn moments(xs: &Tensor) -> Result<Tensor> {
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

/// `(x, weight, bias) -> y`, by moments `[2, C]`.
pub(crate) struct Normalise {
    pub(crate) moments: Tensor,
    pub(crate) eps: f64,
    /// Elements of each channel, those of all shards.
    pub(crate) count: usize,
    pub(crate) exchange: Option<Arc<dyn Exchange>>,
}

/// Hands on the storage of a tensor on a GPU.
fn on_gpu<R>(tensor: &Tensor, then: impl FnOnce(&CudaStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => then(storage, layout),
        _ => bail!("batch_norm: the moments are not on the GPU"),
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("batch_norm: this one is the GPU's")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        l1: &Layout,
        weight: &CudaStorage,
        l2: &Layout,
        bias: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let planes = Planes::new(self.name(), "xs", l1)?;
        let ys = on_gpu(&self.moments, |moments, layout| {
            by_element!(xs, self.name(), F => {
                let call = Call::new(xs.device(), planes.coefficients::<F>(self.eps)?).read::<f64>(moments, layout)?;
                let by = call.read::<F>(weight, l2)?.read::<F>(bias, l3)?.fill::<F>(3 * planes.channels)?;
                let call = Call::new(xs.device(), planes.affine::<F>()?).read::<F>(xs, l1)?;
                call.view(&by.as_cuda_slice::<F>()?.slice(..))?.fill::<F>(planes.all())
            })
        })?;
        Ok((ys, l1.shape().clone()))
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
        // The gradients of bias and weight, then the coefficients of the input's.
        let all = gradients(xs, &grad, weight, self)?;
        let c = weight.elem_count();
        let part = |from, length| all.narrow(0, from, length);
        let by = part(2 * c, 4 * c)?;
        let grad_xs = xs.track_op().then(|| input_gradient(xs, &grad, &by)).transpose()?;
        Ok((grad_xs, Some(part(c, c)?), Some(part(0, c)?)))
    }
}

/// `(x, grad, weight) -> [6 C]`: the gradients of bias and weight, and `by` of [`input_gradient`].
fn gradients(xs: &Tensor, grad: &Tensor, weight: &Tensor, norm: &Normalise) -> Result<Tensor> {
    let name = "batch_norm_gradients";
    apply3(name, [xs, grad, weight], |[(xs, l1), (grad, l2), (weight, l3)]| {
        let planes = Planes::new(name, "xs", l1)?;
        let all = on_gpu(&norm.moments, |moments, layout| {
            by_element!(xs, name, F => {
                let device = xs.device();
                let mut parts: CudaSlice<f64> = uninitialised(device, planes.sums())?;
                let call = Call::new(device, planes.gradient_sums::<F>()?).read::<F>(xs, l1)?;
                let call = call.read::<F>(grad, l2)?.read::<f64>(moments, layout)?;
                call.write(&mut parts.slice_mut(..))?.run()?;
                let c = planes.channels;
                let mut all = uninitialised::<F>(device, 6 * c)?;
                let (mut grads, mut by) = all.split_at_mut(2 * c);
                let finish = |planes: Planes, parts: &CudaSlice<f64>, grads: &mut CudaViewMut<'_, F>, by: &mut _| {
                    let call = Call::new(device, planes.gradients::<F>(norm.eps)?).view(&parts.slice(..))?;
                    let call = call.read::<f64>(moments, layout)?.read::<F>(weight, l3)?;
                    call.write(grads)?.write(by)?.run()
                };
                finish(planes, &parts, &mut grads, &mut by)?;
                if let Some(exchange) = &norm.exchange {
                    // The parameters' gradients are this shard's; the input's sees the whole batch.
                    let sums = exchange.merge(planes.total(&device.clone_dtoh(&parts)?), exchange::add)?;
                    let mut unused = uninitialised::<F>(device, 2 * c)?;
                    let (planes, sums) = (planes.of_all(norm.count)?, device.clone_htod(&sums)?);
                    finish(planes, &sums, &mut unused.slice_mut(..), &mut by)?;
                }
                Ok(CudaStorage::wrap_cuda_slice(all, device.clone()))
            })
        })?;
        Ok((all, (6 * planes.channels).into()))
    })
}

/// `(x, grad, by) -> grad_x`
fn input_gradient(xs: &Tensor, grad: &Tensor, by: &Tensor) -> Result<Tensor> {
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
