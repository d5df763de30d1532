//! The moving average of a network's parameters, which moves less than they do.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Checkpoint, Error, ParamStore};

/// How the moving average of parameters is taken (Polyak averaging).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AveragingConfig {
    /// What of the average is kept at each step, such as 0.999: it spans about `1 / (1 - decay)` steps.
    pub decay: f64,
    /// Steps from one update to the next, which then keeps `decay^every`: a network moves little in a few steps, and an update
    /// costs time.
    pub every: usize,
}

impl AveragingConfig {
    /// Checks that an average can be taken so.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `decay` lies outside [0, 1) or `every` is 0.
    pub fn validate(&self) -> crate::error::Result<()> {
        if !(0. ..1.).contains(&self.decay) {
            return Err(Error::config("average.decay", self.decay, "must lie in [0, 1)"));
        }
        if self.every == 0 {
            return Err(Error::config("average.every", self.every, "must be at least 1 step"));
        }
        Ok(())
    }

    /// What update number `update`, counted from 0, keeps of the average: `min(decay^every, (1 + update) / (10 + update))`, so
    /// that the first steps, far from where training ends, are soon forgotten.
    fn kept(&self, update: usize) -> f64 {
        let update = update as f64;
        self.decay.powf(self.every as f64).min((1. + update) / (10. + update))
    }
}

/// Keeps the moving average of all variables of a network, its running statistics included: at each update
/// `average <- kept * average + (1 - kept) * value`.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{Average, AveragingConfig, ParamStore, Seed};
/// # fn main() -> candle_core::Result<()> {
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let weight = params.builder().get(1, "weight")?;
/// let mut average = Average::new(&params, AveragingConfig { decay: 0.5, every: 1 })?;
/// for (_, var) in params.vars() {
///     var.set(&Tensor::new(&[10f32], &Device::Cpu)?)?;
/// }
/// average.update(&params, 1)?; // 0.1 * 0 + 0.9 * 10
/// average.apply(&params)?;
/// assert_eq!(weight.to_vec1::<f32>()?, [9.]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Average {
    cfg: AveragingConfig,
    values: BTreeMap<String, Tensor>,
}

impl Average {
    /// An average that begins at the present values. It does not [validate](AveragingConfig::validate) `cfg`.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be copied.
    pub fn new(params: &ParamStore, cfg: AveragingConfig) -> Result<Self> {
        Ok(Self { cfg, values: params.snapshot("")? })
    }

    /// Takes in the values after `steps` steps, if that is a multiple of [`every`](AveragingConfig::every).
    ///
    /// # Errors
    /// Returns an error if a variable has another shape or element type than it had; a new variable begins its average.
    pub fn update(&mut self, params: &ParamStore, steps: usize) -> Result<()> {
        if !steps.is_multiple_of(self.cfg.every) || steps == 0 {
            return Ok(());
        }
        let kept = self.cfg.kept(steps / self.cfg.every - 1);
        for (name, var) in params.vars() {
            let next = match self.values.get(&name) {
                Some(average) => {
                    (average.affine(kept, 0.)? + var.as_detached_tensor().affine(1. - kept, 0.)?)?
                }
                None => var.as_tensor().copy()?,
            };
            self.values.insert(name, next.detach());
        }
        Ok(())
    }

    /// Sets the variables to their averages.
    ///
    /// # Errors
    /// Returns an error if a variable has another shape or element type than its average.
    pub fn apply(&self, params: &ParamStore) -> Result<()> {
        for (name, var) in params.vars() {
            if let Some(average) = self.values.get(&name) {
                var.set(average)?;
            }
        }
        Ok(())
    }

    /// The averages, to be put into a checkpoint, under the names `<prefix><name>`.
    #[must_use]
    pub fn snapshot(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.values.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect()
    }

    /// Takes the averages from a checkpoint made with [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// Returns an error, and takes nothing, if an average is missing or has another shape than before.
    pub fn restore(&mut self, checkpoint: &Checkpoint, prefix: &str) -> crate::error::Result<()> {
        let found = self.values.iter().map(|(name, before)| {
            Ok((name.clone(), checkpoint.tensor_like(&format!("{prefix}{name}"), before)?))
        });
        self.values = found.collect::<crate::error::Result<_>>()?;
        Ok(())
    }
}
