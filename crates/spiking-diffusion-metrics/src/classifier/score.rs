//! Samples, as a classifier sees them.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Classifier;
use crate::{Error, Result};

/// The result of [`score_samples`]: how many images look like some class, and like which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The number of images.
    pub images: usize,
    /// The probability that the most probable class of an image must have at least for the image to count as confident.
    pub threshold: f64,
    /// The fraction of the images that are confident.
    pub confident_share: f64,
    /// The number of images of each class, each counted for its most probable one.
    pub predicted: Vec<usize>,
    /// The number of confident images of each class, each counted for its most probable one.
    pub confident: Vec<usize>,
    /// The classes with at least one confident image.
    pub confident_classes: Vec<usize>,
}

/// Counts how many images look like some class to a classifier, and like which.
///
/// A high share says that images look like members of the data set to this network, not that they are good or
/// various: compare it with the share of the real test images.
///
/// # Shapes
/// `images: [N, C, H, W]`, in [-0.5, 0.5].
///
/// # Errors
/// Returns an error if `threshold` is not in [0, 1], and the errors of [`Classifier::probabilities`].
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use snn_train::Silent;
/// use spiking_diffusion_metrics::{Classifier, ClassifierConfig, Labelled, score_samples};
///
/// let bright = Tensor::full(0.4f32, (8, 1, 16, 16), &Device::Cpu)?;
/// let images = Tensor::cat(&[&bright.affine(-1.0, 0.0)?, &bright], 0)?;
/// let labels = [[0; 8], [1; 8]].concat();
/// let set = Labelled { images: &images, labels: &labels };
/// let cfg = ClassifierConfig { epochs: 20, batch_size: 8, ..ClassifierConfig::new("two greys", 2) };
/// let classifier = Classifier::train(&cfg, set, set, &mut Silent)?;
///
/// let score = score_samples(&classifier, &bright, 0.9)?;
/// assert_eq!((score.predicted, score.confident_classes), (vec![0, 8], vec![1]));
/// assert_eq!(score.confident_share, 1.0);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn score_samples(classifier: &Classifier, images: &Tensor, threshold: f64) -> Result<ClassScore> {
    if !(0. ..=1.).contains(&threshold) {
        return Err(Error::config("threshold", threshold, "must lie in [0, 1]"));
    }
    let classes = classifier.card().config.classes;
    let (mut predicted, mut confident) = (vec![0; classes], vec![0; classes]);
    let probabilities = classifier.probabilities(images)?;
    let best: Vec<u32> = probabilities.argmax(1)?.to_vec1()?;
    let highest: Vec<f32> = probabilities.max(1)?.to_vec1()?;
    for (class, probability) in best.iter().map(|&class| class as usize).zip(&highest) {
        predicted[class] += 1;
        confident[class] += usize::from(f64::from(*probability) >= threshold);
    }
    Ok(ClassScore {
        images: best.len(),
        threshold,
        confident_share: confident.iter().sum::<usize>() as f64 / best.len() as f64,
        confident_classes: (0..classes).filter(|&class| confident[class] > 0).collect(),
        predicted,
        confident,
    })
}
