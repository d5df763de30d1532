//! Training: shifted images, cross-entropy, a falling rate.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, loss::cross_entropy};
use rand::Rng;
use snn_core::{AdamWConfig, LrSchedule, ParamStore, Seed};
use snn_train::{Batch, Progress, StepLoss, Trainer, TrainingConfig};

use super::net::{Net, layers};
use super::pixels::Images;
use super::{Classifier, ClassifierCard, ClassifierConfig};
use crate::{Error, Result};

/// Images and their labels.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// `[N, C, H, W]`, in [-0.5, 0.5].
    pub images: &'a Tensor,
    /// `N` class numbers.
    pub labels: &'a [u32],
}

impl Classifier {
    /// Trains on `train` and measures the accuracy on `test`, by [`snn_train::Trainer`]: each pass drops a last batch that is not
    /// full, and fewer images than `batch_size` are one batch.
    ///
    /// The same config and images give the same bytes, whatever the number of threads. One thread
    /// (`RAYON_NUM_THREADS=1`) does; where other programs use the cores, more are several times slower, because
    /// Candle's threads wait busily for each other.
    ///
    /// # Errors
    /// Returns an error if a field of the config makes no sense; if images are not `[N, 1 or 3, H, W]` with `H, W >= 16`; if the two
    /// sets differ in shape, or one is empty or holds a pixel that is not finite; if there are fewer than two training images; if
    /// there are more or fewer labels than images, or a label is not below `classes`; if the loss stops being finite; or if
    /// `progress` asks to stop.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use snn_train::Silent;
    /// use spiking_diffusion_metrics::{Classifier, ClassifierConfig, Labelled};
    ///
    /// // Dark images are class 0, bright ones class 1.
    /// let bright = Tensor::full(0.4f32, (8, 1, 16, 16), &Device::Cpu)?;
    /// let dark = bright.affine(-1.0, 0.0)?;
    /// let (images, labels) = (Tensor::cat(&[&dark, &bright], 0)?, [[0; 8], [1; 8]].concat());
    /// let set = Labelled { images: &images, labels: &labels };
    ///
    /// let cfg = ClassifierConfig { epochs: 40, batch_size: 8, ..ClassifierConfig::new("two greys", 2) };
    /// let classifier = Classifier::train(&cfg, set, set, &mut Silent)?;
    /// assert_eq!(classifier.card().test_accuracy, 1.0);
    /// assert_eq!(classifier.probabilities(&bright)?.dims(), [8, 2]);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn train(
        cfg: &ClassifierConfig,
        train: Labelled<'_>,
        test: Labelled<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let (_, c, h, w) = train.images.dims4()?;
        let image = [c, h, w];
        let train_images = train.images.dim(0)?;
        cfg.validate_for(image)?;
        if train_images < 2 {
            return Err(Error::TooFew { what: "training images", need: 2, got: train_images });
        }
        let batch_size = cfg.batch_size.min(train_images);
        let Some(steps) = cfg.epochs.checked_mul(train_images / batch_size.max(1)) else {
            return Err(Error::config("epochs", cfg.epochs, "no machine takes so many steps"));
        };
        let mut card = ClassifierCard {
            config: cfg.clone(),
            image,
            train_images,
            steps,
            test_images: test.labels.len(),
            test_accuracy: 0.,
        };
        check_labels("training labels", train, cfg.classes)?;
        check_labels("test labels", test, cfg.classes)?;
        let images = Images::new(train.images, image, 0)?;
        Images::new(test.images, image, 0)?;

        let tensors = fit(&card, batch_size, &images, train.labels, progress)?;
        let mut classifier = Self::new(card.clone(), tensors)?;
        card.test_accuracy = classifier.accuracy(test)?;
        classifier.card = card;
        Ok(classifier)
    }
}

/// As many labels as images, at least one, all below `classes`.
pub(super) fn check_labels(what: &'static str, set: Labelled<'_>, classes: usize) -> Result<()> {
    let (images, labels) = (set.images.dim(0)?, set.labels.len());
    if images != labels {
        return Err(Error::Mismatch { what, left: vec![images], right: vec![labels] });
    }
    if images == 0 {
        return Err(Error::TooFew { what, need: 1, got: 0 });
    }
    match set.labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(at) => {
            let reason = format!("label {at} of the {what} must be below {classes}");
            Err(Error::config("labels", set.labels[at], reason))
        }
    }
}

/// The name of the training, and of its random streams.
const STAGE: &str = "classifier";

/// Weights uniform in `±sqrt(6 / inputs)` (He et al., 2015), biases 0.
fn initial(card: &ClassifierCard, params: &ParamStore) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (layer, inputs, outputs) in layers(card) {
        let (vb, bound) = (params.builder().pp(&layer), (6. / inputs as f64).sqrt());
        let weight =
            vb.get_with_hints((inputs, outputs), "weight", Init::Uniform { lo: -bound, up: bound })?;
        tensors.insert(format!("{layer}.weight"), weight);
        tensors.insert(format!("{layer}.bias"), vb.get_with_hints(outputs, "bias", Init::Const(0.))?);
    }
    Ok(tensors)
}

/// The trained weights.
fn fit(
    card: &ClassifierCard,
    batch_size: usize,
    images: &Images,
    labels: &[u32],
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, Tensor>> {
    let (cfg, seed) = (&card.config, Seed(card.config.seed));
    let params = ParamStore::new(seed.child(STAGE), DType::F32, &Device::Cpu);
    let net = Net::new(card, &initial(card, &params)?)?;
    let training = TrainingConfig {
        batch_size,
        adamw: AdamWConfig {
            lr: cfg.learning_rate,
            weight_decay: cfg.weight_decay,
            ..AdamWConfig::default()
        },
        schedule: LrSchedule::Cosine { floor: 0. },
        // Looks at the parameters once, after the last step.
        checkpoint_every: card.steps.max(1),
        ..TrainingConfig::new(cfg.epochs)
    };
    let trainer = Trainer::new(STAGE, &training, &params, images.len(), seed);
    let trained = trainer.train(progress, |batch: Batch<'_>| -> snn_train::Result<StepLoss> {
        let mut rng = seed.rng(&format!("{STAGE}/shift/{}", batch.step));
        let shifts: Vec<_> = batch.items.iter().map(|_| shift(cfg.max_shift, &mut rng)).collect();
        let targets: Vec<u32> = batch.items.iter().map(|&i| labels[i as usize]).collect();
        let features = net.features(&images.batch(batch.items, &shifts)?)?;
        Ok(cross_entropy(&net.logits(&features)?, &Tensor::new(targets, &Device::Cpu)?)?.into())
    });
    match trained {
        Ok(()) => Ok(params.snapshot("")?),
        Err(snn_train::Error::NotFinite { what, step, value, .. }) => {
            Err(cfg.diverged(format!("the {what} of step {step} is {value}")))
        }
        Err(e) => Err(e.into()),
    }
}

impl ClassifierConfig {
    fn diverged(&self, what: String) -> Error {
        Error::config(
            "learning_rate",
            self.learning_rate,
            format!("{what}: lower the rate, or `weight_decay`"),
        )
    }
}

/// Uniform in `-max..=max` along both axes.
fn shift(max: usize, rng: &mut impl Rng) -> (isize, isize) {
    let max = max as i64;
    let mut draw = || rng.random_range(-max..=max) as isize;
    (draw(), draw())
}
