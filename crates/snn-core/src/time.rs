//! The time axis: spike trains are `[T, N, ...]`, time first.

use candle_core::{Result, Tensor};

use crate::Error;
use crate::ops::room;

/// Turns images into the input of a spiking network by direct encoding (paper section 2.2): the same analogue image at every
/// time step.
///
/// # Shapes
/// `images: [N, ...]` -> `[T, N, ...]`, a broadcast view without a copy.
/// # Errors
/// Returns an error if there are 2^31 time steps or more, or if copies of the images, which a neuron makes of the view, would
/// not fit into memory.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(snn_core::direct_encode(&images, 16)?.dims(), [16, 2, 1, 28, 28]);
/// # Ok(()) }
/// ```
pub fn direct_encode(images: &Tensor, time_steps: usize) -> Result<Tensor> {
    check_time_steps(time_steps)?;
    let dims = [&[time_steps], images.dims()].concat();
    room("direct_encode", &dims, images.dtype())?;
    images.unsqueeze(0)?.broadcast_as(dims)
}

/// Checks that the steps can be counted in 31 bits, as the powers of a read-out count them.
pub(crate) fn check_time_steps(time_steps: usize) -> Result<()> {
    if time_steps > i32::MAX as usize {
        return Err(Error::config("time_steps", time_steps, "must be less than 2^31").into());
    }
    Ok(())
}

/// `[T, N, ...]` -> `[T*N, ...]`.
pub(crate) fn merge_time(xs: &Tensor) -> Result<Tensor> {
    xs.flatten(0, 1)
}

/// `[T*N, ...]` -> `[T, N, ...]`.
pub(crate) fn split_time(xs: &Tensor, time_steps: usize) -> Result<Tensor> {
    let dims = xs.dims();
    xs.reshape([&[time_steps, dims[0].checked_div(time_steps).unwrap_or(0)], &dims[1..]].concat())
}
