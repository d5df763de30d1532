//! Samples of a finished run by several orders in several numbers of steps: how near to real images they are, and how long they take.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use absorbing_diffusion::{Denoiser, Order, SamplingConfig};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::{Progress, go_on, write_json};
use spiking_diffusion_metrics::{FAD_BATCH, Fad, FeatureExtractor, FeatureStats, frechet_distance};

use super::config::ExperimentConfig;
use super::distance::{extract, in_8_bits};
use super::stages::{batches, draw, process};
use super::trained::Trained;
use crate::data::Split;
use crate::error::{Error, Result};

const STAGE: &str = "sweep";
const FILE: &str = "steps";

/// A distance between images, by a network's features.
#[derive(Clone, Copy)]
pub enum Judge<'a> {
    /// By any extractor, such as Inception or a classifier.
    Extractor(&'a dyn FeatureExtractor),
    /// FAD; the network must take pixels in [-0.5, 0.5].
    Fad(&'a Fad),
}

impl Judge<'_> {
    fn name(&self) -> String {
        match self {
            Self::Extractor(extractor) => extractor.name(),
            Self::Fad(network) => network.name(FAD_BATCH),
        }
    }

    fn statistics(&self, images: &Tensor, progress: &mut dyn Progress) -> Result<FeatureStats> {
        Ok(match self {
            Self::Extractor(extractor) => {
                FeatureStats::from_features(&extract(*extractor, images, progress)?)?
            }
            Self::Fad(network) => network.statistics(images, FAD_BATCH)?,
        })
    }
}

/// Says what the samples of one order in one number of steps are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The order.
    pub order: Order,
    /// The steps.
    pub steps: usize,
    /// The mean number of evaluations of the network that an image takes.
    pub passes: f64,
    /// Images a second, sampled in the config's batches and decoded.
    pub images_per_second: f64,
    /// Their Fréchet distances to as many training images, in the order of the judges.
    pub distances: Vec<f64>,
}

/// Compares orders and numbers of steps: a table with a row for each pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Images a row, drawn and real.
    pub images: usize,
    /// Their seed.
    pub seed: u64,
    /// What the distances are measured by.
    pub judges: Vec<String>,
    /// A row for each order and number of steps.
    pub rows: Vec<Row>,
}

/// Draws images `0..count` of the config's seed by each order in each number of steps, and compares them with the first `count`
/// training images (not test images, on which nothing must be chosen).
///
/// # Errors
/// Returns an error if there are no orders or steps, if an order or a number of steps does not
/// [validate](SamplingConfig::validate), if there are fewer than two images or fewer training images than that, if a judge does not
/// take them, or if a stop was asked for.
pub fn steps<D: Denoiser>(
    trained: &Trained<D>,
    orders: &[Order],
    steps: &[usize],
    (training, count): (&Split, usize),
    judges: &[Judge<'_>],
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Steps> {
    if orders.is_empty() || steps.is_empty() || count < 2 || count > training.len() {
        let reason =
            "needs at least one order, one number of steps and two images, and as many training images";
        return Err(Error::config("steps", format!("{orders:?}, {steps:?}, {count} images"), reason));
    }
    let real = training.range(0..count, &Device::Cpu)?;
    let real: Vec<FeatureStats> =
        judges.iter().map(|judge| judge.statistics(&real, progress)).collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for &order in orders {
        for &steps in steps {
            let sampling = SamplingConfig { order, steps: Some(steps), ..trained.cfg.sampling };
            sampling.validate()?;
            let cfg = ExperimentConfig { sampling, ..trained.cfg.clone() };
            let (images, seconds) = drawn(&cfg, trained, count, device, progress)?;
            let distances = judges
                .iter()
                .zip(&real)
                .map(|(judge, real)| Ok(frechet_distance(real, &judge.statistics(&images, progress)?)?));
            let length = cfg.sdid.height * cfg.sdid.width;
            rows.push(Row {
                order,
                steps,
                passes: order.mean_passes(length, sampling.steps_of(&process(&cfg)?)),
                images_per_second: count as f64 / seconds,
                distances: distances.collect::<Result<_>>()?,
            });
        }
    }
    let judges = judges.iter().map(Judge::name).collect();
    Ok(Steps { images: count, seed: trained.cfg.seed.0, judges, rows })
}

/// Images as a PNG would hold them, and how long they took.
fn drawn<D: Denoiser>(
    cfg: &ExperimentConfig,
    trained: &Trained<D>,
    count: usize,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<(Tensor, f64)> {
    let (clock, mut images) = (Instant::now(), Vec::new());
    progress.begin(STAGE, count, 0);
    for range in batches(count, cfg.sampling.batch_size) {
        images.push(draw(cfg, trained.networks(), range.clone(), device, &mut |_, _| ())?);
        progress.advance(range.end, None);
        go_on(progress, STAGE, range.end, count)?;
    }
    progress.end();
    let seconds = clock.elapsed().as_secs_f64();
    Ok((in_8_bits(&Tensor::cat(&images, 0)?)?, seconds))
}

impl Steps {
    /// Writes a Markdown table, the judges below it.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let heads: String = (1..=self.judges.len()).map(|i| format!(" distance {i} |")).collect();
        let lines = " --- |".repeat(self.judges.len());
        let mut page = format!(
            "| order | steps | passes an image | images a second |{heads}\n| --- | --- | --- | --- |{lines}\n"
        );
        for row in &self.rows {
            let distances: String = row.distances.iter().map(|d| format!(" {d:.3} |")).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "| {} | {} | {:.1} | {:.1} |{distances}",
                name(row.order),
                row.steps,
                row.passes,
                row.images_per_second
            );
        }
        let _ =
            writeln!(page, "\n{} images each, seed {}, and as many training images.", self.images, self.seed);
        for (i, judge) in (1..).zip(&self.judges) {
            let _ = writeln!(page, "Distance {i}: {judge}.");
        }
        page
    }

    /// Writes `steps.json`, `steps.md` and, in a build with the feature `report` and where there are distances, `steps.png`, a chart
    /// of each distance over the steps with a line an order.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        write_json(&folder.join(format!("{FILE}.json")), self)?;
        let page = folder.join(format!("{FILE}.md"));
        snn_core::write_atomically(&page, self.to_markdown().as_bytes())?;
        #[cfg(feature = "report")]
        if !self.judges.is_empty() {
            self.save_charts(&folder.join(format!("{FILE}.png")))?;
        }
        Ok(())
    }

    #[cfg(feature = "report")]
    fn save_charts(&self, path: &Path) -> Result<()> {
        use crate::report::plot::{self, Chart, PALETTE, Series};

        let mut orders: Vec<Order> = Vec::new();
        for row in &self.rows {
            if !orders.contains(&row.order) {
                orders.push(row.order);
            }
        }
        let charts = (0..self.judges.len()).map(|i| {
            let title = format!("Distance {} of {} samples: {}", i + 1, self.images, self.judges[i]);
            let chart = Chart::new(title, "steps", "Fréchet distance").log_y();
            orders.iter().zip(PALETTE.iter().cycle()).fold(chart, |chart, (&order, &color)| {
                let rows = self.rows.iter().filter(|row| row.order == order);
                let points = rows.map(|row| (row.steps as f64, row.distances[i]));
                chart.with(Series::new(name(order), color, points))
            })
        });
        plot::save(path, &charts.collect::<Vec<_>>(), 1)
    }
}

/// As a config file writes it, without braces.
fn name(order: Order) -> String {
    match order {
        Order::Posterior => "posterior".to_owned(),
        Order::ExactK => "exact_k".to_owned(),
        Order::Confidence { noise } => format!("confidence, noise {noise}"),
        Order::Halton => "halton".to_owned(),
        Order::Remasking { cap } => format!("remasking, cap {cap}"),
        other => format!("{other:?}"),
    }
}
