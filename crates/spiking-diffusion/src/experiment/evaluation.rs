//! Measuring a trained pair of networks.

use std::cell::RefCell;
use std::collections::BTreeMap;

use absorbing_diffusion::{BitsPerToken, Sdid, bits_per_token, draw_noise};
use candle_core::{Device, Tensor};
use snn_train::{Progress, go_on};
use spiking_diffusion_metrics::{SsimConfig, mean, mse, ssim};
use vq_svae::CodeUsage;

use super::config::ExperimentConfig;
use super::energy::Activity;
use super::stages::{Networks, batches, process};
use crate::data::Split;
use crate::error::Result;
use crate::report::energy::Energy;
use crate::report::metrics::Metrics;

/// Test images whose codes the denoiser's firing rates are measured on.
pub(crate) const RATE_IMAGES: usize = 64;

/// What [`evaluate`] finds.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The numbers.
    pub metrics: Metrics,
    /// Fraction of neuron-steps with a spike, by layer (`vqsvae.encoder.0`, `sdid.layers.0`, ...).
    pub firing_rates: BTreeMap<String, f64>,
    /// Operations and energy, by layer and in all.
    pub energy: Energy,
    /// How often each code occurs in the test images.
    pub code_counts: Vec<u64>,
}

/// Reconstruction on the whole test set, the bound on its first images, firing rates and operations of all layers.
///
/// # Errors
/// Images or codes that do not fit the networks.
pub fn evaluate(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    test: &Split,
    test_codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let Networks { vqsvae, denoiser: sdid } = networks;
    let mut activity = Activity::default();
    let mut usage = CodeUsage::new(cfg.vqsvae.codes);
    let (mut errors, mut similarities) = (Vec::new(), Vec::new());
    progress.begin("evaluate", test.len(), 0);
    for range in batches(test.len(), cfg.evaluation.batch_size) {
        let images = test.range(range.clone(), device)?;
        let out = vqsvae.forward_observed(&images, false, &mut |layer, spikes| {
            activity.record(&format!("vqsvae.{layer}"), spikes)
        })?;
        usage.record(&out.codes)?;
        errors.extend(mse(&images, &out.reconstruction)?);
        similarities.extend(ssim(&images, &out.reconstruction, &SsimConfig::paper())?);
        progress.advance(range.end, None);
        go_on(progress, "evaluate", range.end, test.len())?;
    }
    progress.end();
    let bound = bound(cfg, sdid, test_codes, device, progress)?;
    denoiser_rates(cfg, sdid, test_codes, device, &mut activity)?;
    let metrics = Metrics {
        mse: mean(&errors)?,
        ssim: mean(&similarities)?,
        bits_per_token: bound.mean,
        bits_per_token_standard_error: bound.standard_error,
        bits_per_token_images: bound.images,
        codebook_used: usage.used(),
        codebook_perplexity: usage.perplexity(),
        distance: None,
    };
    Ok(Evaluation {
        metrics,
        firing_rates: activity.rates.rates(),
        energy: Energy::new(cfg, (vqsvae, sdid), &activity)?,
        code_counts: usage.counts().to_vec(),
    })
}

/// Eq. 14 on the first test codes, through a denoiser that counts its batches and refuses when the run is to stop.
fn bound(
    cfg: &ExperimentConfig,
    sdid: &Sdid,
    codes: &Tensor,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<BitsPerToken> {
    let (images, config) = (cfg.evaluation.bound_images.min(codes.dim(0)?), &cfg.evaluation.bound);
    let codes = codes.narrow(0, 0, images)?.to_device(device)?;
    let total = images.div_ceil(config.batch_size) * config.strata;
    progress.begin("bound", total, 0);
    let state = RefCell::new((progress, 0));
    let watched = |h_t: &Tensor, t: &Tensor, train: bool| {
        let (progress, done) = &mut *state.borrow_mut();
        if progress.stop_requested() {
            candle_core::bail!("stopped");
        }
        *done += 1;
        progress.advance(*done, None);
        sdid.forward_t(h_t, t, train)
    };
    let bits = bits_per_token(&process(cfg)?, &watched, &codes, config, cfg.seed);
    let (progress, done) = state.into_inner();
    go_on(progress, "bound", done, total)?;
    progress.end();
    Ok(bits?)
}

/// The denoiser on the first test codes, masked at random times.
fn denoiser_rates(
    cfg: &ExperimentConfig,
    sdid: &Sdid,
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
    sdid.logits_observed(&h_t, &t.to_device(device)?, false, &mut |layer, spikes| {
        activity.record(&format!("sdid.{layer}"), spikes)
    })?;
    Ok(())
}
