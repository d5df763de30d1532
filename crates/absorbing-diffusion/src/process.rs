//! The forward process (Eq. 10-12): tokens turn into the mask and stay so.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, host};

/// Turns codes into masks, step by step: the absorbing-state Markov chain over `K` codes and the mask, token `K`, in `T_d`
/// steps.
///
/// A step masks each remaining token with probability `gamma_t = 1 / (T_d - t + 1)` (Eq. 12) and leaves masks alone
/// (Eq. 11). The product telescopes, `prod_{s <= t} (1 - gamma_s) = 1 - t / T_d`: a token is masked at `t` with
/// probability `t / T_d`, independently of all others, and no transition matrix is ever needed.
///
/// # Examples
/// ```
/// use absorbing_diffusion::AbsorbingProcess;
/// use candle_core::{Device, Tensor};
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(128, 4)?;
/// let h0 = Tensor::new(&[[[5u32, 6], [7, 8]]], &Device::Cpu)?;
/// let t = Tensor::new(&[2u32], &Device::Cpu)?;
/// let u = Tensor::new(&[[[0.1, 0.9], [0.5, 0.49]]], &Device::Cpu)?;
/// let h_t = process.q_sample(&h0, &t, &u)?;
/// assert_eq!(h_t.to_vec3::<u32>()?, [[[128, 6], [7, 128]]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct AbsorbingProcess {
    codes: usize,
    steps: usize,
}

impl AbsorbingProcess {
    /// A process over `codes` codes (`K`) in `steps` steps (`T_d`).
    ///
    /// # Errors
    /// Returns an error if there are fewer than two codes, if there is no step, or if there are more of either than a `u32` can
    /// count.
    pub fn new(codes: usize, steps: usize) -> Result<Self> {
        const MAX: usize = u32::MAX as usize;
        if !(2..MAX).contains(&codes) {
            return Err(Error::config("process.codes", codes, "needs at least 2 codes, less than 2^32 - 1"));
        }
        if !(1..=MAX).contains(&steps) {
            return Err(Error::config("process.steps", steps, "needs at least 1 step, less than 2^32"));
        }
        Ok(Self { codes, steps })
    }

    /// The number of codes `K`.
    #[must_use]
    pub fn codes(&self) -> usize {
        self.codes
    }

    /// The number of steps `T_d`.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The mask token, `K`.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.codes as u32
    }

    /// The probability `1 / (T_d - t + 1)` that step `t`, in `1..=T_d`, masks a token that is not masked yet (Eq. 12).
    #[must_use]
    pub fn gamma(&self, t: usize) -> f64 {
        1. / (self.steps as f64 - t as f64 + 1.)
    }

    /// The probability `t / T_d` that a token is masked after step `t`, in `0..=T_d`.
    #[must_use]
    pub fn mask_probability(&self, t: usize) -> f64 {
        t as f64 / self.steps as f64
    }

    /// Draws the codes at time `t` from `q(h_t | h_0)`, given uniform noise: a token is masked where `u < t / T_d`.
    ///
    /// The comparison is made on the host in f64 (as `u T_d < t`), so every device sees the same masks. At `t = T_d`
    /// everything is masked, even where rounding to f32 has turned a number below 1 into `u = 1`.
    ///
    /// # Shapes
    /// `h0: u32 [N, H', W']` in `0..K`, `t: u32 [N]` in `0..=T_d`, `u: [N, H', W']` of any float type ->
    /// `u32 [N, H', W']` in `0..=K`, on the device of `h0`. `t` and `u` are best left on the CPU.
    /// # Errors
    /// Returns an error if the shapes do not fit, or if a code, a time or a noise lies outside its range (the error names its
    /// value and place).
    pub fn q_sample(&self, h0: &Tensor, t: &Tensor, u: &Tensor) -> Result<Tensor> {
        let (codes, dims) = host::codes(h0, self.codes)?;
        let t = host::times(t, dims.0, 0..=self.steps)?;
        Ok(Tensor::from_vec(self.corrupt_all(&codes, dims, &t, u)?, dims, h0.device())?)
    }

    /// [`q_sample`](Self::q_sample) on the host.
    pub(crate) fn corrupt_all(
        &self,
        codes: &[u32],
        dims: (usize, usize, usize),
        t: &[u32],
        u: &Tensor,
    ) -> Result<Vec<u32>> {
        let (u, length) = (host::noise(u, dims)?, dims.1 * dims.2);
        let corrupted = codes.iter().zip(u).enumerate();
        Ok(corrupted.map(|(i, (&token, u))| self.corrupt(token, t[i / length], u)).collect())
    }

    /// [`q_sample`](Self::q_sample) of one token.
    pub(crate) fn corrupt(&self, token: u32, t: u32, u: f64) -> u32 {
        let masked = u * (self.steps as f64) < f64::from(t) || t as usize == self.steps;
        if masked { self.mask() } else { token }
    }
}

/// What a config file holds; to read it back validates it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    codes: usize,
    steps: usize,
}

impl TryFrom<Fields> for AbsorbingProcess {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        Self::new(fields.codes, fields.steps)
    }
}
