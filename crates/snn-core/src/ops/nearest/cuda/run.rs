//! The search on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Tensor};

use crate::ops::cuda::apply::apply2;
use crate::ops::cuda::gpu::{Call, by_element, uninitialised};

/// `(z, codes) -> found`, and behind those the counter of what only the twin settles.
pub(crate) fn nearest(z: &Tensor, codes: &Tensor) -> Result<Tensor> {
    apply2("nearest", [z, codes], |[(z, l1), (codes, l2)]| {
        let (n, _, h, w) = l1.shape().dims4()?;
        let (device, vectors) = (z.device(), n * h * w);
        let mut all = uninitialised::<u32>(device, vectors + 1)?;
        let (mut found, mut odd) = all.split_at_mut(vectors);
        device.memcpy_htod(&[0u32], &mut odd)?;
        by_element!(z, "nearest", F => {
            let call = Call::new(device, super::nearest::<F>(l1, l2)?).read::<F>(z, l1)?.read::<F>(codes, l2)?;
            call.write(&mut found)?.write(&mut odd)?.run()?;
        });
        Ok((CudaStorage::wrap_cuda_slice(all, device.clone()), (vectors + 1).into()))
    })
}
