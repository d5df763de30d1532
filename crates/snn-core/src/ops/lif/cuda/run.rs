//! LIF and parametric LIF on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result};

use super::{Current, backward, forward, weight_gradient};
use crate::LifConfig;
use crate::ops::cuda::gpu::{Call, Element, uninitialised};

/// `xs -> spikes`
pub(crate) fn spikes<F: Element>(
    cfg: &LifConfig,
    xs: &CudaStorage,
    current: Current<'_>,
) -> Result<CudaStorage> {
    let launch = forward::<F>(cfg, current)?;
    Call::new(xs.device(), launch).read::<F>(xs, current.layout)?.fill::<F>(current.spikes().iter().product())
}

/// `(xs, grad_spikes) -> grad_xs`
pub(crate) fn gradient<F: Element>(
    cfg: &LifConfig,
    xs: &CudaStorage,
    current: Current<'_>,
    (grad, layout): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let launch = backward::<F>(cfg, current, layout)?;
    let call = Call::new(xs.device(), launch).read::<F>(xs, current.layout)?.read::<F>(grad, layout)?;
    call.fill::<F>(current.layout.shape().elem_count())
}

/// `(xs, w) -> spikes`
pub(crate) fn learned_spikes<F: Element>(
    cfg: &LifConfig,
    xs: &CudaStorage,
    current: Current<'_>,
    (w, w_layout): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let launch = forward::<F>(cfg, current)?;
    let call = Call::new(xs.device(), launch).read::<F>(xs, current.layout)?.read::<F>(w, w_layout)?;
    call.fill::<F>(current.spikes().iter().product())
}

/// `(xs, w, grad_spikes) -> grad_xs` and, behind its elements, `grad_w`.
pub(crate) fn learned_gradients<F: Element>(
    cfg: &LifConfig,
    xs: &CudaStorage,
    current: Current<'_>,
    (w, w_layout): (&CudaStorage, &Layout),
    (grad, layout): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let (device, elements) = (xs.device(), current.layout.shape().elem_count());
    let launch = backward::<F>(cfg, current, layout)?;
    let number = launch.grid as usize;
    let mut both = uninitialised::<F>(device, elements + 1)?;
    let mut parts = uninitialised::<f64>(device, number)?;
    {
        let mut grad_xs = both.slice_mut(..elements);
        let call = Call::new(device, launch).read::<F>(xs, current.layout)?.read::<F>(w, w_layout)?;
        call.read::<F>(grad, layout)?.write(&mut grad_xs)?.write(&mut parts.slice_mut(..))?.run()?;
    }
    let call = Call::new(device, weight_gradient::<F>(number)?).view(&parts.slice(..))?;
    call.read::<F>(w, w_layout)?.write(&mut both.slice_mut(elements..))?.run()?;
    Ok(F::wrap_cuda_slice(both, device.clone()))
}
