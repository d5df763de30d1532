//! The time axis: spike trains are `[T, N, ...]`, time first.

use candle_core::{Result, Tensor};

/// Direct input encoding (paper section 2.2): the same analogue image at every time step.
///
/// # Shapes
/// `images: [N, ...]` -> `[T, N, ...]`, a broadcast view without a copy.
/// # Errors
/// None today: a tensor of any shape can be repeated.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(snn_core::direct_encode(&images, 16)?.dims(), [16, 2, 1, 28, 28]);
/// # Ok(()) }
/// ```
pub fn direct_encode(images: &Tensor, time_steps: usize) -> Result<Tensor> {
    let dims = [&[time_steps], images.dims()].concat();
    images.unsqueeze(0)?.broadcast_as(dims)
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
