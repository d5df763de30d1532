//! The evidence lower bound as a number to report: bits per token, with its standard error.

use std::f64::consts::LN_2;

use candle_core::Tensor;
use rand::Rng;
use serde::{Deserialize, Serialize};
use snn_core::Seed;

use crate::masked::Masked;
use crate::{AbsorbingProcess, Denoiser, Error, NoisyCodes, Result, host};

/// How precisely [`bits_per_token`] estimates, and how many images it takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElboConfig {
    /// Diffusion times that are drawn for each image, one from each of as many equal parts of `1..=T_d`.
    pub strata: usize,
    /// Images that the denoiser is given at once.
    pub batch_size: usize,
}

impl Default for ElboConfig {
    /// Eight diffusion times for each image, 64 images at once.
    fn default() -> Self {
        Self { strata: 8, batch_size: 64 }
    }
}

impl ElboConfig {
    /// Checks both numbers.
    ///
    /// # Errors
    /// Returns an error if there are no strata or more than 65536, or if the batch size is 0.
    pub fn validate(&self) -> Result<()> {
        match (self.strata, self.batch_size) {
            (strata @ (0 | 65_537..), _) => {
                Err(Error::config("bound.strata", strata, "must be at least 1 and at most 65536"))
            }
            (_, 0) => Err(Error::config("bound.batch_size", 0, "must be at least 1")),
            _ => Ok(()),
        }
    }
}

/// How well a denoiser models images, in bits: an estimate of an upper bound (Eq. 14) on their negative log-likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitsPerToken {
    /// The mean over the images.
    pub mean: f64,
    /// The sample standard deviation over the images, divided by the root of their number.
    pub standard_error: f64,
    /// The number of images.
    pub images: usize,
}

impl BitsPerToken {
    fn of(estimates: &[f64]) -> Self {
        let n = estimates.len() as f64;
        let mean = estimates.iter().sum::<f64>() / n;
        let variance = estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.);
        Self { mean, standard_error: (variance / n).sqrt(), images: estimates.len() }
    }
}

/// Evaluates a denoiser by the negative evidence lower bound (Eq. 14) of all images of `h0`, in bits per token.
///
/// The estimate for image `i` is `mean_k T_d / t_k * sum_{masked} -log2 p(h_0 | h_{t_k}) / (H' W')`, with stratified times
/// `t_k = 1 + floor(T_d (k + u) / strata)`. It is unbiased. The noise of image `i` comes from the stream `elbo/<i>`, so the
/// result does not depend on the batch size.
///
/// # Shapes
/// `h0: u32 [N, H', W']` in `0..K`, `N >= 2`.
/// # Errors
/// Returns an error if the config does not [validate](ElboConfig::validate), if the denoiser is one
/// [of another process](Denoiser::check_process), if a code is out of range, if there are fewer
/// than two images, if the logits have another shape, or if a cross entropy is not finite (the error names the image).
/// # Examples
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, ElboConfig, bits_per_token, from_fn};
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::Seed;
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(4, 49)?;
/// let uniform = from_fn(|h_t, _t, _train| {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 4, h, w), DType::F32, h_t.device())
/// });
/// let h0 = Tensor::zeros((100, 7, 7), DType::U32, &Device::Cpu)?;
/// let bits = bits_per_token(&process, &uniform, &h0, &ElboConfig::default(), Seed(0))?;
/// assert!((bits.mean - 2.).abs() < 4. * bits.standard_error);
/// # Ok(()) }
/// ```
pub fn bits_per_token(
    process: &AbsorbingProcess,
    denoiser: &dyn Denoiser,
    h0: &Tensor,
    config: &ElboConfig,
    seed: Seed,
) -> Result<BitsPerToken> {
    config.validate()?;
    denoiser.check_process(process)?;
    let (codes, (n, h, w)) = host::codes(h0, process.codes())?;
    if n < 2 || h * w == 0 {
        return Err(Error::config(
            "bound.h0",
            format!("{:?}", h0.dims()),
            "needs two images, of a token or more",
        ));
    }
    let mut estimates = vec![0.; n];
    for (batch, estimates) in estimates.chunks_mut(config.batch_size).enumerate() {
        let first = batch * config.batch_size;
        let batch = h0.narrow(0, first, estimates.len())?;
        let codes = &codes[first * h * w..][..estimates.len() * h * w];
        let images: Vec<usize> = (first..).take(estimates.len()).collect();
        let mut rngs: Vec<_> = images.iter().map(|i| seed.rng(&format!("elbo/{i}"))).collect();
        for stratum in 0..config.strata {
            let (t, h_t) = corrupt(process, codes, &mut rngs, (stratum, config.strata));
            let masked = Masked::of(codes, &h_t, h * w, process.codes());
            if masked.is_empty() {
                continue; // Nothing to tell, and some devices cannot be asked nothing.
            }
            let h_t = Tensor::from_vec(h_t, batch.dims(), h0.device())?;
            let times = Tensor::new(t.as_slice(), h0.device())?;
            let noisy = NoisyCodes::new(&h_t, &times, &images);
            let logits = denoiser.logits_at(&noisy, &masked.positions, false)?;
            let nats = masked.sums(&host::floats(&masked.nats(&logits)?)?);
            let scale = process.steps() as f64 / (config.strata * h * w) as f64 / LN_2;
            for (i, (estimate, nats)) in estimates.iter_mut().zip(finite(nats, first, &t)?).enumerate() {
                *estimate += scale * nats / f64::from(t[i]);
            }
        }
    }
    Ok(BitsPerToken::of(&estimates))
}

/// Draws a time from this stratum for each image, and its codes at that time.
fn corrupt<R: Rng>(
    process: &AbsorbingProcess,
    codes: &[u32],
    rngs: &mut [R],
    (stratum, strata): (usize, usize),
) -> (Vec<u32>, Vec<u32>) {
    let mut times = Vec::with_capacity(rngs.len());
    let mut h_t = Vec::with_capacity(codes.len());
    let length = codes.len() / rngs.len();
    for (rng, codes) in rngs.iter_mut().zip(codes.chunks(length)) {
        let u = (stratum as f64 + rng.random::<f64>()) / strata as f64;
        let t = (1 + (process.steps() as f64 * u) as usize).min(process.steps()) as u32;
        times.push(t);
        h_t.extend(codes.iter().map(|&code| process.corrupt(code, t, rng.random())));
    }
    (times, h_t)
}

/// The cross entropies of images, unless one of them is not finite.
fn finite(nats: Vec<f64>, first: usize, t: &[u32]) -> Result<Vec<f64>> {
    match nats.iter().position(|x| !x.is_finite()) {
        Some(i) => {
            let at = format!("of image {} at t = {}", first + i, t[i]);
            Err(Error::value("cross entropy", at, nats[i], "a finite number; look at the logits"))
        }
        None => Ok(nats),
    }
}
