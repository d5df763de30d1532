//! The classifier of a data set: features that need no download, and a judge of samples.

use candle_core::{Device, Tensor};
use snn_train::{Progress, flow};
use spiking_diffusion_metrics::{
    Classifier, ClassifierConfig, Error as MetricsError, Labelled, TrainingStep,
};

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
/// See [`Classifier::train`]; a stop that was asked for.
pub(crate) fn train(
    config: &ClassifierConfig,
    data: &Dataset,
    progress: &mut dyn Progress,
) -> Result<Classifier> {
    let ((train, train_labels), (test, test_labels)) = (all(&data.train)?, all(&data.test)?);
    let mut latest = None;
    let trained = Classifier::train(
        config,
        Labelled { images: &train, labels: &train_labels },
        Labelled { images: &test, labels: &test_labels },
        &mut |step| {
            if latest.replace(step).is_none() {
                progress.begin(STAGE, step.total, 0);
            }
            progress.advance(step.done, Some(step.loss));
            flow(progress)
        },
    );
    progress.end();
    match (trained, latest) {
        (Err(MetricsError::Stopped { .. }), Some(TrainingStep { done, total, .. })) => {
            Err(snn_train::Error::Stopped { stage: STAGE.to_owned(), done, total }.into())
        }
        (trained, _) => Ok(trained?),
    }
}

fn all(split: &Split) -> Result<(Tensor, Vec<u32>)> {
    let labels = split.labels().iter().map(|&label| label.into()).collect();
    Ok((split.range(0..split.len(), &Device::Cpu)?, labels))
}
