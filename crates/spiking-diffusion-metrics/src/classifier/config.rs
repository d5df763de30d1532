//! What a classifier was trained for, on what, and how well that went.

use serde::{Deserialize, Serialize};

use super::net::MAP;
use crate::input::check_memory;
use crate::{Error, Result};

/// The smallest height and width: two convolutions of stride 2 leave a map of 4 x 4.
const MIN_SIDE: usize = 16;

/// Says how a [`Classifier`](crate::Classifier) is trained. All random numbers follow from `seed`.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::ClassifierConfig;
///
/// let cfg = ClassifierConfig { epochs: 3, ..ClassifierConfig::new("mnist", 10) };
/// assert_eq!((cfg.classes, cfg.features, cfg.seed), (10, 128, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The name of the data set, as it should stand beside a result.
    pub dataset: String,
    /// The number of classes; labels are `0..classes`.
    pub classes: usize,
    /// The number of features, which is the width of the layer before the last one.
    pub features: usize,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images in each training step; a last batch that is not full is dropped.
    pub batch_size: usize,
    /// The learning rate of AdamW at the first step, from which it falls to 0 along half a cosine.
    pub learning_rate: f64,
    /// The decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// The number of pixels by which each training image is moved at most along both axes, anew in every epoch; what comes in
    /// from outside is -0.5 (black).
    pub max_shift: usize,
    /// The seed of the weights, the order of the images and their shifts.
    pub seed: u64,
}

impl ClassifierConfig {
    /// A training of a classifier with 128 features: 5 epochs of batches of 64, rate 2e-3, decay 1e-2, shifts of up to 2 pixels,
    /// seed 0.
    pub fn new(dataset: impl Into<String>, classes: usize) -> Self {
        Self {
            dataset: dataset.into(),
            classes,
            features: 128,
            epochs: 5,
            batch_size: 64,
            learning_rate: 2e-3,
            weight_decay: 1e-2,
            max_shift: 2,
            seed: 0,
        }
    }

    /// Checks that a classifier of images of these channels, rows and columns can be trained with this config.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if there are fewer than two classes; if the channels are not 1
    /// or 3, or a side is below 16; if there are no features, epochs or batches, or more features than memory can hold; if a rate
    /// is negative or not finite; or if shifts may leave nothing of an image.
    pub fn validate_for(&self, [channels, height, width]: [usize; 3]) -> Result<()> {
        self.validate()?;
        if !matches!(channels, 1 | 3) {
            return Err(Error::config("channels", channels, "must be 1 or 3"));
        }
        for (field, side) in [("height", height), ("width", width)] {
            if side < MIN_SIDE {
                return Err(Error::config(field, side, format!("must be at least {MIN_SIDE}")));
            }
        }
        if self.max_shift >= height.min(width) {
            let reason = format!("must be less than the sides of the images, {height} x {width}");
            return Err(Error::config("max_shift", self.max_shift, reason));
        }
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        let counts = [
            ("features", self.features, 1),
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 2),
            ("classes", self.classes, 2),
        ];
        for (field, value, least) in counts {
            if value < least {
                return Err(Error::config(field, value, format!("must be at least {least}")));
            }
        }
        // The largest layers: from the map to the features, and from those to the classes.
        check_memory("features", self.features, self.features.checked_mul(MAP))?;
        check_memory("classes", self.classes, self.features.checked_mul(self.classes))?;
        for (field, value) in [("learning_rate", self.learning_rate), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.) {
                return Err(Error::config(field, value, "must be finite and not negative"));
            }
        }
        let most = 1. / self.learning_rate.min(1.);
        if self.weight_decay > most {
            let reason = format!(
                "must be at most 1 / learning_rate = {most}, or a step takes more than the whole of a parameter"
            );
            return Err(Error::config("weight_decay", self.weight_decay, reason));
        }
        Ok(())
    }
}

/// Tells how far a [`Classifier`](crate::Classifier) can be trusted: how it was trained and how accurate it is, kept with its
/// weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierCard {
    /// The config it was trained with.
    pub config: ClassifierConfig,
    /// The channels, height and width of its images.
    pub image: [usize; 3],
    /// The number of images that it was trained on.
    pub train_images: usize,
    /// The number of steps of the optimiser.
    pub steps: usize,
    /// The number of images that its accuracy was measured on.
    pub test_images: usize,
    /// The fraction of the test images whose most probable class is their label.
    pub test_accuracy: f64,
}
