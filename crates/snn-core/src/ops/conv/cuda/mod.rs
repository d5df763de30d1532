//! How the kernels of `columns.cu` are launched, on blocks of images.

#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(feature = "cuda")]
pub(super) mod run;

use candle_core::{Result, bail};

use super::cpu::Sizes;
use crate::ops::Real;
use crate::ops::cuda::launch::Launch;

const FILE: &str = "ops/conv/cuda/columns.cu";

impl Sizes {
    /// Elements of the columns of so many images.
    fn columns(&self, images: usize) -> usize {
        self.taps() * images * self.positions()
    }

    fn record(&self, launch: Launch, images: usize) -> Result<Launch> {
        let all = [
            images,
            self.c_in,
            self.h,
            self.w,
            self.kh,
            self.kw,
            self.oh,
            self.ow,
            self.stride,
            self.padding,
        ];
        // Coordinates in a padded image too.
        let most = [
            self.h + 2 * self.padding,
            self.w + 2 * self.padding,
            self.columns(images),
            images * self.image_len(),
            images * self.map_len(),
        ];
        match all.iter().chain(&most).find(|&&n| n > i32::MAX as usize) {
            Some(n) => bail!("{}: {n} does not fit 31 bits, in {self:?}", launch.kernel),
            None => Ok(launch.record::<f64>(&[], &all.map(|n| n as i32))),
        }
    }

    /// `(image, columns)`
    pub(crate) fn columns_of_image<F: Real>(&self, images: usize) -> Result<Launch> {
        let launch = Launch::new(FILE, "to_columns", F::DTYPE, self.columns(images), |_| 0)?
            .operand("image", images * self.image_len(), F::DTYPE)
            .operand("columns", self.columns(images), F::DTYPE);
        self.record(launch, images)
    }

    /// `(columns, image)`
    pub(crate) fn image_of_columns<F: Real>(&self, images: usize) -> Result<Launch> {
        let launch = Launch::new(FILE, "from_columns", F::DTYPE, images * self.image_len(), |_| 0)?
            .operand("columns", self.columns(images), F::DTYPE)
            .operand("image", images * self.image_len(), F::DTYPE);
        self.record(launch, images)
    }

    /// `(xs, ys)`, a map `[M, O, ...]` with its first axes exchanged; `back`, `[O, M, ...]`.
    pub(crate) fn exchange<F: Real>(&self, images: usize, back: bool) -> Result<Launch> {
        let elements = images * self.map_len();
        let (outer, inner) = if back { (self.c_out, images) } else { (images, self.c_out) };
        let launch = Launch::new(FILE, "exchange", F::DTYPE, elements, |_| 0)?
            .operand("xs", elements, F::DTYPE)
            .operand("ys", elements, F::DTYPE);
        launch.int("the first axis", outer)?.int("the second axis", inner)?.int("positions", self.positions())
    }
}

/// `(sum, part)`, the first in place.
pub(crate) fn add<F: Real>(elements: usize) -> Result<Launch> {
    let launch = Launch::new(FILE, "add", F::DTYPE, elements, |_| 0)?;
    Ok(launch.operand("sum", elements, F::DTYPE).operand("part", elements, F::DTYPE).count(elements))
}
