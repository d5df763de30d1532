//! Batch norm, or a fixed map, and LIF on a GPU.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::Currents;
use crate::BatchNormed;
use crate::exchange::Exchange;
use crate::ops::batch_norm::cuda::run::{Normalise, finish, input_gradient, made, on_gpu, split};
use crate::ops::cuda::apply::{apply3, no_cpu_fwd3};
use crate::ops::cuda::gpu::{Call, by_element, uninitialised};
use crate::ops::norm_lif::Sequence;

/// Behind a batch norm.
pub(crate) fn norm_lif(
    xs: &Tensor,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
    sequence: &Sequence,
    exchange: Option<Arc<dyn Exchange>>,
) -> Result<(BatchNormed, usize)> {
    let xs = xs.contiguous()?;
    let norm = Normalise::of_batch(&xs, weight, bias, eps, exchange)?;
    let (moments, count) = (norm.moments.clone(), norm.count);
    let op = NormLif { norm, fixed: false, sequence: *sequence };
    made(&moments, count, xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?)
}

/// Behind a fixed map.
pub(crate) fn map_lif(xs: &Tensor, [scale, shift]: [&Tensor; 2], sequence: &Sequence) -> Result<Tensor> {
    let op = NormLif { norm: Normalise::by_map(scale, shift)?, fixed: true, sequence: *sequence };
    xs.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, op)
}

/// `(x, weight, bias) -> spikes`
pub(crate) struct NormLif {
    pub(crate) norm: Normalise,
    /// Whether the map is what it is whatever the currents are.
    pub(crate) fixed: bool,
    pub(crate) sequence: Sequence,
}

impl NormLif {
    /// The gradients of the currents, where they are wanted, and those of weight and bias, given that of the spikes.
    pub(crate) fn gradients(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        of_currents: bool,
    ) -> Result<(Option<Tensor>, [Tensor; 2])> {
        let (all, n) = (gradients(xs, &grad.contiguous()?, weight, self)?, xs.elem_count());
        let grads = all.narrow(0, 0, n)?.reshape(xs.shape())?;
        let (by, affine) = split(&all.narrow(0, n, all.elem_count() - n)?)?;
        let through = || if self.fixed { Ok(grads.clone()) } else { input_gradient(xs, &grads, &by) };
        Ok((of_currents.then(through).transpose()?, affine))
    }
}

impl CustomOp3 for NormLif {
    fn name(&self) -> &'static str {
        "norm_lif"
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
        let currents = Currents::new("norm_lif_forward", layout, &self.sequence)?;
        let spikes = on_gpu(&self.norm.by, |by, l2| {
            by_element!(xs, self.name(), F => {
                let call = Call::new(xs.device(), currents.forward::<F>()?).read::<F>(xs, layout)?;
                call.read::<F>(by, l2)?.fill::<F>(currents.elements())
            })
        })?;
        Ok((spikes, self.sequence.spikes(layout.dims())?.into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _spikes: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad_xs, [grad_weight, grad_bias]) = self.gradients(xs, weight, grad, xs.track_op())?;
        Ok((grad_xs, Some(grad_weight), Some(grad_bias)))
    }
}

/// `(x, grad, weight) -> ` the gradients that the kernel leaves and, behind them, what [`split`] splits.
fn gradients(xs: &Tensor, grad: &Tensor, weight: &Tensor, op: &NormLif) -> Result<Tensor> {
    let name = "norm_lif_backward";
    apply3(name, [xs, grad, weight], |[(xs, l1), (grad, l2), weight]| {
        let currents = Currents::new(name, l1, &op.sequence)?;
        let (elements, c) = (l1.shape().elem_count(), currents.planes.channels);
        let all = by_element!(xs, name, F => {
            let (device, launch) = (xs.device(), currents.backward::<F>(op.fixed, l2)?);
            let mut all = uninitialised::<F>(device, elements + 6 * c)?;
            let mut parts: CudaSlice<f64> = uninitialised(device, currents.planes.sums())?;
            let (mut grads, mut others) = all.split_at_mut(elements);
            on_gpu(&op.norm.by, |by, l3| {
                let call = Call::new(device, launch).read::<F>(xs, l1)?.read::<F>(by, l3)?.read::<F>(grad, l2)?;
                call.write(&mut grads)?.write(&mut parts.slice_mut(..))?.run()
            })?;
            finish::<F>(&op.norm, currents.planes, &parts, weight, &mut others)?;
            CudaStorage::wrap_cuda_slice(all, device.clone())
        });
        Ok((all, (elements + 6 * c).into()))
    })
}
