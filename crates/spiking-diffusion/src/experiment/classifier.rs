//! The classifier of a data set: features that need no download, and a judge of samples.

use candle_core::{Device, Tensor};
use snn_train::Progress;
use spiking_diffusion_metrics::{Classifier, ClassifierConfig, Error as MetricsError, Labelled};

use crate::data::{Dataset, Split};
use crate::error::Result;

pub(crate) const STAGE: &str = "classifier";

/// The library's config for this data set.
pub(crate) fn config(data: &Dataset) -> ClassifierConfig {
    let labels = data.train.labels().iter().chain(data.test.labels());
    ClassifierConfig::new(&data.name, labels.max().map_or(0, |&label| usize::from(label) + 1))
}

/// Trains on the training images, and measures the accuracy on the test images.
///
/// # Errors
/// Returns the errors of [`Classifier::train`], and an error if a stop was asked for.
pub(crate) fn train(
    config: &ClassifierConfig,
    data: &Dataset,
    progress: &mut dyn Progress,
) -> Result<Classifier> {
    let ((train, train_labels), (test, test_labels)) = (all(&data.train)?, all(&data.test)?);
    let train = Labelled { images: &train, labels: &train_labels };
    let test = Labelled { images: &test, labels: &test_labels };
    Classifier::train(config, train, test, progress).map_err(|e| match e {
        MetricsError::Training(e) => e.into(),
        e => e.into(),
    })
}

fn all(split: &Split) -> Result<(Tensor, Vec<u32>)> {
    let labels = split.labels().iter().map(|&label| label.into()).collect();
    Ok((split.range(0..split.len(), &Device::Cpu)?, labels))
}
