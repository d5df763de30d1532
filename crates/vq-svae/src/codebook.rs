//! The codebook: nearest neighbour, look-up, and how much of it is used.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use snn_core::{embedding, nearest};

use crate::VqSvaeConfig;

/// Turns vectors into codes and codes into vectors: `K` code vectors of `C` channels (paper Eq. 7, 8).
#[derive(Debug)]
pub(crate) struct Codebook {
    /// `[K, C]`
    weight: Tensor,
}

impl Codebook {
    pub(crate) fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let init = Init::Randn { mean: 0., stdev: cfg.codebook_std };
        Ok(Self { weight: vb.get_with_hints((cfg.codes, cfg.code_channels), "weight", init)? })
    }

    /// Quantises by Eq. 7, `argmin_k |z - z_k|_2`: `[N, C, H', W']` -> codes u32 `[N, H', W']`, without gradient.
    pub(crate) fn nearest(&self, z: &Tensor) -> Result<Tensor> {
        nearest(z, &self.weight)
    }

    /// Looks codes up by Eq. 8: codes u32 `[N, H', W']` -> `[N, C, H', W']`, differentiable in the codebook.
    pub(crate) fn look_up(&self, codes: &Tensor) -> Result<Tensor> {
        let (n, h, w) = codes.dims3()?;
        let z = embedding(&self.weight, &codes.flatten_all()?)?;
        z.reshape((n, h, w, ()))?.permute((0, 3, 1, 2))?.contiguous()
    }

    /// Puts codes where others were, in the parameter itself. `codes: [n, C]`, one for each of `places`.
    pub(crate) fn replace(&self, places: &[usize], codes: &Tensor) -> Result<()> {
        for (i, &k) in places.iter().enumerate() {
            self.weight.slice_set(&codes.narrow(0, i, 1)?.contiguous()?, 0, k)?;
        }
        Ok(())
    }

    pub(crate) fn size(&self) -> Result<usize> {
        self.weight.dim(0)
    }
}

/// Measures how much of a codebook is used, by counting how often each code occurs.
///
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let mut usage = vq_svae::CodeUsage::new(8);
/// usage.record(&Tensor::new(&[[[0u32, 3], [3, 0]]], &Device::Cpu)?)?;
/// assert_eq!(usage.used(), 2);
/// assert!((usage.perplexity() - 2.).abs() < 1e-12);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeUsage {
    counts: Vec<u64>,
}

impl CodeUsage {
    /// Starts counting for a codebook of this size.
    #[must_use]
    pub fn new(codes: usize) -> Self {
        Self { counts: vec![0; codes] }
    }

    /// Counts the codes in a u32 tensor of any shape.
    ///
    /// # Errors
    /// Returns an error if a code lies outside the codebook, or if the tensor does not hold u32.
    pub fn record(&mut self, codes: &Tensor) -> Result<()> {
        let size = self.counts.len();
        for code in codes.flatten_all()?.to_vec1::<u32>()? {
            match self.counts.get_mut(code as usize) {
                Some(count) => *count += 1,
                None => bail!("code {code} outside a codebook of {size}"),
            }
        }
        Ok(())
    }

    /// How often each code has occurred, by code.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of codes that have occurred at all.
    #[must_use]
    pub fn used(&self) -> usize {
        self.counts.iter().filter(|&&n| n > 0).count()
    }

    /// The perplexity `exp(-sum p ln p)`: how many codes there would be if all were used equally often.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        let total = self.counts.iter().sum::<u64>() as f64;
        let share = self.counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 / total);
        share.map(|p| -p * p.ln()).sum::<f64>().exp()
    }
}
