//! Which backend runs an operation on a tensor: the one place that decides.
//!
//! A backend more is a variant of [`Backend`] that [`Backend::of`] returns for its devices. An op runs its twin for every backend that it
//! does not name. With the variant alone everything therefore compiles, and runs by the twins.
//! An op that gets a kernel names the variant in front of its twin, in its `mod.rs` (those of `ops/time` in `trace.rs`), and has the kernel
//! in a file or folder beside `cpu`, as `cuda` is. Spiking layers in a row become one operation where [`Backend::has_chain`] says so, and run one by one
//! elsewhere; `ops/chain/mod.rs` itself refuses a backend that it does not name.
//!
//! What Candle calls, `cpu_fwd`, `cuda_fwd` and `bwd` of an op's `CustomOp`, stands in the op's `mod.rs` too.

use candle_core::{DType, Device, Tensor};

/// Bytes of shared memory that a block of a GPU gets without asking the driver for more.
pub(crate) const MAX_SHARED: usize = 48 << 10;

/// What computes an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Our kernels for the CPU: each op's `cpu.rs` or folder `cpu`.
    Cpu,
    /// Our kernels for NVIDIA's GPUs: each op's folder `cuda`. Single and double precision, with the feature `cuda`.
    Cuda,
    /// The op's twin, made of Candle's own operations: wherever there is no kernel of ours.
    Candle,
}

impl Backend {
    /// The backend of the tensor's device and element type.
    pub(crate) fn of(xs: &Tensor) -> Self {
        match xs.device() {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) if cfg!(feature = "cuda") && matches!(xs.dtype(), DType::F32 | DType::F64) => {
                Self::Cuda
            }
            Device::Cuda(_) | Device::Metal(_) => Self::Candle,
        }
    }

    /// Whether spiking layers in a row are one operation there, in this precision.
    pub(crate) fn has_chain(self, dtype: DType) -> bool {
        self == Self::Cuda || self.has_events(dtype)
    }

    /// Whether spikes are events between these layers, and can be prepared for positions of their own.
    pub(crate) fn has_events(self, dtype: DType) -> bool {
        self == Self::Cpu && dtype == DType::F32
    }
}
