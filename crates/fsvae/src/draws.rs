//! The random numbers of a pass, as values.

use candle_core::{Device, Tensor};
use rand::Rng;
use snn_core::{Seed, standard_normal};

use crate::{FsvaeConfig, Result};

/// The random choices of one pass over a batch: which candidate becomes each latent variable, and where the prior sees its own draws.
///
/// # Examples
/// ```
/// use candle_core::Device;
/// use fsvae::{Draws, FsvaeConfig};
/// use snn_core::Seed;
/// # fn main() -> fsvae::Result<()> {
/// let draws = Draws::new(&FsvaeConfig::original(1), 4, 0.1, Seed(7), "fsvae/draws/0", &Device::Cpu)?;
/// assert_eq!(draws.picks.dims(), [16, 4, 128]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Draws {
    /// The candidate, u32 in `0..k`, that is latent variable `c` of image `n` at time step `t`: `[T, N, C]`.
    pub picks: Tensor,
    /// By time step, the normal noise `[N, C]` with which the prior's own draw replaces `z_t` in training, where it does. May be
    /// shorter than `T`: nothing is replaced behind its end, and the last time step never is.
    pub scheduled: Vec<Option<Tensor>>,
}

impl Draws {
    /// Draws for `items` images from the seed's streams `<label>/picks` and `<label>/scheduled`. `probability` is that of a scheduled
    /// time step, see [`ScheduledSampling::probability`](crate::ScheduledSampling::probability); it is not looked at where the config has
    /// no scheduled sampling.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](FsvaeConfig::validate), or if the numbers cannot be copied to the device.
    pub fn new(
        cfg: &FsvaeConfig,
        items: usize,
        probability: f64,
        seed: Seed,
        label: &str,
        device: &Device,
    ) -> Result<Self> {
        let picks = Self::picks(cfg, items, seed, label, device)?;
        let Some(schedule) = cfg.scheduled else { return Ok(Self { picks, scheduled: Vec::new() }) };
        let mut rng = seed.rng(&format!("{label}/scheduled"));
        let mut scheduled = Vec::with_capacity(cfg.body.time_steps);
        for t in 0..cfg.body.time_steps {
            let replaced =
                t >= schedule.first_step && t + 1 < cfg.body.time_steps && rng.random::<f64>() < probability;
            let noise = replaced.then(|| {
                let noise: Vec<f32> =
                    (0..items * cfg.body.latent).map(|_| standard_normal(&mut rng) as f32).collect();
                Tensor::from_vec(noise, (items, cfg.body.latent), device)
            });
            scheduled.push(noise.transpose()?);
        }
        Ok(Self { picks, scheduled })
    }

    /// The picks alone, as evaluation and sampling want them.
    ///
    /// # Shapes
    /// -> u32 `[T, items, C]`.
    /// # Errors
    /// Returns an error if the config does not [validate](FsvaeConfig::validate), or if the numbers cannot be copied to the device.
    pub fn picks(
        cfg: &FsvaeConfig,
        items: usize,
        seed: Seed,
        label: &str,
        device: &Device,
    ) -> Result<Tensor> {
        cfg.validate()?;
        let mut rng = seed.rng(&format!("{label}/picks"));
        let shape = (cfg.body.time_steps, items, cfg.body.latent);
        let draw = (0..shape.0 * shape.1 * shape.2).map(|_| rng.random_range(0..cfg.candidates as u32));
        Ok(Tensor::from_vec(draw.collect::<Vec<_>>(), shape, device)?)
    }
}
