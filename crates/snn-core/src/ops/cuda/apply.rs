//! Operations that only a GPU computes, and that have no gradient: a name and what is to be done.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};

/// An operand: where it lies, and how.
pub(crate) type Stored<'a> = (&'a CudaStorage, &'a Layout);

/// What an operation makes.
pub(crate) type Made = Result<(CudaStorage, Shape)>;

/// What Candle asks of an operation of three tensors on the CPU, where only a GPU computes it.
macro_rules! no_cpu_fwd3 {
    () => {
        fn cpu_fwd(
            &self,
            _: &candle_core::CpuStorage,
            _: &candle_core::Layout,
            _: &candle_core::CpuStorage,
            _: &candle_core::Layout,
            _: &candle_core::CpuStorage,
            _: &candle_core::Layout,
        ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
            candle_core::bail!("{}: this one is the GPU's", self.name())
        }
    };
}
pub(crate) use no_cpu_fwd3;

struct OnGpu<K> {
    name: &'static str,
    compute: K,
}

impl<K> OnGpu<K> {
    fn refuse(&self) -> Result<(CpuStorage, Shape)> {
        bail!("{}: this one is the GPU's", self.name)
    }
}

/// Applies what a GPU does to one tensor.
pub(crate) fn apply1(name: &'static str, a: &Tensor, compute: impl Fn(Stored<'_>) -> Made) -> Result<Tensor> {
    a.apply_op1_no_bwd(&OnGpu { name, compute })
}

/// Applies what a GPU does to two tensors.
pub(crate) fn apply2(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    compute: impl Fn([Stored<'_>; 2]) -> Made,
) -> Result<Tensor> {
    a.apply_op2_no_bwd(b, &OnGpu { name, compute })
}

/// Applies what a GPU does to three tensors.
pub(crate) fn apply3(
    name: &'static str,
    [a, b, c]: [&Tensor; 3],
    compute: impl Fn([Stored<'_>; 3]) -> Made,
) -> Result<Tensor> {
    a.apply_op3_no_bwd(b, c, &OnGpu { name, compute })
}

impl<K: Fn(Stored<'_>) -> Made> CustomOp1 for OnGpu<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.refuse()
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout) -> Made {
        (self.compute)((s1, l1))
    }
}

impl<K: Fn([Stored<'_>; 2]) -> Made> CustomOp2 for OnGpu<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.refuse()
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Made {
        (self.compute)([(s1, l1), (s2, l2)])
    }
}

impl<K: Fn([Stored<'_>; 3]) -> Made> CustomOp3 for OnGpu<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    no_cpu_fwd3!();

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Made {
        (self.compute)([(s1, l1), (s2, l2), (s3, l3)])
    }
}
