//! What a convolution is, and the map that it makes of one of known size.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The geometry of a convolution or transposed convolution; each number holds for rows and columns alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Side of the kernel, for layers that create one; functions that are given a weight take its size instead.
    pub kernel: usize,
    /// Distance between neighbouring output positions on the input; for a transposed convolution, between neighbouring input
    /// positions on the output.
    pub stride: usize,
    /// Rows and columns of zeros on each side of the input; for a transposed convolution, those cut from each side of the output.
    pub padding: usize,
    /// Rows and columns added at the end of a transposed convolution's output. Must be less than the stride.
    pub output_padding: usize,
}

impl ConvConfig {
    /// The geometry with this kernel, stride and padding, and without output padding.
    #[must_use]
    pub fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel, stride, padding, output_padding: 0 }
    }

    /// The same geometry with output padding.
    #[must_use]
    pub fn with_output_padding(self, output_padding: usize) -> Self {
        Self { output_padding, ..self }
    }

    /// Checks that a layer can be made of this geometry, whatever its input.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if the kernel or the stride is 0, or if the output padding is not less
    /// than the stride.
    pub fn validate(&self) -> crate::Result<()> {
        if self.kernel == 0 {
            return Err(Error::config("conv.kernel", 0, "must be at least 1"));
        }
        self.validate_steps()
    }

    /// [`validate`](Self::validate) without the kernel, for functions whose weight has its own.
    fn validate_steps(&self) -> crate::Result<()> {
        if self.stride == 0 {
            return Err(Error::config("conv.stride", 0, "must be at least 1"));
        }
        if self.output_padding >= self.stride {
            let reason = format!("must be less than the stride, {}", self.stride);
            return Err(Error::config("conv.output_padding", self.output_padding, reason));
        }
        Ok(())
    }
}

/// Rows and columns that [`conv2d`](crate::conv2d()) makes of an image `[C_in, H, W]`.
pub(crate) fn conv2d_map(image: &[usize; 3], weight: &Tensor, cfg: &ConvConfig) -> Result<(usize, usize)> {
    let (_, c_weight, kh, kw) = weight.dims4()?;
    check_operands("conv2d", image, c_weight, weight)?;
    if cfg.stride == 0 {
        return Err(Error::config("conv.stride", 0, "must be at least 1").into());
    }
    let out = |len: usize, k: usize| -> Result<usize> {
        let padded = cfg.padding.checked_mul(2).and_then(|both| both.checked_add(len));
        let Some(padded) = padded else {
            let reason = format!("an input of {len}, padded on both sides, cannot be counted");
            return Err(Error::config("conv.padding", cfg.padding, reason).into());
        };
        match padded.checked_sub(k) {
            Some(room) => Ok(room / cfg.stride + 1),
            None => bail!("conv2d: a kernel of {k} on an input of {len} with conv.padding = {}", cfg.padding),
        }
    };
    Ok((out(image[1], kh)?, out(image[2], kw)?))
}

/// Rows and columns that [`conv_transpose2d`](crate::conv_transpose2d()) makes of a map `[C_in, H, W]`.
pub(crate) fn conv_transpose2d_map(
    map: &[usize; 3],
    weight: &Tensor,
    cfg: &ConvConfig,
) -> Result<(usize, usize)> {
    let (c_weight, _, kh, kw) = weight.dims4()?;
    check_operands("conv_transpose2d", map, c_weight, weight)?;
    cfg.validate_steps()?;
    let out = |len: usize, k: usize| -> Result<usize> {
        let whole = (len - 1).checked_mul(cfg.stride).and_then(|n| n.checked_add(k));
        let Some(whole) = whole.and_then(|n| n.checked_add(cfg.output_padding)) else {
            let reason = format!("the output of {len} positions cannot be counted");
            return Err(Error::config("conv.stride", cfg.stride, reason).into());
        };
        let cut = cfg.padding.checked_mul(2).and_then(|both| whole.checked_sub(both));
        cut.filter(|&n| n > 0).ok_or_else(|| {
            let reason = format!("cuts away all {whole} positions of the output");
            Error::config("conv.padding", cfg.padding, reason).into()
        })
    };
    Ok((out(map[1], kh)?, out(map[2], kw)?))
}

/// Whether the channels fit and no axis is empty.
fn check_operands(op: &str, image: &[usize; 3], c_weight: usize, weight: &Tensor) -> Result<()> {
    let empty = image.iter().chain(weight.dims()).any(|&len| len == 0);
    if image[0] != c_weight || empty {
        let ([c, h, w], weight) = (image, weight.dims());
        bail!("{op}: input [.., {c}, {h}, {w}] and weight {weight:?} do not fit")
    }
    Ok(())
}
