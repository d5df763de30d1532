//! Pooling of spikes, with PyTorch's semantics.

use candle_core::{D, Result, Tensor, bail};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Makes one value of each square window of a map.
///
/// Windows do not overlap: the kernel is the stride, as PyTorch's `AvgPool2d(k)` and `MaxPool2d(k)` have it by default. Rows and
/// columns that fill no window are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Pool {
    /// The mean. Of spikes this is no longer 0 or 1.
    Average {
        /// Side of a window.
        kernel: usize,
    },
    /// The maximum: of spikes, whether any of them is there (OR). The gradient goes to the first maximum, row by row.
    Max {
        /// Side of a window.
        kernel: usize,
    },
}

impl Pool {
    /// Returns the side of a window, and the step from one to the next.
    #[must_use]
    pub fn kernel(self) -> usize {
        match self {
            Self::Average { kernel } | Self::Max { kernel } => kernel,
        }
    }

    /// Returns the size of the map that it makes of one of `[C, H, W]`.
    ///
    /// # Errors
    /// Returns an error if the kernel is 0, or larger than the map.
    pub fn map(self, [c, h, w]: [usize; 3]) -> Result<[usize; 3]> {
        let kernel = self.kernel();
        if kernel == 0 {
            return Err(Error::config("pool.kernel", 0, "must be at least 1").into());
        }
        if kernel > h.min(w) {
            let reason = format!("is larger than a map of {h} rows and {w} columns");
            return Err(Error::config("pool.kernel", kernel, reason).into());
        }
        Ok([c, h / kernel, w / kernel])
    }

    /// Pools the last two axes; differentiable.
    ///
    /// # Shapes
    /// `xs: [.., C, H, W]` -> `[.., C, H / kernel, W / kernel]`.
    /// # Errors
    /// Returns an error if there are fewer than three axes; otherwise as [`map`](Self::map).
    /// # Examples
    /// ```
    /// # use candle_core::{Device, Tensor};
    /// # use snn_core::Pool;
    /// # fn main() -> candle_core::Result<()> {
    /// let spikes = Tensor::new(&[[[0f32, 1., 0.], [0., 0., 1.]]], &Device::Cpu)?; // [C, H, W]
    /// assert_eq!(Pool::Average { kernel: 2 }.apply(&spikes)?.flatten_all()?.to_vec1::<f32>()?, [0.25]);
    /// assert_eq!(Pool::Max { kernel: 2 }.apply(&spikes)?.flatten_all()?.to_vec1::<f32>()?, [1.]);
    /// # Ok(()) }
    /// ```
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        let [batch @ .., c, h, w] = xs.dims() else {
            bail!("pooling: wants [.., C, H, W], not {:?}", xs.dims())
        };
        let ([c, rows, columns], kernel) = (self.map([*c, *h, *w])?, self.kernel());
        let pooled_dims = [batch, &[c, rows, columns]].concat();
        if xs.elem_count() == 0 {
            return Tensor::zeros(pooled_dims, xs.dtype(), xs.device());
        }
        let maps = batch.iter().product::<usize>() * c;
        let whole = xs.narrow(D::Minus2, 0, rows * kernel)?.narrow(D::Minus1, 0, columns * kernel)?;
        let windows = whole.contiguous()?.reshape((maps, rows, kernel, columns, kernel))?;
        let windows =
            windows.transpose(2, 3)?.contiguous()?.reshape((maps, rows, columns, kernel * kernel))?;
        let pooled = match self {
            Self::Average { .. } => windows.mean(D::Minus1)?,
            // One of equals is chosen, and gets all of the gradient: Candle's maximum shares it out.
            Self::Max { .. } => {
                windows.gather(&windows.detach().argmax_keepdim(D::Minus1)?, D::Minus1)?.squeeze(D::Minus1)?
            }
        };
        pooled.reshape(pooled_dims)
    }
}
