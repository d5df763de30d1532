//! AdamW with saveable state, learning-rate schedules, gradient clipping.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::Checkpoint;
use crate::error::Error;
use crate::ops::adamw::{Step, moments_type, step_all};
use crate::ops::squares::sum_of_squares;

/// Hyper-parameters of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Learning rate, which the schedule multiplies.
    pub lr: f64,
    /// Factor by which the first moment decays in each step.
    pub beta1: f64,
    /// Factor by which the second moment decays in each step.
    pub beta2: f64,
    /// Added to the denominator. It must be positive, or a gradient that is exactly zero would divide 0 by 0.
    pub eps: f64,
    /// Decoupled weight decay, applied to every parameter.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// The paper's values: learning rate 1e-3, betas (0.9, 0.999), weight decay 1e-3.
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 }
    }
}

impl AdamWConfig {
    /// Checks that the optimiser can work with these numbers.
    ///
    /// # Errors
    /// Returns an error, which names the field, if `lr` or `weight_decay` is negative or not finite, if `eps` is not positive
    /// and finite, or if a beta lies outside [0, 1).
    pub fn validate(&self) -> crate::error::Result<()> {
        check_rates("adamw", self.lr, self.weight_decay)?;
        if !(self.eps.is_finite() && self.eps > 0.) {
            return Err(Error::config(
                "adamw.eps",
                self.eps,
                "must be finite and positive, or a gradient that is exactly zero divides 0 by 0",
            ));
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0. ..1.).contains(&value) {
                return Err(Error::config(format!("adamw.{field}"), value, "must lie in [0, 1)"));
            }
        }
        Ok(())
    }
}

/// Refuses rates of an optimiser that are negative or not finite.
pub(super) fn check_rates(optimiser: &str, lr: f64, weight_decay: f64) -> crate::error::Result<()> {
    match [("lr", lr), ("weight_decay", weight_decay)].into_iter().find(|(_, x)| !(x.is_finite() && *x >= 0.))
    {
        Some((field, value)) => {
            Err(Error::config(format!("{optimiser}.{field}"), value, "must be finite and not negative"))
        }
        None => Ok(()),
    }
}

/// How the learning rate changes over a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LrSchedule {
    /// It stays the same.
    Constant,
    /// It falls along half a cosine, from the base rate to `floor` times the base rate.
    Cosine {
        /// The final rate, as a fraction of the base rate.
        floor: f64,
    },
}

impl LrSchedule {
    /// The factor on the base rate at step `step`, counted from 0, of `total` steps.
    ///
    /// # Examples
    /// ```
    /// let cosine = snn_core::LrSchedule::Cosine { floor: 0. };
    /// assert_eq!((cosine.factor(0, 10), cosine.factor(10, 10)), (1., 0.));
    /// ```
    #[must_use]
    pub fn factor(self, step: usize, total: usize) -> f64 {
        match self {
            Self::Constant => 1.,
            Self::Cosine { floor } => {
                let progress = (step as f64 / total.max(1) as f64).min(1.);
                floor + (1. - floor) * 0.5 * (1. + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// Keeps a step from growing too large: scales all gradients down so that their joint Euclidean norm is at most `max_norm`,
/// and returns the norm that they had before.
///
/// The factor is that of PyTorch's `clip_grad_norm_`, `min(1, max_norm / (norm + 1e-6))`. Without a `max_norm`, the gradients
/// stay as they are.
///
/// # Shapes
/// Gradients may have any shape, and keep it.
/// # Errors
/// Returns an error only if a tensor operation fails. A norm that is not finite is returned, not rejected.
pub fn clip_gradients(grads: &mut BTreeMap<String, Tensor>, max_norm: Option<f64>) -> Result<f64> {
    let norm = sum_of_squares(grads.values())?.sqrt();
    if let Some(factor) = max_norm.map(|max| max / (norm + 1e-6)).filter(|&factor| factor < 1.) {
        for grad in grads.values_mut() {
            *grad = (&*grad * factor)?;
        }
    }
    Ok(norm)
}

/// Moves parameters down their gradients by AdamW (Loshchilov and Hutter 2019), with PyTorch's order of operations and a
/// state that can be saved.
///
/// ```text
/// p <- p (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
/// p <- p - lr/(1 - b1^t) m / (sqrt(v)/sqrt(1 - b2^t) + eps)
/// ```
#[derive(Debug)]
pub struct AdamW {
    cfg: AdamWConfig,
    params: Vec<(String, Var)>,
    /// Of each parameter, the factor on the learning rate.
    rates: Vec<f64>,
    /// `[2, ...]` each: first and second.
    moments: Vec<Tensor>,
    step: usize,
}

impl AdamW {
    /// An optimiser of these parameters, at step 0. It does not [validate](AdamWConfig::validate) `cfg`.
    ///
    /// # Shapes
    /// Parameters may have any shape; their moments have the same, in f32 for parameters of half precision.
    /// # Errors
    /// Returns an error if the moments cannot be allocated.
    pub fn new(params: Vec<(String, Var)>, cfg: AdamWConfig) -> Result<Self> {
        let zeros =
            |(_, p): &(String, Var)| Tensor::zeros([&[2], p.dims()].concat(), moments_type(p), p.device());
        let moments = params.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { cfg, rates: vec![1.; params.len()], params, moments, step: 0 })
    }

    /// Returns the same optimiser, whose parameters with names that begin so have their own learning rate: the others' times this
    /// factor (times each of them, where several begin so). Weight decay, which is a part of the rate, follows it.
    #[must_use]
    pub fn with_rates(self, factors: &BTreeMap<String, f64>) -> Self {
        let rate = |(name, _): &(String, Var)| -> f64 {
            factors.iter().filter(|(prefix, _)| name.starts_with(*prefix)).map(|(_, factor)| factor).product()
        };
        Self { rates: self.params.iter().map(rate).collect(), ..self }
    }

    /// The number of steps taken so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Takes one step with the learning rate `lr_factor * lr`. A parameter without a gradient is left as it is.
    ///
    /// # Shapes
    /// Each gradient has the shape of the parameter of the same name.
    /// # Errors
    /// Returns an error if a gradient has another shape, element type or device than its parameter. The parameters before it
    /// have then been moved already.
    pub fn step(&mut self, grads: &BTreeMap<String, Tensor>, lr_factor: f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig { lr, beta1, beta2, eps, weight_decay } = self.cfg;
        let by = |rate: f64| {
            let lr = lr * lr_factor * rate;
            Step {
                beta1,
                beta2,
                eps,
                step_size: lr / (1. - beta1.powi(self.step as i32)),
                root: (1. - beta2.powi(self.step as i32)).sqrt(),
                keep: 1. - lr * weight_decay,
            }
        };
        let mut distinct = self.rates.clone();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        for rate in distinct {
            let all = self.params.iter().zip(&self.rates).zip(&self.moments);
            let moved =
                all.filter(|((_, own), _)| **own == rate).filter_map(|(((name, param), _), moments)| {
                    grads.get(name).map(|grad| (param.as_tensor(), moments, grad))
                });
            step_all(&moved.collect::<Vec<_>>(), by(rate))?;
        }
        Ok(())
    }

    /// Copies the moments, to be put into a checkpoint, under the names `<prefix>m.<name>` and `<prefix>v.<name>`.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be copied.
    pub fn snapshot(&self, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
        let mut all = BTreeMap::new();
        for ((name, _), moments) in self.params.iter().zip(&self.moments) {
            for (i, kind) in ["m", "v"].into_iter().enumerate() {
                all.insert(format!("{prefix}{kind}.{name}"), moments.get(i)?.copy()?);
            }
        }
        Ok(all)
    }

    /// Takes the moments from a checkpoint made with [`snapshot`](Self::snapshot) after `step` steps, so that the optimiser goes
    /// on from there.
    ///
    /// # Errors
    /// Returns an error if a moment is missing or has another shape than its parameter.
    pub fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        prefix: &str,
        step: usize,
    ) -> crate::error::Result<()> {
        let moment = |kind: &str, name: &str, like: &Tensor| {
            checkpoint.tensor_like(&format!("{prefix}{kind}.{name}"), like)
        };
        let pairs = self.params.iter().zip(&self.moments).map(|((name, _), moments)| {
            let like = moments.get(0)?;
            Ok(Tensor::stack(&[moment("m", name, &like)?, moment("v", name, &like)?], 0)?)
        });
        self.moments = pairs.collect::<crate::error::Result<_>>()?;
        self.step = step;
        Ok(())
    }
}
