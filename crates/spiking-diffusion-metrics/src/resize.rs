//! Image sizes, changed as each evaluation tool changes them.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::input::check_memory;
use crate::{Error, Result};

/// How [`resize`] makes a pixel of the resized image from pixels of the original.
///
/// All ways are separable: `y[i] = sum_j w[i, j] x[j]` along each row, then along each column, with `s = in / out` below.
/// Where two pixels count, each has the weight that linear interpolation gives it.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::{Resize, Result, resize};
///
/// let image = Tensor::new(&[[[[0f32, 1.0]]]], &Device::Cpu)?;
/// let row = |how| -> Result<Vec<f32>> { Ok(resize(&image, (1, 4), how)?.flatten_all()?.to_vec1()?) };
/// assert_eq!(row(Resize::Bilinear)?, [0.0, 0.25, 0.75, 1.0]);
/// assert_eq!(row(Resize::BilinearCorner)?, [0.0, 0.5, 1.0, 1.0]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Resize {
    /// The two pixels beside `(i + 1/2) s - 1/2`, edges repeated: PyTorch's
    /// `interpolate(mode="bilinear", align_corners=False)`, which pytorch-fid uses.
    Bilinear,
    /// The two pixels beside `i s`: bilinear without half-pixel centres, TensorFlow 1's `resize_bilinear`, which
    /// the original FID code and torch-fidelity use.
    BilinearCorner,
    /// Cubic kernel with `a = -1/2` around `(i + 1/2) s`, as wide as `max(s, 1)` times four pixels, cut off at the
    /// edges and normalised: Pillow's `BICUBIC` on floating-point pixels, which clean-fid uses. It overshoots.
    Bicubic,
}

/// Resizes images to `size = (height, width)`, as the evaluation tool does whose numbers are to be reproduced.
///
/// # Shapes
/// `images: [N, C, H, W]` -> `[N, C, height, width]`, in `f32`.
///
/// # Errors
/// Returns an error if the images are not a floating-point tensor of four axes, if a side is 0 before or after, or if there is
/// not enough memory.
///
/// # Examples
/// See [`Resize`].
pub fn resize(images: &Tensor, size: (usize, usize), method: Resize) -> Result<Tensor> {
    let (count, channels, height, width) = checked_dims(images)?;
    let pixels = (count * channels).checked_mul(size.0).and_then(|pixels| pixels.checked_mul(size.1));
    check_memory("size", size.0.max(size.1), pixels)?;
    let resizer = Resizer::new((height, width), size, method)?;
    let values = to_f32(images)?;
    let planes = values.par_chunks_exact(height * width).map(|plane| resizer.plane(plane));
    let out: Vec<f32> = planes.collect::<Vec<_>>().concat();
    Ok(Tensor::from_vec(out, (count, channels, size.0, size.1), &Device::Cpu)?.to_device(images.device())?)
}

/// `(N, C, H, W)` of floating-point images without an empty side.
pub(crate) fn checked_dims(images: &Tensor) -> Result<(usize, usize, usize, usize)> {
    if !images.dtype().is_float() {
        return Err(Error::DType { what: "images", got: images.dtype() });
    }
    match *images.dims() {
        [n, c, h, w] if c * h * w > 0 => Ok((n, c, h, w)),
        _ => Err(Error::Shape {
            what: "images",
            expected: "[N, C, H, W] without an empty image".into(),
            got: images.dims().to_vec(),
        }),
    }
}

pub(crate) fn to_f32(images: &Tensor) -> Result<Vec<f32>> {
    Ok(images.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// The weights of both axes for one pair of sizes.
pub(crate) struct Resizer {
    rows: Vec<Taps>,
    columns: Vec<Taps>,
    width: usize,
}

/// `y = sum_k weights[k] x[start + k]`.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

impl Resizer {
    pub(crate) fn new(from: (usize, usize), to: (usize, usize), method: Resize) -> Result<Self> {
        if to.0 == 0 || to.1 == 0 {
            return Err(Error::config("size", format!("{to:?}"), "a side must be at least 1"));
        }
        Ok(Self { rows: axis(from.0, to.0, method), columns: axis(from.1, to.1, method), width: from.1 })
    }

    /// Resizes the row-major pixels of one channel: along the rows, then along the columns.
    pub(crate) fn plane(&self, plane: &[f32]) -> Vec<f32> {
        let wide: Vec<Vec<f32>> = plane.chunks_exact(self.width).map(|line| self.line(line)).collect();
        let mut out = Vec::with_capacity(self.rows.len() * self.columns.len());
        let mut sums = vec![0.0; self.columns.len()];
        for taps in &self.rows {
            sums.fill(0.0);
            for (line, weight) in wide[taps.start..].iter().zip(&taps.weights) {
                sums.iter_mut().zip(line).for_each(|(sum, x)| *sum += weight * x);
            }
            out.extend_from_slice(&sums);
        }
        out
    }

    fn line(&self, line: &[f32]) -> Vec<f32> {
        let sum = |taps: &Taps| line[taps.start..].iter().zip(&taps.weights).map(|(x, w)| x * w).sum();
        self.columns.iter().map(sum).collect()
    }
}

fn axis(from: usize, to: usize, method: Resize) -> Vec<Taps> {
    let scale = from as f32 / to as f32;
    let taps = |i: usize| match method {
        Resize::Bilinear => beside(((i as f32 + 0.5) * scale - 0.5).max(0.0), from),
        Resize::BilinearCorner => beside(i as f32 * scale, from),
        Resize::Bicubic => around(i, from as f64 / to as f64, from),
    };
    (0..to).map(taps).collect()
}

/// Linear interpolation between the pixels on both sides of `at >= 0`.
fn beside(at: f32, from: usize) -> Taps {
    let start = (at as usize).min(from - 1);
    let part = (at - start as f32).clamp(0.0, 1.0);
    let weights = if start + 1 < from { vec![1.0 - part, part] } else { vec![1.0] };
    Taps { start, weights }
}

/// Cubic weights around the centre of output pixel `i`, widened when the image shrinks.
fn around(i: usize, scale: f64, from: usize) -> Taps {
    let widen = scale.max(1.0);
    let centre = (i as f64 + 0.5) * scale;
    let start = (centre - 2.0 * widen + 0.5).max(0.0) as usize;
    let end = ((centre + 2.0 * widen + 0.5) as usize).min(from);
    let weight = |j: usize| cubic((j as f64 - centre + 0.5) / widen);
    let weights: Vec<f64> = (start..end).map(weight).collect();
    let total: f64 = weights.iter().sum();
    Taps { start, weights: weights.iter().map(|w| (w / total) as f32).collect() }
}

/// Keys' cubic convolution kernel with `a = -1/2`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
