//! Which backend runs an operation on a tensor: the one place that decides.

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
