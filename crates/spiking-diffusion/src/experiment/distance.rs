//! Fréchet and kernel distance between test images and generated ones, and test images and what the autoencoder makes of them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_train::{Progress, RunDir};
use spiking_diffusion_metrics::{
    Classifier, ClassifierConfig, EvaluationOptions, FeatureExtractor, Inception, InceptionConfig,
    InceptionLayer, InceptionWeights, Protocol, evaluate, frechet_distance_of_features,
};

use super::batches::{batches, by_batches};
use super::classifier;
use super::config::ExperimentConfig;
use super::networks::Autoencoder;
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::report::metrics::Distance;

/// Says whose features distances are taken between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Features {
    /// No distances.
    #[default]
    None,
    /// Those of the FID network with the weights in this file: 2048, or 768 where the file ends with those.
    Inception(PathBuf),
    /// Those of a small classifier, trained on the run's own training images. Comparable only between runs on the same
    /// data and seed.
    Classifier,
}

impl Features {
    /// Rejects what would fail after hours of training: weights that cannot be read or lack the layers, images that no
    /// classifier can be trained on. These have the model's channels, rows and columns, `image`.
    pub(super) fn validate(&self, data: &Dataset, image: [usize; 3]) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Inception(file) => inception(file).map(|_| ()),
            Self::Classifier => Ok(classifier::config(data).validate_for(image)?),
        }
    }
}

/// Images that a feature extractor sees at once.
const BATCH: usize = 50;
const STAGE: &str = "features";

/// What distances are measured between.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub(super) test: &'a Split,
    /// What the autoencoder makes of the first of them.
    pub(super) again: &'a Tensor,
    pub(super) generated: &'a Tensor,
}

/// The distance of `generated` to as many of the first test images, and of those to their reconstructions `again`.
///
/// # Errors
/// Returns an error if there are fewer than two images, or if a stop was asked for.
pub(super) fn measure(
    cfg: &ExperimentConfig,
    extractor: &dyn FeatureExtractor,
    Images { test, again, generated }: Images<'_>,
    progress: &mut dyn Progress,
) -> Result<Distance> {
    let count = generated.dim(0)?.min(test.len());
    let real = test.range(0..count, &Device::Cpu)?;
    let fake = in_8_bits(generated)?;
    let again = in_8_bits(again)?;
    let features = extract(extractor, &Tensor::cat(&[&real, &fake, &again], 0)?, progress)?;
    let (made, part) = (fake.dim(0)?, |start, images| features.narrow(0, start, images));
    let (real, fake, again) = (part(0, count)?, part(count, made)?, part(count + made, count)?);
    let options = EvaluationOptions {
        protocol: Protocol::PytorchFid,
        extractor: extractor.name(),
        seed: cfg.seed.0,
        prdc: false,
    };
    let found = evaluate(&real, &fake, &options)?;
    let reconstruction_fid = frechet_distance_of_features(&real, &again)?;
    Ok(Distance {
        fid: found.fid,
        kid: found.kid_mean.unwrap_or(f64::NAN),
        kid_std: found.kid_std.unwrap_or(f64::NAN),
        reconstruction_fid: Some(reconstruction_fid),
        dims: found.dims,
        real_images: count,
        generated_images: made,
        extractor: found.extractor,
        protocol: found.protocol.to_string(),
        seed: found.seed,
        warnings: found.warnings,
    })
}

/// What the autoencoder makes of images with these codes, on the CPU.
pub(super) fn reconstructions(
    cfg: &ExperimentConfig,
    autoencoder: &dyn Autoencoder,
    codes: &Tensor,
) -> Result<Tensor> {
    let batch = |range: Range<usize>| -> Result<Tensor> {
        Ok(autoencoder.decode(&codes.narrow(0, range.start, range.len())?)?.to_device(&Device::Cpu)?)
    };
    let parts = batches(codes.dim(0)?, cfg.evaluation.batch_size).map(batch).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// The features of all images, on the CPU.
pub(crate) fn extract(
    extractor: &dyn FeatureExtractor,
    images: &Tensor,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    let parts = by_batches(STAGE, images.dim(0)?, BATCH, progress, |range| {
        Ok(extractor.extract(&images.narrow(0, range.start, range.len())?)?)
    })?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Pixels of [-0.5, 0.5], rounded as in a PNG.
pub(crate) fn in_8_bits(images: &Tensor) -> candle_core::Result<Tensor> {
    (((images + 0.5)? * 255.)?.round()?.clamp(0., 255.)? / 255.)? - 0.5
}

/// The network of these features. A classifier that is not there yet is a stage of its own, with its own time.
pub(super) fn extractor(
    cfg: &ExperimentConfig,
    features: &Features,
    data: &Dataset,
    run: &RunDir,
    progress: &mut dyn Progress,
) -> Result<Option<Box<dyn FeatureExtractor>>> {
    match features {
        Features::None => Ok(None),
        Features::Inception(file) => Ok(Some(Box::new(inception(file)?))),
        Features::Classifier => {
            let file = run.file("classifier.safetensors");
            if !file.exists() {
                let clock = Instant::now();
                let config = ClassifierConfig { seed: cfg.seed.0, ..classifier::config(data) };
                classifier::train(&config, data, progress)?.save(&file)?;
                run.record_seconds(classifier::STAGE, clock.elapsed().as_secs_f64())?;
            }
            Ok(Some(Box::new(Classifier::load(&file)?)))
        }
    }
}

/// The FID network of a file, for pixels in [-0.5, 0.5], up to the deepest of the usual layers that the file has.
pub(crate) fn inception(file: &Path) -> Result<Inception> {
    let weights = InceptionWeights::open(file)?;
    let config = |layer| InceptionConfig { range: [-0.5, 0.5], ..InceptionConfig::pytorch_fid(layer) };
    let deepest = config(InceptionLayer::Pool2048);
    let usual = if weights.serves(&deepest) { deepest } else { config(InceptionLayer::Mixed768) };
    Ok(Inception::new(usual, &weights)?)
}
