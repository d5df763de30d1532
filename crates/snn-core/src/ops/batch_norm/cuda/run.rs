//! Batch norm on a GPU: its statistics never leave it.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::Planes;
use crate::ops::cuda::gpu::{Call, Element, by_element, uninitialised};

/// `x -> [2, C]` in f64: mean and biased variance of each channel.
pub(crate) struct Moments;

impl CustomOp1 for Moments {
    fn name(&self) -> &'static str {
        "batch_norm_moments"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("batch_norm_moments: this one is the GPU's")
    }

    fn cuda_fwd(&self, xs: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let planes = Planes::new(self.name(), "xs", layout)?;
        let moments = by_element!(xs, self.name(), F => moments::<F>(planes, xs, layout)?);
        Ok((moments, (2, planes.channels).into()))
    }
}

fn moments<F: Element>(planes: Planes, xs: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
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
        let all =
            xs.apply_op3_no_bwd(&grad, weight, &Gradients { moments: self.moments.clone(), eps: self.eps })?;
        let c = weight.elem_count();
        let part = |from, length| all.narrow(0, from, length);
        let by = part(2 * c, 4 * c)?;
        let grad_xs = xs.track_op().then(|| xs.apply_op3_no_bwd(&grad, &by, &InputGradient)).transpose()?;
        Ok((grad_xs, Some(part(c, c)?), Some(part(0, c)?)))
    }
}

/// `(x, gy, weight) -> [2 C + 4 C]`: the gradients of bias and weight, and the coefficients of [`InputGradient`].
struct Gradients {
    moments: Tensor,
    eps: f64,
}

impl CustomOp3 for Gradients {
    fn name(&self) -> &'static str {
        "batch_norm_gradients"
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
        bail!("batch_norm_gradients: this one is the GPU's")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        l1: &Layout,
        grad: &CudaStorage,
        l2: &Layout,
        weight: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let planes = Planes::new(self.name(), "xs", l1)?;
        let all = on_gpu(&self.moments, |moments, layout| {
            by_element!(xs, self.name(), F => {
                let device = xs.device();
                let mut parts: CudaSlice<f64> = uninitialised(device, planes.sums())?;
                let call = Call::new(device, planes.gradient_sums::<F>()?).read::<F>(xs, l1)?;
                let call = call.read::<F>(grad, l2)?.read::<f64>(moments, layout)?;
                call.write(&mut parts.slice_mut(..))?.run()?;
                let c = planes.channels;
                let mut all = uninitialised::<F>(device, 6 * c)?;
                let (mut grads, mut by) = all.split_at_mut(2 * c);
                let call = Call::new(device, planes.gradients::<F>(self.eps)?).view(&parts.slice(..))?;
                let call = call.read::<f64>(moments, layout)?.read::<F>(weight, l3)?;
                call.write(&mut grads)?.write(&mut by)?.run()?;
                Ok(CudaStorage::wrap_cuda_slice(all, device.clone()))
            })
        })?;
        Ok((all, (6 * planes.channels).into()))
    }
}

/// `(x, gy, coefficients) -> gx`
struct InputGradient;

impl CustomOp3 for InputGradient {
    fn name(&self) -> &'static str {
        "batch_norm_input_gradient"
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
        bail!("batch_norm_input_gradient: this one is the GPU's")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        l1: &Layout,
        grad: &CudaStorage,
        l2: &Layout,
        by: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let planes = Planes::new(self.name(), "xs", l1)?;
        let ys = by_element!(xs, self.name(), F => {
            let call = Call::new(xs.device(), planes.input_gradient::<F>()?).read::<F>(xs, l1)?;
            call.read::<F>(grad, l2)?.read::<F>(by, l3)?.fill::<F>(planes.all())?
        });
        Ok((ys, l1.shape().clone()))
    }
}
