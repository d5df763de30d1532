//! Structural similarity.

use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::input::{check_finite, check_memory, check_square};
use crate::pixel::image_pair;
use crate::{Error, Result};

/// What the window of [`ssim`] sees beyond the border of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Zeros: every pixel is the centre of a window, which at the border compares zeros too.
    Zero,
    /// The image mirrored at the centre of its outermost pixels (`d c b | a b c d`): every pixel is the centre of a
    /// window.
    Reflect,
    /// Nothing: only the windows that lie inside the image count.
    Valid,
}

/// How the pixels in the window of [`ssim`] are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A Gaussian of standard deviation `sigma`.
    #[default]
    Gaussian,
    /// All pixels have the same weight; `sigma` is not used.
    Uniform,
}

/// Says how [`ssim`] compares images: its window, border and constants, in which published numbers differ.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{Padding, SsimConfig};
///
/// let cfg = SsimConfig { padding: Padding::Valid, ..SsimConfig::paper() };
/// assert_eq!(cfg, SsimConfig::standard());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsimConfig {
    /// Side of the square window in pixels. Must be odd.
    pub window: usize,
    /// Weights of the window.
    #[serde(default)]
    pub shape: Window,
    /// Whether variances are divided by `n - 1` and not by `n = window^2`; needs `window >= 3`.
    #[serde(default)]
    pub sample_covariance: bool,
    /// Standard deviation of a Gaussian window in pixels.
    pub sigma: f64,
    /// What lies beyond the border.
    pub padding: Padding,
    /// `C1 = (k1 data_range)^2` steadies the ratio of the means.
    pub k1: f64,
    /// `C2 = (k2 data_range)^2` steadies the ratio of the variances.
    pub k2: f64,
    /// Largest pixel minus smallest pixel of the image format: 1 for `[0, 1]` and for `[-0.5, 0.5]`.
    pub data_range: f64,
}

impl SsimConfig {
    /// The paper's protocol: an 11x11 window, sigma 1.5, zero padding, `C1 = 0.01^2`, `C2 = 0.03^2`.
    ///
    /// It is applied to images in `[-0.5, 0.5]` as they are. SSIM is not invariant to an offset, and the zeros
    /// of the padding are mid-grey there, so the same images in `[0, 1]` give other values. The column that the
    /// paper prints as SSIM is `1 - SSIM`: lower is better.
    #[must_use]
    pub fn paper() -> Self {
        Self {
            window: 11,
            shape: Window::Gaussian,
            sample_covariance: false,
            sigma: 1.5,
            padding: Padding::Zero,
            k1: 0.01,
            k2: 0.03,
            data_range: 1.0,
        }
    }

    /// The protocol of Wang et al. (2004): the window and constants of [`SsimConfig::paper`] on the valid region only.
    ///
    /// The result equals scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    /// use_sample_covariance=False, data_range=1)`, which crops what it padded.
    #[must_use]
    pub fn standard() -> Self {
        Self { padding: Padding::Valid, ..Self::paper() }
    }

    /// The default of torchmetrics (1.9): [`SsimConfig::standard`], but with the image mirrored at its border.
    #[must_use]
    pub fn torchmetrics() -> Self {
        Self { padding: Padding::Reflect, ..Self::paper() }
    }

    /// The default of scikit-image: a uniform 7x7 window, sample covariances, and the valid region only.
    #[must_use]
    pub fn uniform() -> Self {
        Self { window: 7, shape: Window::Uniform, sample_covariance: true, ..Self::standard() }
    }

    /// Checks that images can be compared with these numbers.
    ///
    /// # Errors
    /// Returns an error if `window` is even, or 1 with `sample_covariance`; if `sigma`, `k1`, `k2` or `data_range`
    /// is not a positive number; or if the square of one of them, or `C1` or `C2`, is 0 or infinite in `f64`.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::SsimConfig;
    ///
    /// let cfg = SsimConfig { window: 4, ..SsimConfig::paper() };
    /// assert_eq!(cfg.validate().unwrap_err().to_string(), "`window` = 4: must be odd");
    /// ```
    pub fn validate(&self) -> Result<()> {
        if self.window.is_multiple_of(2) {
            return Err(Error::config("window", self.window, "must be odd"));
        }
        if self.sample_covariance && self.window == 1 {
            return Err(Error::config("window", 1, "a sample covariance needs at least 3"));
        }
        let positive =
            [("sigma", self.sigma), ("k1", self.k1), ("k2", self.k2), ("data_range", self.data_range)];
        positive.iter().try_for_each(|(field, value)| check_square(field, *value))?;
        match [("k1", self.k1), ("k2", self.k2)].into_iter().find(|(_, k)| !self.steadying(*k).is_normal()) {
            Some((field, k)) => {
                let reason = format!("the square of `{field} data_range` must be a positive number");
                Err(Error::config(field, format!("{k:?}"), reason))
            }
            None => Ok(()),
        }
    }

    /// `C = (k data_range)^2`.
    fn steadying(&self, k: f64) -> f64 {
        (k * self.data_range).powi(2)
    }

    /// One axis of the window, of sum 1; the window is its outer product with itself.
    fn taps(&self) -> Vec<f64> {
        let centre = (self.window / 2) as f64;
        let weight = |k: usize| match self.shape {
            Window::Gaussian => (-(k as f64 - centre).powi(2) / (2.0 * self.sigma * self.sigma)).exp(),
            Window::Uniform => 1.0,
        };
        let weights: Vec<f64> = (0..self.window).map(weight).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }
}

/// Measures how similar each image is to its original as people see it: the structural similarity, averaged over pixels and
/// channels.
///
/// With window-weighted means `m`, variances `v` and covariance `c` around each pixel,
/// `SSIM = (2 m_a m_b + C1) (2 c_ab + C2) / ((m_a^2 + m_b^2 + C1) (v_a + v_b + C2))`. It lies in `[-1, 1]` and
/// is 1 for equal images. The column that the paper prints is `1 - SSIM`.
///
/// It is computed in `f64` by a separable filter, the images in parallel, and does not depend on the number
/// of threads.
///
/// # Shapes
/// `a`, `b`: `[N, C, H, W]`, floating point, any `C` -> `N` values; [`mean`](crate::mean) gives the number of
/// a table.
///
/// # Errors
/// Returns an error if the config does not [validate](SsimConfig::validate) or its window takes more memory than there is; if
/// the shapes differ or have an empty axis; if a pixel is not finite, or so large that its square is not; or if the images are
/// smaller than the window with [`Padding::Valid`] or than its half with [`Padding::Reflect`].
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::{SsimConfig, mean, ssim};
///
/// let black = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?.affine(1.0, -0.5)?;
/// let grey = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert!((mean(&ssim(&black, &black, &SsimConfig::paper())?)? - 1.0).abs() < 1e-12);
/// assert!(mean(&ssim(&black, &grey, &SsimConfig::paper())?)? < 0.1);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn ssim(a: &Tensor, b: &Tensor, cfg: &SsimConfig) -> Result<Vec<f64>> {
    cfg.validate()?;
    let (rows_a, rows_b) = image_pair(a, b)?;
    let (_, channels, height, width) = a.dims4()?;
    let smallest = match cfg.padding {
        Padding::Zero => 1,
        Padding::Reflect => cfg.window / 2 + 1,
        Padding::Valid => cfg.window,
    };
    if height.min(width) < smallest {
        let reason =
            format!("with this padding an image needs {smallest} pixels a side, got {height}x{width}");
        return Err(Error::config("window", cfg.window, reason));
    }
    let side =
        |side: usize| if cfg.padding == Padding::Valid { Some(side) } else { side.checked_add(cfg.window) };
    let padded = side(height).zip(side(width)).and_then(|(height, width)| height.checked_mul(width));
    check_memory("window", cfg.window, padded)?;
    let filter = Filter::new(cfg, height, width);
    let plane = height * width;
    let image = |n: usize| {
        let planes = rows_a.row(n).chunks_exact(plane).zip(rows_b.row(n).chunks_exact(plane));
        planes.map(|(a, b)| filter.similarity(a, b)).sum::<f64>() / channels as f64
    };
    let similarities: Vec<f64> = (0..rows_a.rows).into_par_iter().map(image).collect();
    check_finite(&similarities, 1, "SSIM", 0)?;
    Ok(similarities)
}

/// The window, and the sizes of the planes it runs over.
struct Filter {
    taps: Vec<f64>,
    pad: usize,
    /// Whether the image goes on beyond its border.
    mirror: bool,
    height: usize,
    width: usize,
    c1: f64,
    c2: f64,
    /// What variances and covariances are multiplied by.
    spread: f64,
}

impl Filter {
    fn new(cfg: &SsimConfig, height: usize, width: usize) -> Self {
        let pad = if cfg.padding == Padding::Valid { 0 } else { cfg.window / 2 };
        let pixels = (cfg.window * cfg.window) as f64;
        let spread = if cfg.sample_covariance { pixels / (pixels - 1.0) } else { 1.0 };
        let mirror = cfg.padding == Padding::Reflect;
        Self {
            taps: cfg.taps(),
            pad,
            mirror,
            height,
            width,
            c1: cfg.steadying(cfg.k1),
            c2: cfg.steadying(cfg.k2),
            spread,
        }
    }

    /// Mean SSIM of one channel.
    fn similarity(&self, a: &[f64], b: &[f64]) -> f64 {
        let (a, b) = (self.padded(a), self.padded(b));
        let product = |f: fn(f64, f64) -> f64| -> Vec<f64> {
            self.blur(&a.iter().zip(&b).map(|(a, b)| f(*a, *b)).collect::<Vec<_>>())
        };
        let (mean_a, mean_b) = (self.blur(&a), self.blur(&b));
        let (aa, bb, ab) = (product(|a, _| a * a), product(|_, b| b * b), product(|a, b| a * b));
        let pixel = |i: usize| {
            let (ma, mb) = (mean_a[i], mean_b[i]);
            let (va, vb, cov) = (aa[i] - ma * ma, bb[i] - mb * mb, ab[i] - ma * mb);
            let means = (2.0 * ma * mb + self.c1) / (ma * ma + mb * mb + self.c1);
            means * (2.0 * self.spread * cov + self.c2) / (self.spread * (va + vb) + self.c2)
        };
        (0..mean_a.len()).map(pixel).sum::<f64>() / mean_a.len() as f64
    }

    /// The plane with `pad` more pixels on every side.
    fn padded(&self, plane: &[f64]) -> Vec<f64> {
        let columns: Vec<_> = self.sources(self.width).collect();
        let pixel = |row: usize, column: &Option<usize>| column.map_or(0.0, |x| plane[row * self.width + x]);
        let line =
            |row: Option<usize>| columns.iter().map(move |column| row.map_or(0.0, |y| pixel(y, column)));
        self.sources(self.height).flat_map(line).collect()
    }

    /// For each position along an axis with its padding, the pixel that stands there; `None` is a zero.
    fn sources(&self, len: usize) -> impl Iterator<Item = Option<usize>> + use<> {
        let (pad, mirror) = (self.pad, self.mirror);
        (0..len + 2 * pad).map(move |at| match at.checked_sub(pad) {
            Some(i) if i < len => Some(i),
            Some(i) => mirror.then(|| 2 * (len - 1) - i),
            None => mirror.then(|| pad - at),
        })
    }

    /// Weighted mean around each pixel whose window lies inside the padded plane.
    fn blur(&self, padded: &[f64]) -> Vec<f64> {
        let (stride, reach) = (self.width + 2 * self.pad, self.taps.len() - 1);
        let width = stride - reach;
        let rows: Vec<f64> = padded.chunks_exact(stride).flat_map(|row| self.blur_row(row)).collect();
        let height = rows.len() / width - reach;
        let mut out = vec![0.0; height * width];
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            for (k, tap) in self.taps.iter().enumerate() {
                let source = &rows[(row + k) * width..][..width];
                out.iter_mut().zip(source).for_each(|(out, value)| *out += tap * value);
            }
        }
        out
    }

    fn blur_row<'a>(&'a self, row: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        row.windows(self.taps.len()).map(|window| window.iter().zip(&self.taps).map(|(v, tap)| v * tap).sum())
    }
}
