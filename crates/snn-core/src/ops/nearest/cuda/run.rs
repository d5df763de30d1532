//! The search on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, bail};

use crate::ops::cuda::gpu::{Call, by_element, uninitialised};

/// `(z, codes) -> found`, and behind those the counter of what only the twin settles.
pub(crate) struct Nearest;

impl CustomOp2 for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("nearest: this one is the GPU's")
    }

    fn cuda_fwd(
        &self,
        z: &CudaStorage,
        l1: &Layout,
        codes: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (n, _, h, w) = l1.shape().dims4()?;
        let (device, vectors) = (z.device(), n * h * w);
        let mut all = uninitialised::<u32>(device, vectors + 1)?;
        let (mut found, mut odd) = all.split_at_mut(vectors);
        device.memcpy_htod(&[0u32], &mut odd)?;
        by_element!(z, self.name(), F => {
            let call = Call::new(device, super::nearest::<F>(l1, l2)?).read::<F>(z, l1)?.read::<F>(codes, l2)?;
            call.write(&mut found)?.write(&mut odd)?.run()?;
        });
        Ok((CudaStorage::wrap_cuda_slice(all, device.clone()), (vectors + 1).into()))
    }
}
