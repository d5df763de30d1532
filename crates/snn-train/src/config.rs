//! How one network is trained.

use serde::{Deserialize, Serialize};
use snn_core::{AdamWConfig, LrSchedule};

use crate::error::{Error, Result};

/// How one network is trained.
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
    /// Passes over the training items. A pass drops a last batch that is not full.
    pub epochs: usize,
    /// Items a step.
    pub batch_size: usize,
    /// The optimiser.
    pub adamw: AdamWConfig,
    /// Its learning rate over all steps.
    pub schedule: LrSchedule,
    /// Largest gradient norm; `None` does not clip.
    pub clip: Option<f64>,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
}

impl TrainingConfig {
    /// The paper's optimiser, batch size 32 and a constant rate, for this many epochs.
    #[must_use]
    pub fn new(epochs: usize) -> Self {
        Self {
            epochs,
            batch_size: 32,
            adamw: AdamWConfig::default(),
            schedule: LrSchedule::Constant,
            clip: None,
            checkpoint_every: 200,
        }
    }

    /// Steps of an epoch over so many items; a last batch that is not full is dropped.
    ///
    /// # Errors
    /// Returns an error if there is not even one batch.
    pub fn steps_per_epoch(&self, items: usize) -> Result<usize> {
        if items < self.batch_size || self.batch_size == 0 {
            let reason = format!("there are only {items} to train on");
            return Err(Error::config("batch_size", self.batch_size, reason));
        }
        Ok(items / self.batch_size)
    }

    /// Steps of the whole training over so many items.
    ///
    /// # Errors
    /// Returns an error if there is not even one batch, or if there are more steps than an optimiser counts, 2^31 - 1.
    pub fn steps(&self, items: usize) -> Result<usize> {
        let steps = self.steps_per_epoch(items)?;
        if self.epochs > i32::MAX as usize / steps {
            let reason = format!("of {steps} steps each are more than the 2^31 - 1 steps of an optimiser");
            return Err(Error::config("epochs", self.epochs, reason));
        }
        Ok(steps * self.epochs)
    }

    /// Checks each field.
    ///
    /// # Errors
    /// Returns an error with the field and its value if a number is 0 that must not be, a batch is smaller than 2, the
    /// largest gradient norm is not positive and finite, the schedule or the optimiser is out of range, or a step would decay
    /// more than the whole of a parameter.
    pub fn validate(&self) -> Result<()> {
        let sizes = [("epochs", self.epochs, 1), ("batch_size", self.batch_size, 2)];
        for (field, value, least) in sizes.into_iter().chain([("checkpoint_every", self.checkpoint_every, 1)])
        {
            if value < least {
                return Err(Error::config(field, value, format!("must be at least {least}")));
            }
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.)) {
            return Err(Error::config("clip", clip, "must be positive and finite"));
        }
        if let LrSchedule::Cosine { floor } = self.schedule
            && !(0. ..=1.).contains(&floor)
        {
            return Err(Error::config("schedule.cosine.floor", floor, "must lie in [0, 1]"));
        }
        self.adamw.validate()?;
        // A parameter shrinks by `lr weight_decay` of itself at a step. (A rate above 1 goes off by itself, and says so.)
        let (decay, most) = (self.adamw.weight_decay, 1. / self.adamw.lr.min(1.));
        if decay > most {
            let reason = format!(
                "must be at most 1 / lr = {most}, or a step takes more than the whole of a parameter"
            );
            return Err(Error::config("adamw.weight_decay", decay, reason));
        }
        Ok(())
    }
}
