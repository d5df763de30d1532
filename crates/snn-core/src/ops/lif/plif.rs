//! Parametric LIF over the whole sequence as one operation, on GPUs. Elsewhere it goes step by step, or inside a chain.

use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::cuda::{Current, run};
use crate::LifConfig;
use crate::ops::cuda::apply::apply3;
use crate::ops::cuda::gpu::by_element;

/// `xs: [T, N, ...]` and the scalar `w` -> spikes.
pub(super) fn plif(xs: &Tensor, w: &Tensor, cfg: &LifConfig) -> Result<Tensor> {
    if w.elem_count() != 1 {
        bail!("plif: w has shape {:?}, not one element", w.dims())
    }
    super::same_type("plif", &[("xs", xs), ("w", w)])?;
    xs.contiguous()?.apply_op2(&w.contiguous()?, Plif(*cfg))
}

struct Plif(LifConfig);

fn current(layout: &Layout) -> Current<'_> {
    Current { layout, constant: None, learned: true }
}

impl CustomOp2 for Plif {
    fn name(&self) -> &'static str {
        "plif"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("plif: no kernel of the CPU takes the whole sequence")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        layout: &Layout,
        w: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let spikes =
            by_element!(xs, "plif", F => run::learned_spikes::<F>(&self.0, xs, current(layout), (w, l2))?);
        Ok((spikes, layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        w: &Tensor,
        _spikes: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // `grad_xs` and, behind its elements, `grad_w`.
        let both = apply3("plif_backward", [xs, w, &grad.contiguous()?], |[(xs, l1), w, grad]| {
            let both = by_element!(xs, "plif_backward", F => {
                run::learned_gradients::<F>(&self.0, xs, current(l1), w, grad)?
            });
            Ok((both, (l1.shape().elem_count() + 1).into()))
        })?;
        let n = xs.elem_count();
        Ok((
            Some(both.narrow(0, 0, n)?.reshape(xs.shape())?),
            Some(both.narrow(0, n, 1)?.reshape(w.shape())?),
        ))
    }
}
