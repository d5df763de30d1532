//! Which backend runs an operation on a tensor: the one place that decides.
//!
//! A second backend is a variant of [`Backend`] that [`Backend::of`] returns for its devices. Every op asks whether the backend is
//! [`Backend::Cpu`], and runs its twin where it is another. With the variant alone everything therefore compiles, and runs by the twins.
//! An op that gets a kernel names the variant in front of its twin, in its `mod.rs` (those of `ops/time` in `trace.rs`), and has the kernel
//! in a file or folder beside `cpu`. Spiking layers in a row become one operation where [`Backend::has_chain`] says so, and run one by one
//! elsewhere; `ops/chain/mod.rs` itself refuses a backend that it does not name.
//!
//! What Candle calls, `cpu_fwd` and `bwd` of an op's `CustomOp`, stands in the op's `mod.rs` too, and so would `cuda_fwd`.

use candle_core::{DType, Device, Tensor};

/// What computes an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Our kernels for the CPU: each op's `cpu.rs` or folder `cpu`.
    Cpu,
    /// The op's twin, made of Candle's own operations: wherever there is no kernel of ours.
    Candle,
}

impl Backend {
    /// The backend of the tensor's device.
    pub(crate) fn of(xs: &Tensor) -> Self {
        match xs.device() {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) | Device::Metal(_) => Self::Candle,
        }
    }

    /// Whether spiking layers in a row are one operation there, in this precision.
    pub(crate) fn has_chain(self, dtype: DType) -> bool {
        self == Self::Cpu && dtype == DType::F32
    }
}
