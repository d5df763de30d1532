//! The training loss (Eq. 14): a weighted cross entropy of the masked tokens.

use std::f64::consts::LN_2;

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use snn_core::Seed;

use crate::{AbsorbingProcess, Denoiser, Error, Result, host};

/// How much each diffusion time counts in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// `T_d / t`: with `t` uniform, an unbiased estimate of the bound, the sum over `t` of `1 / t` (Eq. 14).
    #[default]
    Elbo,
    /// `1 - t / T_d` (the released code). The first sampling step, `t = T_d`, has weight 0 and is never trained.
    Released,
    /// 1.
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
    pub fn factor(self, t: usize, steps: usize) -> f64 {
        match self {
            Self::Elbo => steps as f64 / t as f64,
            Self::Released => 1. - t as f64 / steps as f64,
            Self::Uniform => 1.,
        }
    }
}

/// The noise of one [`loss`]: times `t: u32 [N]` uniform in `1..=T_d`, and `u: f64 [N, H', W']` uniform in `[0, 1)`.
///
/// Both come from the seed's stream of this label (one a training step, such as `"loss/1234"`), and live on the CPU,
/// where the forward process is computed.
///
/// # Errors
/// A tensor that cannot be made.
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

/// The loss of Eq. 14 in bits a token, given its noise:
///
/// `mean_n w(t_n) sum_{ij: h_t(i, j) = K} -log2 p(h_0(i, j) | h_t) / (H' W')`.
///
/// A differentiable scalar; the gradient with respect to the logits of a token that is not masked is exactly 0, whatever
/// they are: infinite or NaN, they change nothing.
/// It stays on the device: a NaN in the logits of a masked token comes out as a NaN loss, not as an error, since looking would stall
/// the device at every step.
///
/// # Shapes
/// `h0: u32 [N, H', W']` in `0..K`, `t: u32 [N]` in `1..=T_d`, `u: [N, H', W']` in `[0, 1)` -> a scalar, of the
/// logits' type (f32 if that is shorter).
/// # Errors
/// What [`AbsorbingProcess::q_sample`] rejects, `t = 0`, an empty batch, and logits of another shape.
/// # Examples
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, Weighting, draw_noise, loss};
/// use candle_core::{DType, Device, Result, Tensor};
/// use snn_core::Seed;
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(128, 49)?;
/// let uniform = |h_t: &Tensor, _t: &Tensor, _train: bool| -> Result<Tensor> {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 128, h, w), DType::F32, h_t.device())
/// };
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
    let (n, h, w) = h0.dims3()?;
    if h0.elem_count() == 0 {
        return Err(Error::config("loss.h0", format!("{:?}", h0.dims()), "needs at least one token"));
    }
    let times = host::times(t, n, 1..=process.steps())?;
    let h_t = process.q_sample(h0, t, u)?;
    let images: Vec<usize> = (0..n).collect();
    let logits = denoiser.logits(&h_t, &t.to_device(h0.device())?, &images, train)?;
    let nats = masked_cross_entropy(process, &logits, h0, &h_t)?;
    let scale = 1. / ((n * h * w) as f64 * LN_2);
    let weights: Vec<f64> =
        times.iter().map(|&t| weighting.factor(t as usize, process.steps()) * scale).collect();
    let weights = Tensor::from_vec(weights, n, &Device::Cpu)?.to_dtype(nats.dtype())?;
    Ok((nats * weights.to_device(h0.device())?)?.sum_all()?)
}

/// `sum_{ij: h_t(i, j) = K} -ln p(h_0(i, j) | h_t)` of each image, `[N]`.
pub(crate) fn masked_cross_entropy(
    process: &AbsorbingProcess,
    logits: &Tensor,
    h0: &Tensor,
    h_t: &Tensor,
) -> Result<Tensor> {
    let (n, h, w) = h_t.dims3()?;
    Error::check_shape("what the denoiser returned", logits.dims(), &[n, process.codes(), h, w])?;
    let logits = match logits.dtype() {
        DType::F32 | DType::F64 => logits.clone(),
        _ => logits.to_dtype(DType::F32)?,
    };
    // Selected before the softmax, not multiplied by 0 behind it: a logit that is not read may be anything.
    let masked = h_t.eq(process.mask())?;
    let read = masked.unsqueeze(1)?.broadcast_as(logits.shape())?.contiguous()?;
    let logits = read.where_cond(&logits, &logits.zeros_like()?)?;
    // -log_softmax, gathered before the normaliser is taken off: no second tensor of all logits.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let normaliser = shifted.exp()?.sum_keepdim(1)?.log()?;
    let of_truth = shifted.gather(&h0.unsqueeze(1)?.contiguous()?, 1)?;
    let nats = (normaliser - of_truth)?.squeeze(1)?;
    let nats = masked.where_cond(&nats, &nats.zeros_like()?)?;
    Ok(nats.sum((1, 2))?)
}
