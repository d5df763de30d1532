//! The training loss (Eq. 14): a weighted cross entropy of the masked tokens.

use std::f64::consts::LN_2;

use candle_core::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use snn_core::Seed;

use crate::masked::Masked;
use crate::{AbsorbingProcess, Denoiser, Error, NoisyCodes, Result, host};

/// How much each diffusion time counts in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// `T_d / t`: with `t` uniform, the loss is an unbiased estimate of the bound, the sum over `t` of `1 / t` (Eq. 14).
    #[default]
    Elbo,
    /// `1 - t / T_d` (the released code). The first sampling step, `t = T_d`, has weight 0 and is never trained.
    Released,
    /// Every time has weight 1.
    Uniform,
}

impl Weighting {
    /// The weight of time `t` in `1..=steps`.
    ///
    /// # Examples
    /// ```
    /// use absorbing_diffusion::Weighting;
    /// assert_eq!(Weighting::Elbo.factor(1, 49), 49.);
    /// assert_eq!(Weighting::Released.factor(49, 49), 0.);
    /// ```
    #[must_use]
    pub fn factor(self, t: usize, steps: usize) -> f64 {
        match self {
            Self::Elbo => steps as f64 / t as f64,
            Self::Released => 1. - t as f64 / steps as f64,
            Self::Uniform => 1.,
        }
    }
}

/// Draws the noise that one [`loss`] needs: times `t: u32 [N]` uniform in `1..=T_d`, and `u: f64 [N, H', W']` uniform in
/// `[0, 1)`.
///
/// Both come from the seed's stream of this label, and each training step needs a label of its own, such as `"loss/1234"`.
/// They are on the CPU, where the forward process is computed.
///
/// # Errors
/// Returns an error if a tensor cannot be made.
pub fn draw_noise(
    process: &AbsorbingProcess,
    (n, h, w): (usize, usize, usize),
    seed: Seed,
    label: &str,
) -> Result<(Tensor, Tensor)> {
    let mut rng = seed.rng(label);
    let t: Vec<u32> = (0..n).map(|_| rng.random_range(1..=process.steps() as u32)).collect();
    let u: Vec<f64> = (0..n * h * w).map(|_| rng.random()).collect();
    Ok((Tensor::from_vec(t, n, &Device::Cpu)?, Tensor::from_vec(u, (n, h, w), &Device::Cpu)?))
}

/// Computes the loss that trains a denoiser, Eq. 14 in bits per token, from codes and noise:
///
/// `mean_n w(t_n) sum_{ij: h_t(i, j) = K} -log2 p(h_0(i, j) | h_t) / (H' W')`.
///
/// It is a differentiable scalar. The logits of tokens that are not masked change nothing, even if they are infinite or NaN,
/// and their gradient is exactly 0. A NaN in the logits of a masked token makes the loss NaN and is not an error, because to
/// look at every step would stall the device.
///
/// # Shapes
/// `h0: u32 [N, H', W']` in `0..K`, `t: u32 [N]` in `1..=T_d`, `u: [N, H', W']` in `[0, 1)` -> a scalar, of the
/// logits' type (f32 if that is shorter).
/// # Errors
/// Returns the errors of [`AbsorbingProcess::q_sample`] and of the denoiser, and an error if the denoiser is one
/// [of another process](Denoiser::check_process), if a time is 0, if the batch is
/// empty, or if the logits have another shape.
/// # Examples
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, Weighting, draw_noise, from_fn, loss};
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::Seed;
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(128, 49)?;
/// let uniform = from_fn(|h_t, _t, _train| {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 128, h, w), DType::F32, h_t.device())
/// });
/// let h0 = Tensor::zeros((32, 7, 7), DType::U32, &Device::Cpu)?;
/// let (t, u) = draw_noise(&process, (32, 7, 7), Seed(0), "loss/0")?;
/// let bits = loss(&process, &uniform, &h0, &t, &u, Weighting::Elbo, true)?.to_scalar::<f32>()?;
/// assert!((bits - 7.).abs() < 1.); // log2 128, but for the noise
/// # Ok(()) }
/// ```
pub fn loss(
    process: &AbsorbingProcess,
    denoiser: &dyn Denoiser,
    h0: &Tensor,
    t: &Tensor,
    u: &Tensor,
    weighting: Weighting,
    train: bool,
) -> Result<Tensor> {
    denoiser.check_process(process)?;
    let (n, h, w) = h0.dims3()?;
    if h0.elem_count() == 0 {
        return Err(Error::config("loss.h0", format!("{:?}", h0.dims()), "needs at least one token"));
    }
    let (codes, dims) = host::codes(h0, process.codes())?;
    let times = host::times(t, n, 1..=process.steps())?;
    let corrupted = process.corrupt_all(&codes, dims, &times, u)?;
    let mut masked = Masked::of(&codes, &corrupted, h * w, process.codes());
    // The network must run, and move its running statistics; and some devices cannot be asked nothing.
    let nothing = masked.is_empty() && !h0.device().is_cpu();
    if nothing {
        masked.ask_for_the_first(&codes);
    }
    let h_t = Tensor::from_vec(corrupted, dims, h0.device())?;
    let (t, images) = (t.to_device(h0.device())?, (0..n).collect::<Vec<_>>());
    let logits = denoiser.logits_at(&NoisyCodes::new(&h_t, &t, &images), &masked.positions, train)?;
    let nats = masked.nats(&logits)?;
    let scale = 1. / ((n * h * w) as f64 * LN_2);
    let factor = |t: u32| if nothing { 0. } else { weighting.factor(t as usize, process.steps()) };
    let weights: Vec<f64> = times.iter().map(|&t| factor(t) * scale).collect();
    let weights = Tensor::new(masked.spread(&weights), &Device::Cpu)?.to_dtype(nats.dtype())?;
    Ok((nats * weights.to_device(h0.device())?)?.sum_all()?)
}
