//! The last stage of a run: sample codes, and decode them.

use std::cell::RefCell;
use std::ops::Range;

use absorbing_diffusion::Sampler;
use candle_core::{Device, Tensor};
use snn_train::{Alone, Collective, Progress, go_on};

use super::batches::{batches, process};
use super::config::ExperimentConfig;
use super::networks::Networks;
use super::sharing::{Drawn, Wanted, draw_over};
use crate::error::Result;

/// Generates images number `images` of this seed: `[n, channels, H, W]`, on the CPU, pixels as of
/// [`VqSvae::decode`](vq_svae::VqSvae::decode).
///
/// Image `i` follows from the seed and `i`, whatever the range and the batch size.
///
/// # Errors
/// Returns an error if the networks do not fit each other, if logits are not finite, if an own order
/// [breaks its rules](absorbing_diffusion::RevealOrder), or if a stop was asked for.
pub fn generate(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    generate_over(&Alone, (cfg, networks), images, device, progress, None)
}

/// Sees the codes of images `first`, `first + 1`, .. after a step, one after the other, masks included: `(first, step, codes)`.
pub(super) type Film<'a> = &'a mut dyn FnMut(usize, usize, &[u32]);

/// [`generate`] with the help of other workers, which assist, and with a look at every step.
pub(super) fn generate_over(
    workers: &dyn Collective,
    (cfg, networks): (&ExperimentConfig, Networks<'_>),
    images: Range<usize>,
    device: &Device,
    progress: &mut dyn Progress,
    mut film: Option<Film<'_>>,
) -> Result<Tensor> {
    let (size, steps) = (cfg.sampling.batch_size, cfg.sampling.steps_of(&process(cfg)?));
    let total = images.len().div_ceil(size.max(1)) * steps;
    progress.begin("sample", total, 0);
    let ranges =
        batches(images.len(), size).map(|range| images.start + range.start..images.start + range.end);
    let wanted = Wanted { batches: ranges.collect(), film: film.is_some() };
    let (progress, mut decoded) = (RefCell::new(progress), Vec::new());
    let mut shown =
        |batch: usize, left: usize| progress.borrow_mut().advance(batch * steps + steps - left, None);
    let mut take = |batch: usize, drawn: Drawn| -> Result<()> {
        for (left, codes) in drawn.film {
            film.iter_mut().for_each(|film| film(wanted.batches[batch].start, steps - 1 - left, &codes));
        }
        decoded.push(drawn.images);
        let done = (batch + 1) * steps;
        progress.borrow_mut().advance(done, None);
        Ok(go_on(&**progress.borrow(), "sample", done, total)?)
    };
    let by = &|images, observe: &mut dyn FnMut(&[u32], usize)| draw(cfg, networks, images, device, observe);
    draw_over(workers, by, &wanted, &mut shown, &mut take)?;
    progress.borrow_mut().end();
    Ok(Tensor::cat(&decoded, 0)?)
}

/// [`generate`] in one batch; `observe` as in [`Sampler::sample`].
pub(super) fn draw(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    let codes = draw_given(cfg, networks, images, None, device, observe)?;
    Ok(networks.autoencoder.decode(&codes)?.to_device(&Device::Cpu)?)
}

/// The codes of images number `images` of this config's seed and sampling, in one batch, of which some tokens may be known beforehand;
/// `observe` as in [`Sampler::sample`], `given` as in [`Sampler::with_given`].
pub(super) fn draw_given(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    images: Range<usize>,
    given: Option<&Tensor>,
    device: &Device,
    observe: &mut dyn FnMut(&[u32], usize),
) -> Result<Tensor> {
    let (process, map) = (process(cfg)?, (cfg.sdid.height, cfg.sdid.width));
    let mut sampler = Sampler::new(&process, networks.denoiser, &cfg.sampling)?;
    if let Some(order) = networks.order {
        sampler = sampler.with_order(order);
    }
    if let Some(given) = given {
        sampler = sampler.with_given(given);
    }
    Ok(sampler.sample(images, map, cfg.seed, device, observe)?)
}
