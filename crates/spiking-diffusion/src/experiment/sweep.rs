//! Samples of a finished run at several temperatures: how varied they are, and how far from real images.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use absorbing_diffusion::{Denoiser, SamplingConfig};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::{Progress, go_on, write_json};
use spiking_diffusion_metrics::{FeatureExtractor, FeatureStats, FeatureStatsBuilder, frechet_distance};
use vq_svae::CodeUsage;

use super::config::ExperimentConfig;
use super::distance::{extract, in_8_bits};
use super::networks::Networks;
use super::stages::{batches, draw_codes};
use super::trained::Trained;
use crate::data::Split;
use crate::error::{Error, Result};

const STAGE: &str = "sweep";
const FILE: &str = "temperature-sweep";

/// Holds what samples are compared with: features of real images.
pub struct Reference<'a> {
    extractor: &'a dyn FeatureExtractor,
    stats: FeatureStats,
    name: String,
}

impl<'a> Reference<'a> {
    /// Takes the first `count` images of a split (training images: a temperature must not be chosen on test images), in
    /// [-0.5, 0.5] as the extractor will also see the samples, rounded to 8 bits.
    ///
    /// # Errors
    /// Returns an error if the extractor does not take the images, if there are fewer than two, or if a stop was asked for.
    pub fn new(
        extractor: &'a dyn FeatureExtractor,
        images: &Split,
        count: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let count = count.min(images.len());
        let features = extract(extractor, &images.range(0..count, &Device::Cpu)?, progress)?;
        let stats = FeatureStats::from_features(&features)?;
        let name = format!("{} against the first {count} training images", extractor.name());
        Ok(Self { extractor, stats, name })
    }
}

/// Says what the samples of one temperature are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What the logits were divided by.
    pub temperature: f64,
    /// Codes that occur in the samples.
    pub codes_used: usize,
    /// `exp(entropy)` of their codes.
    pub codebook_perplexity: f64,
    /// Fréchet distance of their features, where there is a [`Reference`]; smaller is better.
    pub distance: Option<f64>,
}

/// Compares temperatures: a table with a row for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Images a temperature.
    pub images: usize,
    /// Their seed.
    pub seed: u64,
    /// Extractor and images that the distance is to.
    pub reference: Option<String>,
    /// A row a temperature.
    pub rows: Vec<Row>,
}

/// Draws images `0..count` of the config's seed at each temperature.
///
/// # Errors
/// Returns an error if there are no temperatures, if one is not positive and finite, if there are fewer than two images, or if a
/// stop was asked for.
pub fn temperatures<D: Denoiser>(
    trained: &Trained<D>,
    temperatures: &[f64],
    count: usize,
    reference: Option<&Reference<'_>>,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Sweep> {
    if temperatures.is_empty() || count < 2 {
        let reason = "needs at least one temperature and two images";
        return Err(Error::config(
            "temperature-sweep",
            format!("{temperatures:?} with {count} images"),
            reason,
        ));
    }
    for &temperature in temperatures {
        SamplingConfig { temperature: temperature.into(), ..trained.cfg.sampling }.validate()?;
    }
    let total = count * temperatures.len();
    progress.begin(STAGE, total, 0);
    let mut rows = Vec::new();
    for (i, &temperature) in temperatures.iter().enumerate() {
        let mut found = Found::new(trained.cfg.vqsvae.codes, reference)?;
        for range in batches(count, trained.cfg.sampling.batch_size) {
            let done = i * count + range.end;
            found.add(&trained.cfg, trained.networks(), temperature, range, device)?;
            progress.advance(done, None);
            go_on(progress, STAGE, done, total)?;
        }
        rows.push(found.row(temperature)?);
    }
    progress.end();
    let reference = reference.map(|reference| reference.name.clone());
    Ok(Sweep { images: count, seed: trained.cfg.seed.0, reference, rows })
}

/// What is known of the samples of a temperature; the images themselves are not kept.
struct Found<'a> {
    usage: CodeUsage,
    features: Option<(&'a Reference<'a>, FeatureStatsBuilder)>,
}

impl<'a> Found<'a> {
    fn new(codes: usize, reference: Option<&'a Reference<'a>>) -> Result<Self> {
        let features = match reference {
            Some(reference) => Some((reference, FeatureStatsBuilder::new(reference.extractor.dims())?)),
            None => None,
        };
        Ok(Self { usage: CodeUsage::new(codes), features })
    }

    fn add(
        &mut self,
        cfg: &ExperimentConfig,
        networks: Networks<'_>,
        temperature: f64,
        images: Range<usize>,
        device: &Device,
    ) -> Result<()> {
        let sampling = SamplingConfig { temperature: temperature.into(), ..cfg.sampling };
        let cfg = ExperimentConfig { sampling, ..cfg.clone() };
        let codes = draw_codes(&cfg, networks, images, device, &mut |_, _| ())?;
        self.usage.record(&codes)?;
        if let Some((reference, stats)) = &mut self.features {
            let images: Tensor = networks.vqsvae.decode(&codes)?.to_device(&Device::Cpu)?;
            stats.update(&reference.extractor.extract(&in_8_bits(&images)?)?)?;
        }
        Ok(())
    }

    fn row(self, temperature: f64) -> Result<Row> {
        let distance = match &self.features {
            Some((reference, stats)) => Some(frechet_distance(&reference.stats, &stats.finish()?)?),
            None => None,
        };
        let (codes_used, codebook_perplexity) = (self.usage.used(), self.usage.perplexity());
        Ok(Row { temperature, codes_used, codebook_perplexity, distance })
    }
}

impl Sweep {
    /// Writes a Markdown table, `-` where there is no distance.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let head =
            "| temperature | codes in use | perplexity | Fréchet distance |\n| --- | --- | --- | --- |\n";
        let mut page = head.to_owned();
        for row in &self.rows {
            let distance = row.distance.map_or("-".to_owned(), |distance| format!("{distance:.3}"));
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "| {} | {} | {:.1} | {distance} |",
                row.temperature, row.codes_used, row.codebook_perplexity
            );
        }
        let reference = self.reference.as_deref().unwrap_or("none: entropy alone does not say which is best");
        let _ = writeln!(page, "\n{} images each, seed {}. Distance: {reference}.", self.images, self.seed);
        page
    }

    /// Writes `temperature-sweep.json` and `temperature-sweep.md` into a folder.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        write_json(&folder.join(format!("{FILE}.json")), self)?;
        let page = folder.join(format!("{FILE}.md"));
        Ok(snn_core::write_atomically(&page, self.to_markdown().as_bytes())?)
    }
}
