//! Seeded, labelled random streams.
//!
//! Candle's CPU generator cannot be seeded, so every random number of this project comes from here. A stream is
//! named, not threaded through the program: `seed.rng("shuffle/epoch 3")` is the same stream whenever it is asked
//! for, so a resumed run needs no saved generator state, and the CPU and CUDA draw the same numbers.

use candle_core::{DType, Device, Result, Shape, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ops::room;

/// The one number from which all random numbers of a run follow.
///
/// Each use of randomness draws from a stream of its own, named by a label, so that no use depends on what others have drawn.
///
/// # Examples
/// ```
/// use rand::Rng;
/// use snn_core::Seed;
/// let draw = |label: &str| Seed(7).rng(label).random::<u64>();
/// assert_eq!(draw("init/conv"), draw("init/conv"));
/// assert_ne!(draw("init/conv"), draw("init/bias"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The random stream that this label names: ChaCha8 keyed by `SHA-256(seed, label)`.
    ///
    /// It is a generator of rand 0.9: to draw from it by `rand::Rng`, depend on `rand = "0.9"`. The traits of other versions,
    /// such as 0.10, are not implemented for it.
    #[must_use]
    pub fn rng(self, label: &str) -> ChaCha8Rng {
        let key = Sha256::new().chain_update(self.0.to_le_bytes()).chain_update(label.as_bytes()).finalize();
        ChaCha8Rng::from_seed(key.into())
    }

    /// Another seed, for a part of the program whose labels may coincide with another part's.
    #[must_use]
    pub fn child(self, label: &str) -> Self {
        Self(self.rng(label).random())
    }

    /// A tensor of uniform random numbers from the stream of `label`, drawn in f64 from `[low, high)` and rounded to `dtype`, which now and then
    /// makes `high` of them.
    ///
    /// # Shapes
    /// -> `shape`.
    /// # Errors
    /// Returns an error if f64 cannot be cast to the element type, or if the numbers cannot be copied to the device.
    pub fn uniform(
        self,
        label: &str,
        shape: impl Into<Shape>,
        (low, high): (f64, f64),
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut rng = self.rng(label);
        fill(shape, dtype, device, || low + (high - low) * rng.random::<f64>())
    }

    /// A tensor of normal random numbers from the stream of `label`, drawn in f64 and rounded to `dtype`.
    ///
    /// # Shapes
    /// -> `shape`.
    /// # Errors
    /// Returns the errors of [`uniform`](Self::uniform).
    pub fn normal(
        self,
        label: &str,
        shape: impl Into<Shape>,
        (mean, std): (f64, f64),
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut rng = self.rng(label);
        fill(shape, dtype, device, || mean + std * standard_normal(&mut rng))
    }
}

/// One number of the normal distribution of mean 0 and variance 1, the next of this generator.
pub fn standard_normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

fn fill(shape: impl Into<Shape>, dtype: DType, device: &Device, draw: impl FnMut() -> f64) -> Result<Tensor> {
    let shape = shape.into();
    room("random numbers", shape.dims(), DType::F64)?;
    let values: Vec<f64> = std::iter::repeat_with(draw).take(shape.elem_count()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_seeds_separate_streams() -> Result<()> {
        let draw = |seed: u64, label: &str| {
            Seed(seed).uniform(label, 4, (0., 1.), DType::F64, &Device::Cpu)?.to_vec1::<f64>()
        };
        assert_eq!(draw(1, "a")?, draw(1, "a")?);
        assert_ne!(draw(1, "a")?, draw(1, "b")?);
        assert_ne!(draw(1, "a")?, draw(2, "a")?);
        Ok(())
    }

    #[test]
    fn moments_are_as_asked() -> Result<()> {
        let n = 20_000;
        let xs = Seed(3).normal("x", n, (2., 0.5), DType::F64, &Device::Cpu)?.to_vec1::<f64>()?;
        let mean = xs.iter().sum::<f64>() / n as f64;
        let var = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 2.).abs() < 0.02 && (var.sqrt() - 0.5).abs() < 0.02, "{mean} {var}");
        Ok(())
    }
}
