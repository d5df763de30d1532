//! PyTorch's default initialisation.

use candle_core::Result;
use candle_nn::{Init, VarBuilder};

/// The bound of PyTorch's default initialisation: `U(-b, b)` with `b = 1/sqrt(fan_in)`, for the weight *and* the bias of
/// `Conv2d`, `ConvTranspose2d` and `Linear`.
///
/// PyTorch counts `fan_in = weight.size(1) * kh * kw`; for a transposed convolution, whose weight is
/// `[C_in, C_out, kh, kw]`, that is `C_out * kh * kw`. A shape of fewer than two axes
/// has a `fan_in` of 1.
///
/// # Examples
/// ```
/// assert_eq!(snn_core::fan_in_bound(&[32, 1, 3, 3]), 1. / 3.);
/// ```
#[must_use]
pub fn fan_in_bound(weight: &[usize]) -> f64 {
    1. / weight.iter().skip(1).map(|&len| len as f64).product::<f64>().sqrt()
}

/// The `weight` and `bias` of a layer, created with PyTorch's default or loaded.
pub(crate) fn weight_and_bias(
    vb: &VarBuilder<'_>,
    weight: &[usize],
    bias: usize,
) -> Result<(candle_core::Tensor, candle_core::Tensor)> {
    let bound = fan_in_bound(weight);
    let init = Init::Uniform { lo: -bound, up: bound };
    Ok((vb.get_with_hints(weight, "weight", init)?, vb.get_with_hints(bias, "bias", init)?))
}
