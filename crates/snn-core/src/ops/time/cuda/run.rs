//! Sums over time on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::{psp_distances, psp_gradients, psp_total, weighted_sums};
use crate::ops::cuda::apply::apply3;
use crate::ops::cuda::gpu::{Call, Element, by_element, elements, uninitialised};

/// `xs: [T, ...] -> [rows, ...]`, with the weights of each row.
pub(crate) fn sums<F: Element>(
    weights: &[Vec<f64>],
    xs: &CudaStorage,
    layout: &Layout,
) -> Result<CudaStorage> {
    let (device, rows) = (xs.device(), weights.len());
    let launch = weighted_sums::<F>(layout, rows)?;
    let weights: Vec<F> = weights.iter().flatten().map(|&weight| F::from_f64(weight)).collect();
    let weights = device.clone_htod(&weights)?;
    let neurons = layout.dims()[1..].iter().product::<usize>();
    Call::new(device, launch).read::<F>(xs, layout)?.view(&weights.slice(..))?.fill::<F>(rows * neurons)
}

/// `(a, b) -> [2]`, the distance twice.
pub(crate) fn distances<F: Element>(
    a: &CudaStorage,
    l1: &Layout,
    b: &CudaStorage,
    l2: &Layout,
    tau: f64,
) -> Result<CudaStorage> {
    let (device, launch) = (a.device(), psp_distances::<F>(l1, l2, tau)?);
    let number = launch.grid as usize;
    let mut parts = uninitialised::<f64>(device, number)?;
    let call = Call::new(device, launch).read::<F>(a, l1)?.read::<F>(b, l2)?;
    call.write(&mut parts.slice_mut(..))?.run()?;
    Call::new(device, psp_total::<F>(number)?).view(&parts.slice(..))?.fill::<F>(2)
}

/// `(a, b, grad) -> [2, T, ...]`: the gradients of both, where that of the distances lies on the GPU.
pub(crate) fn psp_gradients_of(a: &Tensor, b: &Tensor, grad: &Tensor, tau: f64) -> Result<Tensor> {
    let name = "psp_distances_backward";
    apply3(name, [a, b, grad], |[(a, l1), (b, l2), (grad, l3)]| {
        let both = by_element!(a, name, F => {
            let launch = psp_gradients::<F>(l1, l2, l3, tau)?;
            let call = Call::new(a.device(), launch).read::<F>(a, l1)?.read::<F>(b, l2)?.read::<F>(grad, l3)?;
            call.fill::<F>(2 * l1.shape().elem_count())?
        });
        Ok((both, [&[2], l1.dims()].concat().into()))
    })
}

/// A copy.
pub(crate) fn copy<F: Element>(xs: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let device = xs.device();
    let from = elements::<F>(xs, layout)?;
    let mut made = uninitialised::<F>(device, from.len())?;
    device.memcpy_dtod(&from, &mut made.slice_mut(..from.len()))?;
    Ok(F::wrap_cuda_slice(made, device.clone()))
}
