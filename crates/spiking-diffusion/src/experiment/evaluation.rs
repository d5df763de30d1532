//! Measuring a trained pair of networks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use absorbing_diffusion::{AbsorbingProcess, BitsPerToken, Denoiser, NoisyCodes, bits_per_token, draw_noise};
use candle_core::{DType, Device, Tensor};
use snn_train::{Alone, Collective, Progress, go_on};
use spiking_diffusion_metrics::{SsimConfig, mean, mse, ssim};
use vq_svae::CodeUsage;

use super::batches::{by_batches, process, share_batches};
use super::config::ExperimentConfig;
use super::energy::Activity;
use super::networks::{Autoencoder, Networks, SpikingDenoiser};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::report::energy::Energy;
use crate::report::metrics::Metrics;

/// Test images whose codes the denoiser's firing rates are measured on.
pub(crate) const RATE_IMAGES: usize = 64;

/// Holds what [`evaluate`] finds.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The numbers.
    pub metrics: Metrics,
    /// Fraction of neuron-steps with a spike, by layer (`vqsvae.encoder.0`, `sdid.layers.0`, ...).
    pub firing_rates: BTreeMap<String, f64>,
    /// Operations and energy, by layer and in all. Without those of a denoiser that is not observed, and without a sum for generating an
    /// image where the order is the user's own, whose passes nobody can foretell.
    pub energy: Energy,
    /// How often each code occurs in the test images.
    pub code_counts: Vec<u64>,
}

/// Measures trained networks: reconstruction on the whole test set, the bound on its first images, firing rates and operations of all
/// layers.
///
/// The denoiser is told the numbers of the test images: for the bits of a network with classes, give it as a
/// [`Conditioned`](absorbing_diffusion::Conditioned) one of their classes. What it takes to tell these is not among the bits here, as it is in
/// the report of a run: [`Classes::bits_of_test`](crate::Classes::bits_of_test) says it. Its rates and operations are measured where the networks were given it
/// as a [spiking](Networks::spiking) one.
///
/// # Errors
/// Returns an error if images or codes do not fit the networks, or if a stop was asked for.
pub fn evaluate(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    test: &Split,
    test_codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let (found, _) = Reconstructions::measure(cfg, networks.autoencoder, test, (&Alone, device), progress)?;
    evaluate_denoiser(cfg, networks, found, test_codes, device, progress)
}

/// What the autoencoder makes of all test images.
#[derive(Debug)]
pub(super) struct Reconstructions {
    errors: Vec<f64>,
    similarities: Vec<f64>,
    usage: CodeUsage,
    activity: Activity,
    /// How long that took.
    pub(super) seconds: f64,
}

impl Reconstructions {
    /// Encodes the test images, once and observed, decodes them, and compares. The workers share them out; worker 0 gets what they
    /// find, and the codes, on the CPU.
    pub(super) fn measure(
        cfg: &ExperimentConfig,
        autoencoder: &dyn Autoencoder,
        test: &Split,
        (workers, device): (&dyn Collective, &Device),
        progress: &mut dyn Progress,
    ) -> Result<(Self, Option<Tensor>)> {
        let (clock, mut codes) = (Instant::now(), Vec::new());
        let mut all = Self {
            errors: Vec::new(),
            similarities: Vec::new(),
            usage: CodeUsage::new(cfg.sdid.codes),
            activity: Activity::default(),
            seconds: 0.,
        };
        let (n, size) = (test.len(), cfg.evaluation.batch_size);
        let found = share_batches(workers, "evaluate", n, size, progress, |range| {
            measure_batch(autoencoder, &test.range(range, device)?)
        })?;
        for found in &found {
            codes.extend(all.add(found)?);
        }
        all.seconds = clock.elapsed().as_secs_f64();
        let codes = (!codes.is_empty()).then(|| Tensor::cat(&codes, 0)).transpose()?;
        Ok((all, codes))
    }

    /// Adds what was found on a batch; returns its codes.
    fn add(&mut self, found: &[Tensor]) -> Result<Option<Tensor>> {
        let [errors, similarities, activity, codes] = found else { return Ok(None) };
        self.errors.extend(errors.to_vec1::<f64>()?);
        self.similarities.extend(similarities.to_vec1::<f64>()?);
        let activity = serde_json::from_slice(&activity.to_vec1::<u8>()?);
        self.activity.merge(activity.map_err(|e| Error::config("activity", "", e.to_string()))?);
        self.usage.record(codes)?;
        Ok(Some(codes.clone()))
    }
}

/// Squared errors, similarities, activity and codes of a batch, on the CPU.
fn measure_batch(autoencoder: &dyn Autoencoder, images: &Tensor) -> Result<Vec<Tensor>> {
    let (mut activity, name) = (Activity::default(), autoencoder.name());
    let (codes, again) = autoencoder
        .observe(images, &mut |layer, spikes| activity.record(&format!("{name}.{layer}"), spikes))?;
    let (errors, similarities) = compared(images, &again)?;
    let activity = serde_json::to_vec(&activity).map_err(|e| Error::config("activity", "", e.to_string()))?;
    let codes = codes.to_device(&Device::Cpu)?.to_dtype(DType::U32)?;
    let cpu = &Device::Cpu;
    Ok(vec![Tensor::new(errors, cpu)?, Tensor::new(similarities, cpu)?, Tensor::new(activity, cpu)?, codes])
}

/// Compares all test images with what comes back of them, `again` of a batch and the numbers of its images: squared errors and
/// similarities, image by image.
pub(super) fn compare(
    cfg: &ExperimentConfig,
    test: &Split,
    device: &Device,
    progress: &mut dyn Progress,
    again: &mut dyn FnMut(&Tensor, Range<usize>) -> Result<Tensor>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut errors, mut similarities) = (Vec::new(), Vec::new());
    by_batches("evaluate", test.len(), cfg.evaluation.batch_size, progress, |range| {
        let images = test.range(range.clone(), device)?;
        let found = compared(&images, &again(&images, range)?)?;
        errors.extend(found.0);
        similarities.extend(found.1);
        Ok(())
    })?;
    Ok((errors, similarities))
}

fn compared(images: &Tensor, again: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
    Ok((mse(images, again)?, ssim(images, again, &SsimConfig::paper())?))
}

/// The rest of [`evaluate`], where reconstructions are measured already.
pub(super) fn evaluate_denoiser(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    found: Reconstructions,
    test_codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let Networks { autoencoder, denoiser, spiking, order } = networks;
    let Reconstructions { errors, similarities, usage, mut activity, .. } = found;
    let bound = bound(cfg, denoiser, test_codes, device, progress)?;
    if let Some(denoiser) = spiking {
        denoiser_rates(cfg, denoiser, test_codes, device, &mut activity)?;
    }
    let metrics = Metrics {
        mse: mean(&errors)?,
        ssim: mean(&similarities)?,
        bits_per_token: bound.mean,
        bits_per_token_standard_error: bound.standard_error,
        bits_per_token_images: bound.images,
        codebook_used: usage.used(),
        codebook_perplexity: usage.perplexity(),
        distance: None,
        fad: None,
    };
    Ok(Evaluation {
        metrics,
        firing_rates: activity.rates.rates(),
        energy: Energy::new(cfg, (autoencoder, spiking), order.is_none(), &activity)?,
        code_counts: usage.counts().to_vec(),
    })
}

/// A denoiser that counts its batches, and refuses when the run is to stop.
struct Watched<'a> {
    denoiser: &'a dyn Denoiser,
    progress: RefCell<&'a mut dyn Progress>,
    done: Cell<usize>,
}

impl Watched<'_> {
    fn count(&self) -> candle_core::Result<()> {
        let mut progress = self.progress.borrow_mut();
        if progress.stop_requested() {
            candle_core::bail!("stopped");
        }
        self.done.set(self.done.get() + 1);
        progress.advance(self.done.get(), None);
        Ok(())
    }
}

impl Denoiser for Watched<'_> {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> candle_core::Result<Tensor> {
        self.count()?;
        self.denoiser.logits(noisy, train)
    }

    fn check_process(&self, process: &AbsorbingProcess) -> absorbing_diffusion::Result<()> {
        self.denoiser.check_process(process)
    }

    fn logits_at(
        &self,
        noisy: &NoisyCodes<'_>,
        positions: &[Vec<u32>],
        train: bool,
    ) -> absorbing_diffusion::Result<Tensor> {
        self.count()?;
        self.denoiser.logits_at(noisy, positions, train)
    }
}

/// Eq. 14 on the first test codes.
fn bound(
    cfg: &ExperimentConfig,
    denoiser: &dyn Denoiser,
    codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<BitsPerToken> {
    let (images, config) = (cfg.evaluation.bound_images.min(codes.dim(0)?), &cfg.evaluation.bound);
    let codes = codes.narrow(0, 0, images)?.to_device(device)?;
    let total = images.div_ceil(config.batch_size) * config.strata;
    progress.begin("bound", total, 0);
    let watched = Watched { denoiser, progress: RefCell::new(&mut *progress), done: Cell::new(0) };
    let bits = bits_per_token(&process(cfg)?, &watched, &codes, config, cfg.seed);
    let done = watched.done.get();
    go_on(progress, "bound", done, total)?;
    progress.end();
    Ok(bits?)
}

/// The denoiser on the first test codes, masked at random times.
fn denoiser_rates(
    cfg: &ExperimentConfig,
    denoiser: &dyn SpikingDenoiser,
    codes: &Tensor,
    device: &Device,
    activity: &mut Activity,
) -> Result<()> {
    let (n, h, w) = codes.dims3()?;
    let n = n.min(RATE_IMAGES);
    let process = process(cfg)?;
    let (t, u) = draw_noise(&process, (n, h, w), cfg.seed, "evaluate/rates")?;
    let h_t =
        process.q_sample(&codes.narrow(0, 0, n)?.to_device(&Device::Cpu)?, &t, &u)?.to_device(device)?;
    let (images, name): (Vec<usize>, _) = ((0..n).collect(), denoiser.name());
    let t = t.to_device(device)?;
    denoiser.observe(&NoisyCodes::new(&h_t, &t, &images), &mut |layer, spikes| {
        activity.record(&format!("{name}.{layer}"), spikes)
    })?;
    Ok(())
}
