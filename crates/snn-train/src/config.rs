//! How one network is trained.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snn_core::{AdamWConfig, AveragingConfig, LrSchedule, MuonConfig};

use crate::error::{Error, Result};

/// Says how one network is trained: for how long, in which batches, and with which optimiser.
///
/// # Examples
/// ```
/// use snn_train::TrainingConfig;
/// let cfg = TrainingConfig { batch_size: 64, clip: Some(1.), ..TrainingConfig::new(5) };
/// assert_eq!(cfg.steps(60_000)?, 5 * 937);
/// # Ok::<(), snn_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Passes over the training items. Each pass drops a last batch that is not full.
    pub epochs: usize,
    /// The most steps: where the epochs have more, the training ends after these, and the schedule with it. `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Items in each step.
    pub batch_size: usize,
    /// The optimiser.
    pub adamw: AdamWConfig,
    /// Another optimiser for the weights of hidden layers, with the same schedule. `None`, or a network without such weights, moves all by
    /// AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// Factors on the learning rate of the parameters that AdamW moves and whose names begin so, such as `{"prior.": 10}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, f64>,
    /// How its learning rate changes over all steps.
    pub schedule: LrSchedule,
    /// Steps over which the learning rate first rises, in a line, to the schedule's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warm_up: usize,
    /// Largest norm of the gradients, above which they are clipped. `None` does not clip.
    pub clip: Option<f64>,
    /// The moving average of the parameters that the trained network gets in the end, instead of the last ones. `None`
    /// keeps the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<AveragingConfig>,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
    /// Parts that each batch is cut into, for [workers](crate::Trainer::train_over) to share: each is computed by itself, with batch
    /// norms over the whole batch, and what they add up to does not depend on the number of workers, at most one a shard. `None` does
    /// not cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<usize>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl TrainingConfig {
    /// A training for this many epochs with the paper's optimiser, batch size 32 and a constant learning rate.
    #[must_use]
    pub fn new(epochs: usize) -> Self {
        Self {
            epochs,
            max_steps: None,
            batch_size: 32,
            adamw: AdamWConfig::default(),
            muon: None,
            rates: BTreeMap::new(),
            schedule: LrSchedule::Constant,
            warm_up: 0,
            clip: None,
            average: None,
            checkpoint_every: 200,
            shards: None,
        }
    }

    /// The number of steps in one epoch over `items` items; a last batch that is not full is dropped.
    ///
    /// # Errors
    /// Returns an error if there are too few items for one batch, or if the batch size is 0.
    pub fn steps_per_epoch(&self, items: usize) -> Result<usize> {
        if items < self.batch_size || self.batch_size == 0 {
            let reason = format!("there are only {items} to train on");
            return Err(Error::config("batch_size", self.batch_size, reason));
        }
        Ok(items / self.batch_size)
    }

    /// The number of steps in the whole training over `items` items: those of all epochs, or `max_steps` if these are fewer.
    ///
    /// # Errors
    /// Returns the errors of [`steps_per_epoch`](Self::steps_per_epoch), and an error if there are more than the 2^31 - 1 steps
    /// that an optimiser can count.
    pub fn steps(&self, items: usize) -> Result<usize> {
        let steps = self.steps_per_epoch(items)?;
        let all = steps.saturating_mul(self.epochs).min(self.max_steps.unwrap_or(usize::MAX));
        if all > i32::MAX as usize {
            let reason = format!("of {steps} steps each are more than the 2^31 - 1 steps of an optimiser");
            return Err(Error::config("epochs", self.epochs, reason));
        }
        Ok(all)
    }

    /// The factor on the base rate at step `step`, counted from 0, of `total` steps: the schedule's, times
    /// `(step + 1) / warm_up` while that is below 1.
    #[must_use]
    pub fn rate(&self, step: usize, total: usize) -> f64 {
        let risen = (step as f64 + 1.) / self.warm_up.max(1) as f64;
        self.schedule.factor(step, total) * risen.min(1.)
    }

    /// Checks that a training can work with these numbers.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `epochs`, `max_steps`, `checkpoint_every` or the batch size is 0, if `shards` does not divide it, if
    /// `clip` is not positive and finite, if a factor on a rate is negative or not finite, if the schedule's floor lies outside
    /// [0, 1], if an optimiser or the average does not [validate](AdamWConfig::validate), or if its weight decay would take more than the whole of a parameter in one step.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("epochs", self.epochs, 1),
            ("max_steps", self.max_steps.unwrap_or(1), 1),
            ("batch_size", self.batch_size, 1),
            ("checkpoint_every", self.checkpoint_every, 1),
        ];
        for (field, value, least) in sizes {
            if value < least {
                return Err(Error::config(field, value, format!("must be at least {least}")));
            }
        }
        if let Some((prefix, rate)) = self.rates.iter().find(|(_, rate)| !(rate.is_finite() && **rate >= 0.))
        {
            return Err(Error::config(format!("rates.{prefix}"), rate, "must be finite and not negative"));
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.)) {
            return Err(Error::config("clip", clip, "must be positive and finite"));
        }
        let (size, shards) = (self.batch_size, self.shards.unwrap_or(1));
        if shards == 0 || size % shards != 0 {
            let reason = format!("must divide the batch size, {size}");
            return Err(Error::config("shards", shards, reason));
        }
        if let LrSchedule::Cosine { floor } = self.schedule
            && !(0. ..=1.).contains(&floor)
        {
            return Err(Error::config("schedule.cosine.floor", floor, "must lie in [0, 1]"));
        }
        self.adamw.validate()?;
        self.muon.as_ref().map_or(Ok(()), MuonConfig::validate)?;
        self.average.map_or(Ok(()), |average| average.validate())?;
        // A parameter shrinks by `lr weight_decay` of itself at a step. (A rate above 1 goes off by itself, and says so.)
        // Prefixes that begin with one another meet in a parameter, whose rate is then that of all of them.
        let of = |name: &str| {
            let meet = self.rates.iter().filter(|(prefix, rate)| name.starts_with(*prefix) && **rate > 1.);
            meet.map(|(_, rate)| rate).product::<f64>()
        };
        let fastest = self.rates.keys().map(|name| of(name)).fold(1., f64::max);
        let (decay, most) = (self.adamw.weight_decay, 1. / (self.adamw.lr.min(1.) * fastest));
        if decay > most {
            let bound = if fastest > 1. { "1 / (lr and the `rates` above 1)" } else { "1 / lr" };
            let reason = format!(
                "must be at most {bound} = {most}, or a step takes more than the whole of a parameter"
            );
            return Err(Error::config("adamw.weight_decay", decay, reason));
        }
        Ok(())
    }
}
