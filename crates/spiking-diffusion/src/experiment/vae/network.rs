//! What a run asks of a variational autoencoder, and how FSVAE and ESVAE answer.

use std::ops::Range;

use candle_core::{Device, Tensor};
use fsvae::{Draws, Esvae, EsvaeDraws, Fsvae, Losses};
use snn_core::{DescribeLayers, Model, Observer, Seed};

use crate::error::Result;

/// Where in a training a step is.
pub(super) struct At<'a> {
    /// Names the step's random streams.
    pub(super) label: &'a str,
    pub(super) epoch: usize,
    pub(super) epochs: usize,
}

/// A network that reconstructs images and draws new ones, all pixels being its own. What is random of an image follows from its number, and so
/// not from the batch that it is in.
pub(super) trait Vae: DescribeLayers + Send + Sync {
    /// The loss of a training step.
    fn losses(&self, images: &Tensor, seed: Seed, at: &At<'_>) -> Result<Losses>;

    /// What comes back of test images with these numbers, with a look at all spikes, if anybody looks.
    fn reconstruct(
        &self,
        images: &Tensor,
        numbers: Range<usize>,
        seed: Seed,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor>;

    /// Samples with these numbers.
    fn sample(&self, numbers: Range<usize>, seed: Seed, device: &Device) -> Result<Tensor>;
}

/// The random stream of a test image, and of a sample.
const TEST: &str = "evaluate/image";
const SAMPLE: &str = "sample/image";

/// A tensor for each number, side by side.
fn each(
    numbers: Range<usize>,
    axis: usize,
    label: &str,
    draw: impl Fn(&str) -> fsvae::Result<Tensor>,
) -> Result<Tensor> {
    let drawn = numbers.map(|i| draw(&format!("{label}/{i}"))).collect::<fsvae::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&drawn, axis)?)
}

fn picks(model: &Fsvae, numbers: Range<usize>, seed: Seed, label: &str, device: &Device) -> Result<Tensor> {
    let cfg = model.config();
    each(numbers, 1, label, |label| Draws::picks(cfg, 1, seed, label, device))
}

impl Vae for Fsvae {
    fn losses(&self, images: &Tensor, seed: Seed, at: &At<'_>) -> Result<Losses> {
        let cfg = self.config();
        let share = cfg.scheduled.map_or(0., |scheduled| scheduled.probability(at.epoch, at.epochs));
        let draws = Draws::new(cfg, images.dim(0)?, share, seed, at.label, images.device())?;
        Ok(Fsvae::losses(self, images, &self.forward_t(images, &draws, true)?)?)
    }

    fn reconstruct(
        &self,
        images: &Tensor,
        numbers: Range<usize>,
        seed: Seed,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let picks = picks(self, numbers, seed, TEST, images.device())?;
        let draws = Draws { picks, scheduled: Vec::new() };
        let out = match observe {
            Some(observe) => self.forward_observed(images, &draws, false, observe)?,
            None => self.forward_t(images, &draws, false)?,
        };
        Ok(out.reconstruction)
    }

    fn sample(&self, numbers: Range<usize>, seed: Seed, device: &Device) -> Result<Tensor> {
        Ok(Fsvae::sample(self, &picks(self, numbers, seed, SAMPLE, device)?)?)
    }
}

fn draws(
    model: &Esvae,
    numbers: Range<usize>,
    seed: Seed,
    label: &str,
    device: &Device,
) -> Result<EsvaeDraws> {
    let cfg = model.config();
    let own = |label: &str| EsvaeDraws::new(cfg, 1, seed, label, device);
    Ok(EsvaeDraws {
        uniform: each(numbers.clone(), 1, label, |label| Ok(own(label)?.uniform))?,
        noise: each(numbers, 0, label, |label| Ok(own(label)?.noise))?,
    })
}

impl Vae for Esvae {
    fn losses(&self, images: &Tensor, seed: Seed, at: &At<'_>) -> Result<Losses> {
        let cfg = self.config();
        let draws = EsvaeDraws::new(cfg, images.dim(0)?, seed, at.label, images.device())?;
        Ok(Esvae::losses(self, images, &self.forward_t(images, &draws, true)?)?)
    }

    fn reconstruct(
        &self,
        images: &Tensor,
        numbers: Range<usize>,
        seed: Seed,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let draws = draws(self, numbers, seed, TEST, images.device())?;
        let out = match observe {
            Some(observe) => self.forward_observed(images, &draws, false, observe)?,
            None => self.forward_t(images, &draws, false)?,
        };
        Ok(out.reconstruction)
    }

    fn sample(&self, numbers: Range<usize>, seed: Seed, device: &Device) -> Result<Tensor> {
        Ok(Esvae::sample(self, &draws(self, numbers, seed, SAMPLE, device)?)?)
    }
}
