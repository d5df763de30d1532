//! AdamW on a GPU.

use candle_core::cuda_backend::WrapErr;
use candle_core::{DType, Layout, Result, Storage, Tensor, bail};

use super::{SLOTS, launch};
use crate::ops::adamw::{Step, check};
use crate::ops::cuda::gpu::{Call, Element};

/// Moves parameters, all on one GPU, by one step: `(param, moments, grad)` each.
pub(crate) fn step(all: &[(&Tensor, &Tensor, &Tensor)], by: Step) -> Result<()> {
    all.iter().try_for_each(|(param, moments, grad)| check(param, moments, grad))?;
    for alike in all.chunk_by(|a, b| a.0.dtype() == b.0.dtype()) {
        for group in alike.chunks(SLOTS) {
            match alike[0].0.dtype() {
                DType::F64 => step_group::<f64>(group, by)?,
                _ => step_group::<f32>(group, by)?,
            }
        }
    }
    Ok(())
}

fn step_group<F: Element>(group: &[(&Tensor, &Tensor, &Tensor)], by: Step) -> Result<()> {
    let grads = group.iter().map(|(_, _, grad)| grad.contiguous()).collect::<Result<Vec<_>>>()?;
    let tensors = |of: fn(&(&Tensor, &Tensor, &Tensor)) -> Tensor| group.iter().map(of).collect::<Vec<_>>();
    let all =
        [tensors(|(param, _, _)| (*param).clone()), tensors(|(_, moments, _)| (*moments).clone()), grads];
    let layouts: Vec<[&Layout; 3]> =
        (0..group.len()).map(|i| [all[0][i].layout(), all[1][i].layout(), all[2][i].layout()]).collect();
    let launch = launch::<F>(&layouts, by)?;
    // Candle has no operation that changes many tensors. Their locks are held until the kernel is on its way; the numbers lie on the
    // device, where no reference of this program leads.
    let held: Vec<_> = all.iter().flatten().map(|tensor| tensor.storage_and_layout()).collect();
    let Some((Storage::Cuda(first), _)) = held.first().map(|(storage, layout)| (&**storage, layout)) else {
        bail!("adamw: a parameter is not on a GPU")
    };
    let mut call = Call::new(&first.device, launch);
    for (storage, layout) in &held {
        match &**storage {
            Storage::Cuda(storage) => call = call.read::<F>(storage, layout)?,
            _ => bail!("adamw: an operand is not on the parameter's GPU"),
        }
    }
    // A program with several streams is told of what is read only: it waits.
    let stream = first.device.cuda_stream();
    let many = stream.context().is_managing_stream_synchronization();
    if many {
        stream.context().synchronize().w()?;
    }
    call.run()?;
    if many {
        stream.synchronize().w()?;
    }
    Ok(())
}
