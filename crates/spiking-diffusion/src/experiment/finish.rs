//! The end of a run, which is the same for every model.

use std::ops::Range;
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_train::{Progress, RunDir};
#[cfg(feature = "report")]
use spiking_diffusion_metrics::{Classifier, FeatureExtractor};

use super::command::{self, Asked};
use super::config::ExperimentConfig;
#[cfg(feature = "report")]
use super::distance::in_8_bits;
use super::distance::{self, Images};
use super::evaluation::Evaluation;
use super::fad::{self, FadFiles};
use super::judge::Against;
#[cfg(feature = "report")]
use super::neighbours::{images_of, nearest_of};
use super::neighbours::{mean_distance, nearest};
use crate::data::Dataset;
use crate::error::Result;
#[cfg(feature = "report")]
use crate::report::picture;
use crate::report::{Neighbours, Report};

/// What the stages of a run work with; the images are of the model's size.
#[derive(Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) cfg: &'a ExperimentConfig,
    pub(super) data: &'a Dataset,
    pub(super) run: &'a RunDir,
    pub(super) device: &'a Device,
}

/// Draws images with these numbers.
pub(super) type Generate<'a> = dyn Fn(Range<usize>, &mut dyn Progress) -> Result<Tensor> + 'a;

/// What the stages of a model have made, and how to have more of it.
pub(super) struct Made<'a> {
    pub(super) evaluation: Evaluation,
    pub(super) samples: Tensor,
    pub(super) generate: &'a Generate<'a>,
    /// What comes back of so many of the first test images.
    pub(super) reconstruct: &'a dyn Fn(usize) -> Result<Tensor>,
}

/// Measures distances and neighbours, and reports.
pub(super) fn finish(
    session: Session<'_>,
    made: Made<'_>,
    asked: Asked<'_>,
    fad: Option<&FadFiles>,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let Session { cfg, data, run, device } = session;
    let Made { mut evaluation, samples, generate, reconstruct } = made;
    let extractor = distance::extractor(cfg, asked.features, data, run, progress)?;
    if extractor.is_some() || fad.is_some() {
        let clock = Instant::now();
        let generated = generated(cfg, generate, &samples, progress)?;
        let again = reconstruct(generated.dim(0)?.min(data.test.len()))?;
        if let Some(extractor) = extractor {
            let images = Images { test: &data.test, again: &again, generated: &generated };
            evaluation.metrics.distance = Some(distance::measure(cfg, &*extractor, images, progress)?);
        }
        if let Some(files) = fad {
            let judge = files.judge(Against::Test, data, data.test.len(), progress)?;
            evaluation.metrics.fad = Some(fad::measure(&judge, &generated, &again, progress)?);
        }
        run.record_seconds("distance", clock.elapsed().as_secs_f64())?;
    }
    let neighbours = neighbours(session, &samples, progress)?;
    let report = Report::of(cfg, evaluation, run, device)?;
    let report = Report { neighbours: Some(neighbours), command: command::of(cfg, asked), ..report };
    report.save(run)?;
    Ok(report)
}

/// Samples, and test images, whose distance to the training images is measured, and how many of them are shown.
const NEIGHBOURS: usize = 64;
#[cfg(feature = "report")]
const SHOWN_NEIGHBOURS: usize = 16;

/// How far the first samples are from the training images, and the picture of both.
fn neighbours(
    Session { cfg, data, run, .. }: Session<'_>,
    samples: &Tensor,
    progress: &mut dyn Progress,
) -> Result<Neighbours> {
    let clock = Instant::now();
    let images = cfg.samples.min(data.test.len()).min(NEIGHBOURS);
    let (samples, test) = (samples.narrow(0, 0, images)?, data.test.range(0..images, &Device::Cpu)?);
    let both = nearest(&Tensor::cat(&[&samples, &test], 0)?, &data.train, progress)?;
    let (of_samples, of_test) = both.split_at(images);
    #[cfg(feature = "report")]
    {
        let shown = images.min(SHOWN_NEIGHBOURS);
        let mut rows = vec![samples.narrow(0, 0, shown)?, images_of(&of_samples[..shown], &data.train)?];
        let classifier = run.file("classifier.safetensors");
        if classifier.exists() {
            let classifier = Classifier::load(&classifier)?;
            let mut features = |images: &Tensor| Ok(classifier.extract(&in_8_bits(images)?)?);
            let found = nearest_of(&rows[0], &data.train, &mut features, progress)?;
            rows.push(images_of(&found, &data.train)?);
        }
        picture::save_grid(&run.file("neighbours.png"), &Tensor::cat(&rows, 0)?, shown)?;
    }
    run.record_seconds("neighbours", clock.elapsed().as_secs_f64())?;
    Ok(Neighbours { images, samples: mean_distance(of_samples), test: mean_distance(of_test) })
}

/// As many images as distances are measured on. The first samples are among them: image i is the same in any range.
fn generated(
    cfg: &ExperimentConfig,
    generate: &Generate<'_>,
    samples: &Tensor,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    let count = cfg.evaluation.distance_images;
    let there = cfg.samples.min(count);
    let first = samples.narrow(0, 0, there)?;
    if there == count {
        return Ok(first);
    }
    Ok(Tensor::cat(&[first, generate(there..count, progress)?], 0)?)
}
