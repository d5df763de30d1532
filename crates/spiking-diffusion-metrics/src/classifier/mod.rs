//! A small convolutional classifier, trained on the data set at hand: features without a download.

mod config;
mod file;
mod net;
mod pixels;
mod score;
mod train;

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_nn::ops::softmax;

pub use config::{ClassifierCard, ClassifierConfig};
pub use score::{ClassScore, score_samples};
pub use train::Labelled;

use crate::{Error, FeatureExtractor, Result};
use net::Net;
use pixels::Images;

/// Images that go through the network at once.
const BATCH: usize = 256;

/// Gives features of images without a download, and says which class an image looks like: a small classifier of images
/// `[N, C, H, W]` in [-0.5, 0.5], [trained](Self::train) on the data set at hand or [loaded](Self::load).
///
/// Its features are those of its first dense layer. A distance between them is about what tells the classes of this data set
/// apart, says nothing of anything else, and can be compared only with distances through the same file of weights.
///
/// The network has convolutions 4 x 4 of stride 2 (32, then 64 channels) until the map is at most 8 x 8, a dense layer of
/// `features`, and one of `classes`. It computes in `f32`, on the CPU.
///
/// # Examples
/// Training, saving and extracting; [`train`](Self::train) has a whole example.
/// ```no_run
/// use spiking_diffusion_metrics::{Classifier, FeatureExtractor};
///
/// let classifier = Classifier::load("mnist-classifier.safetensors")?;
/// println!("{} ({} features)", classifier.name(), classifier.dims());
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub struct Classifier {
    card: ClassifierCard,
    tensors: BTreeMap<String, Tensor>,
    net: Net,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("card", &self.card).finish_non_exhaustive()
    }
}

impl Classifier {
    fn new(card: ClassifierCard, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let net = Net::new(&card, &tensors)?;
        Ok(Self { card, tensors, net })
    }

    /// Says what the classifier was trained on, how, and how accurate it is on the test images.
    #[must_use]
    pub fn card(&self) -> &ClassifierCard {
        &self.card
    }

    /// Computes the probability of each class for each image.
    ///
    /// # Shapes
    /// `images: [N, C, H, W]` -> f32 `[N, classes]`; each row adds up to 1.
    ///
    /// # Errors
    /// Returns an error if there are no images, or if they have another shape, are not floating-point or hold a pixel that
    /// is not finite.
    pub fn probabilities(&self, images: &Tensor) -> Result<Tensor> {
        self.in_batches(images, |features| Ok(softmax(&self.net.logits(&features)?, 1)?))
    }

    /// Measures the fraction of images whose most probable class is their label.
    ///
    /// # Errors
    /// Returns the errors of [`probabilities`](Self::probabilities), and an error if there are more or fewer labels than images
    /// or if a label is of no class.
    pub fn accuracy(&self, set: Labelled<'_>) -> Result<f64> {
        train::check_labels("labels", set, self.card.config.classes)?;
        let predicted: Vec<u32> = self.probabilities(set.images)?.argmax(1)?.to_vec1()?;
        let right = predicted.iter().zip(set.labels).filter(|(a, b)| a == b).count();
        Ok(right as f64 / predicted.len() as f64)
    }

    /// Features of a few images after the other, through `then`.
    fn in_batches(&self, images: &Tensor, then: impl Fn(Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let count = images.dims().first().copied().unwrap_or(0);
        if count == 0 {
            return Err(Error::TooFew { what: "images", need: 1, got: 0 });
        }
        let mut parts = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let some = images.narrow(0, start, BATCH.min(count - start))?;
            let pixels = Images::new(&some, self.card.image, start)?;
            parts.push(then(self.net.features(&pixels.all()?)?)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

impl FeatureExtractor for Classifier {
    fn name(&self) -> String {
        let ClassifierCard { config, image: [c, h, w], test_accuracy, .. } = &self.card;
        format!(
            "classifier of {} {c}x{h}x{w}, {} features ({} epochs of {} images, seed {}; test accuracy {:.2} %)",
            config.dataset,
            config.features,
            config.epochs,
            self.card.train_images,
            config.seed,
            100. * test_accuracy,
        )
    }

    fn dims(&self) -> usize {
        self.card.config.features
    }

    fn extract(&self, images: &Tensor) -> Result<Tensor> {
        self.in_batches(images, Ok)
    }
}
