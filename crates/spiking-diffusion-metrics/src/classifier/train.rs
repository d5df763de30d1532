//! Training: shuffled batches of shifted images, cross-entropy, AdamW with a falling rate.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

/// One step of a training, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingStep {
    /// Steps done, this one included.
    pub done: usize,
    /// Steps of the whole training.
    pub total: usize,
    /// Cross-entropy of the batch, in nats.
    pub loss: f64,
}

impl Classifier {
    /// Trains on `train` and measures the accuracy on `test`; calls `observe` after every step, which may stop it.
    ///
    /// The same config and images give the same bytes, whatever the number of threads. One thread
    /// (`RAYON_NUM_THREADS=1`) does; where other programs use the cores, more are several times slower, because
    /// Candle's threads wait busily for each other.
    ///
    /// # Errors
    /// If a field of the config makes no sense, images are not `[N, 1 or 3, H, W]` with `H, W >= 16`, the two
    /// sets differ in shape, one is empty or holds a pixel that is not finite, there are more or fewer labels than
    /// images, a label is not below `classes`, the loss stops being finite, or `observe` stops it.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use std::ops::ControlFlow;
    /// use spiking_diffusion_metrics::{Classifier, ClassifierConfig, Labelled};
    ///
    /// // Dark images are class 0, bright ones class 1.
    /// let bright = Tensor::full(0.4f32, (8, 1, 16, 16), &Device::Cpu)?;
    /// let dark = bright.affine(-1.0, 0.0)?;
    /// let (images, labels) = (Tensor::cat(&[&dark, &bright], 0)?, [[0; 8], [1; 8]].concat());
    /// let set = Labelled { images: &images, labels: &labels };
    ///
    /// let cfg = ClassifierConfig { epochs: 40, batch_size: 8, ..ClassifierConfig::new("two greys", 2) };
    /// let classifier = Classifier::train(&cfg, set, set, &mut |_| ControlFlow::Continue(()))?;
    /// assert_eq!(classifier.card().test_accuracy, 1.0);
    /// assert_eq!(classifier.probabilities(&bright)?.dims(), [8, 2]);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn train(
        cfg: &ClassifierConfig,
        train: Labelled<'_>,
        test: Labelled<'_>,
        observe: &mut dyn FnMut(TrainingStep) -> ControlFlow<()>,
    ) -> Result<Self> {
        let (_, c, h, w) = train.images.dims4()?;
        let image = [c, h, w];
        let train_images = train.images.dim(0)?;
        cfg.validate_for(image)?;
        let Some(steps) = cfg.epochs.checked_mul(train_images.div_ceil(cfg.batch_size)) else {
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
        Images::new(&test.images.narrow(0, 0, 1)?, image, 0)?;

        let vars = initial(&card)?;
        fit(&card, &vars, &images, train.labels, observe)?;
        let detached = vars.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?.detach())));
        let tensors = detached.collect::<Result<_>>()?;
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

/// Stream 0 is for the weights, stream `1 + e` for epoch `e`.
fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Weights uniform in `±sqrt(6 / inputs)` (He et al., 2015), biases 0.
fn initial(card: &ClassifierCard) -> Result<BTreeMap<String, Var>> {
    let mut rng = rng(card.config.seed, 0);
    let mut vars = BTreeMap::new();
    for (layer, inputs, outputs) in layers(card) {
        let bound = (6. / inputs as f64).sqrt();
        let draw = || (bound * (2. * rng.random::<f64>() - 1.)) as f32;
        let weight: Vec<f32> = std::iter::repeat_with(draw).take(inputs * outputs).collect();
        let weight = Tensor::from_vec(weight, (inputs, outputs), &Device::Cpu)?;
        vars.insert(format!("{layer}.weight"), Var::from_tensor(&weight)?);
        let bias = Tensor::from_vec(vec![0f32; outputs], outputs, &Device::Cpu)?;
        vars.insert(format!("{layer}.bias"), Var::from_tensor(&bias)?);
    }
    Ok(vars)
}

fn fit(
    card: &ClassifierCard,
    vars: &BTreeMap<String, Var>,
    images: &Images,
    labels: &[u32],
    observe: &mut dyn FnMut(TrainingStep) -> ControlFlow<()>,
) -> Result<()> {
    let cfg = &card.config;
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let net = Net::new(card, &tensors)?;
    let params = ParamsAdamW { weight_decay: cfg.weight_decay, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(vars.values().cloned().collect(), params)?;
    let mut done = 0;
    for epoch in 0..cfg.epochs {
        let mut rng = rng(cfg.seed, 1 + epoch as u64);
        for batch in shuffled(images.len(), &mut rng).chunks(cfg.batch_size) {
            let shifts: Vec<_> = batch.iter().map(|_| shift(cfg.max_shift, &mut rng)).collect();
            let targets: Vec<u32> = batch.iter().map(|&i| labels[i]).collect();
            let features = net.features(&images.batch(batch, &shifts)?)?;
            let loss = cross_entropy(&net.logits(&features)?, &Tensor::new(targets, &Device::Cpu)?)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(cfg.diverged(format!("the loss of step {done} is {value}")));
            }
            optimiser.set_learning_rate(cfg.learning_rate * cosine(done, card.steps));
            optimiser.backward_step(&loss)?;
            done += 1;
            if observe(TrainingStep { done, total: card.steps, loss: value }).is_break() {
                return Err(Error::Stopped {
                    what: format!("training of a classifier at step {done} of {}", card.steps),
                });
            }
        }
    }
    for (name, var) in vars {
        // A sum of weights that are all finite is finite in f64.
        let sum = var.as_tensor().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        if !sum.is_finite() {
            return Err(cfg.diverged(format!("after the last step {name} is not finite")));
        }
    }
    Ok(())
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

/// From 1 at the first step to 0 after the last.
fn cosine(step: usize, total: usize) -> f64 {
    0.5 * (1. + (std::f64::consts::PI * step as f64 / total as f64).cos())
}

/// A permutation of `0..count`.
fn shuffled(count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, rng.random_range(0..=i as u64) as usize);
    }
    order
}

/// Uniform in `-max..=max` along both axes.
fn shift(max: usize, rng: &mut ChaCha8Rng) -> (isize, isize) {
    let max = max as i64;
    let mut draw = || rng.random_range(-max..=max) as isize;
    (draw(), draw())
}
