//! The random numbers of a pass, as values.

use candle_core::{DType, Device, Tensor};
use snn_core::Seed;

use crate::{EsvaeConfig, Result};

/// The random numbers of one pass of an [`Esvae`](crate::Esvae).
#[derive(Clone, Debug)]
pub struct EsvaeDraws {
    /// Uniform numbers in [0, 1), above which a rate makes a spike: `[T, N, C]`.
    pub uniform: Tensor,
    /// Normal numbers, of which the prior makes rates: `[N, C]`.
    pub noise: Tensor,
}

impl EsvaeDraws {
    /// Draws for `items` images from the seed's streams `<label>/uniform` and `<label>/noise`.
    ///
    /// # Errors
    /// Returns an error if the numbers cannot be copied to the device.
    pub fn new(cfg: &EsvaeConfig, items: usize, seed: Seed, label: &str, device: &Device) -> Result<Self> {
        let (steps, latent) = (cfg.body.time_steps, cfg.body.latent);
        let uniform = format!("{label}/uniform");
        Ok(Self {
            uniform: seed.uniform(&uniform, (steps, items, latent), (0., 1.), DType::F32, device)?,
            noise: seed.normal(&format!("{label}/noise"), (items, latent), (0., 1.), DType::F32, device)?,
        })
    }
}
