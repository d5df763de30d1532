//! What a run says of itself: `report.json`, `report.md` and `report.html`.

mod command;
mod html;
mod markdown;
mod page;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::energy::Energy;
use crate::error::Result;
use crate::evaluate::RATE_IMAGES;
use crate::starter::Starter;
use crate::{Evaluation, ExperimentConfig, Features, Metrics, RunDir, TrainingConfig};

/// How long a training was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// Of the autoencoder.
    pub vqsvae: usize,
    /// Of the denoiser.
    pub sdid: usize,
}

/// One finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the data set.
    pub dataset: String,
    /// Whether it was drawn by a program.
    pub synthetic: bool,
    /// What its files lack of the official ones, if they do.
    #[serde(default)]
    pub partial: Option<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Preset that the config started from; `config.json` has every field.
    pub preset: String,
    /// Passes over the training images.
    pub epochs: Epochs,
    /// Training images used.
    pub train_images: usize,
    /// Test images used.
    pub test_images: usize,
    /// Generated images.
    pub samples: usize,
    /// Quality.
    pub metrics: Metrics,
    /// Fraction of neuron-steps with a spike, by layer.
    pub firing_rates: BTreeMap<String, f64>,
    /// Operations and energy beside the same network without spikes; `None` in reports of older versions.
    #[serde(default)]
    pub energy: Option<Energy>,
    /// Wall time by stage, over all sessions of the run.
    pub seconds: BTreeMap<String, f64>,
    /// Images through each stage, a second.
    pub images_per_second: BTreeMap<String, f64>,
    /// Threads, device and program.
    pub machine: Machine,
    /// How the metrics were measured.
    pub protocol: String,
    /// The command that makes this run again, where a program of ours makes it.
    #[serde(default)]
    pub command: Option<String>,
}

/// What the run ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads it could use.
    pub threads: usize,
    /// Version of this crate.
    pub version: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn here(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            threads: rayon::current_num_threads(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Report {
    pub(crate) fn new(
        cfg: &ExperimentConfig,
        evaluation: Evaluation,
        (features, starter): (&Features, Starter),
        seconds: BTreeMap<String, f64>,
        machine: Machine,
    ) -> Self {
        let epochs = Epochs { vqsvae: cfg.vqsvae_training.epochs, sdid: cfg.sdid_training.epochs };
        let (train, test) = (cfg.data.train_images, cfg.data.test_images);
        let seen = |training: &TrainingConfig| training.steps(train).unwrap_or(0) * training.batch_size;
        let images = [
            ("vqsvae", seen(&cfg.vqsvae_training)),
            ("encode", train + test),
            ("sdid", seen(&cfg.sdid_training)),
            ("sample", cfg.samples),
        ];
        let speed = |&(stage, n): &(&str, usize)| Some((stage.to_owned(), n as f64 / seconds.get(stage)?));
        Self {
            dataset: cfg.data.name.clone(),
            synthetic: cfg.data.synthetic,
            partial: cfg.data.partial.clone(),
            seed: cfg.seed.0,
            preset: cfg.preset.name().to_owned(),
            epochs,
            train_images: train,
            test_images: test,
            samples: cfg.samples,
            protocol: protocol(cfg, &evaluation.metrics),
            command: command::of(cfg, features, starter),
            metrics: evaluation.metrics,
            firing_rates: evaluation.firing_rates,
            energy: Some(evaluation.energy),
            images_per_second: images.iter().filter_map(speed).collect(),
            seconds,
            machine,
        }
    }

    /// Writes `report.json`, `report.md` and `report.html`, the pictures of the run inside the last.
    pub(crate) fn save(&self, run: &RunDir) -> Result<()> {
        run.write_json("report.json", self)?;
        snn_core::write_atomically(&run.file("report.md"), self.to_markdown().as_bytes())?;
        Ok(snn_core::write_atomically(&run.file("report.html"), self.to_html(run.path())?.as_bytes())?)
    }

    /// The report as a page of Markdown beside the pictures of the run.
    pub fn to_markdown(&self) -> String {
        markdown::render(&page::of(self))
    }

    /// The report as one self-contained page: styles and pictures inside, no scripts, nothing to fetch.
    ///
    /// # Errors
    /// A picture of the run's folder that is there and cannot be read. Those that are missing are left out.
    pub fn to_html(&self, folder: &Path) -> Result<String> {
        html::render(&page::of(self), folder)
    }

    /// Layers and their firing rates, in the order of the forward pass where the energy table knows it.
    pub(crate) fn ordered_rates(&self) -> Vec<(String, f64)> {
        let lines = self.energy.iter().flat_map(|energy| &energy.layers);
        let order: Vec<&String> = lines.map(|line| &line.name).collect();
        let mut rates: Vec<_> = self.firing_rates.clone().into_iter().collect();
        rates.sort_by_key(|(layer, _)| order.iter().position(|known| *known == layer));
        rates
    }

    /// Name and value of each metric.
    fn metric_rows(&self) -> Vec<(&'static str, String)> {
        let m = &self.metrics;
        let mut rows = vec![
            ("MSE of the test reconstructions", format!("{:.5}", m.mse)),
            ("SSIM (the paper prints 1 - SSIM)", format!("{:.4} ({:.4})", m.ssim, 1. - m.ssim)),
            ("bits per token", format!("{:.4} ± {:.4}", m.bits_per_token, m.bits_per_token_standard_error)),
            ("codes in use", m.codebook_used.to_string()),
            ("codebook perplexity", format!("{:.1}", m.codebook_perplexity)),
        ];
        if let Some(d) = &m.distance {
            rows.push(("FID of the samples", format!("{:.4}", d.fid)));
            if let Some(fid) = d.reconstruction_fid {
                rows.push(("FID of the test reconstructions", format!("{fid:.4}")));
            }
            rows.push(("KID of the samples", format!("{:.5} ± {:.5}", d.kid, d.kid_std)));
        }
        rows
    }
}

fn protocol(cfg: &ExperimentConfig, metrics: &Metrics) -> String {
    let distance = metrics.distance.as_ref().map_or(String::new(), |d| {
        format!(
            " FID and KID: {} generated images (seed {}, 8 bits) against the first {} test images; FID of the test \
             reconstructions: those test images against themselves through the autoencoder; definitions of {}; \
             features: {}; subsets by seed {}.{}",
            d.generated_images,
            cfg.seed.0,
            d.real_images,
            d.protocol,
            d.extractor,
            d.seed,
            d.warnings.iter().map(|warning| format!(" Warning: {warning}.")).collect::<String>(),
        )
    });
    format!(
        "MSE and SSIM: all {} test images, pixels in [-0.5, 0.5]; SSIM with an 11x11 Gaussian window, sigma 1.5, zero \
         padding, mean over images. Bits per token: Eq. 14 / (H'W' ln 2) on the codes of the first {} test images, {} \
         stratified diffusion times each; comparable only between runs on the same codes. Codes in use and perplexity: \
         all test images. Firing rates: VQ-SVAE on all test images, SDID on the codes of the first {} test images masked at \
         random times. Samples: seed {}, order {:?}, temperature {}.{distance}",
        cfg.data.test_images,
        metrics.bits_per_token_images,
        cfg.evaluation.bound.strata,
        RATE_IMAGES.min(cfg.data.test_images),
        cfg.seed.0,
        cfg.sampling.order,
        cfg.sampling.temperature,
    )
}
