//! AdamW with saveable state, learning-rate schedules, gradient clipping.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::Checkpoint;
use crate::error::Error;
use crate::ops::adamw::{Step, step};

/// Hyper-parameters of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Learning rate, before the schedule.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator; positive, or a gradient that is exactly zero would divide 0 by 0.
    pub eps: f64,
    /// Decoupled weight decay, applied to every parameter.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// The paper's: learning rate 1e-3, betas (0.9, 0.999), weight decay 1e-3.
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 }
    }
}

impl AdamWConfig {
    /// # Errors
    /// A rate that is negative or not finite, an `eps` that is not positive and finite, a beta outside [0, 1).
    pub fn validate(&self) -> crate::error::Result<()> {
        for (field, value) in [("lr", self.lr), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.) {
                return Err(Error::config(
                    format!("adamw.{field}"),
                    value,
                    "must be finite and not negative",
                ));
            }
        }
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

/// How the learning rate moves over a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LrSchedule {
    /// It does not.
    Constant,
    /// Half a cosine from the base rate to `floor` times it.
    Cosine {
        /// The final rate, as a fraction of the base rate.
        floor: f64,
    },
}

impl LrSchedule {
    /// The factor on the base rate at `step` of `total` (counted from 0).
    ///
    /// # Examples
    /// ```
    /// let cosine = snn_core::LrSchedule::Cosine { floor: 0. };
    /// assert_eq!((cosine.factor(0, 10), cosine.factor(10, 10)), (1., 0.));
    /// ```
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

/// Scales all gradients down so that their joint Euclidean norm is at most `max_norm`; returns the norm before.
///
/// As PyTorch's `clip_grad_norm_`: the factor is `min(1, max_norm / (norm + 1e-6))`.
///
/// # Shapes
/// Gradients of any shape; they keep it.
/// # Errors
/// None of its own: what the device reports. A norm that is not finite is returned, not rejected.
pub fn clip_gradients(grads: &mut BTreeMap<String, Tensor>, max_norm: Option<f64>) -> Result<f64> {
    let mut square = 0.;
    for grad in grads.values() {
        square += grad.sqr()?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    }
    let norm = square.sqrt();
    if let Some(factor) = max_norm.map(|max| max / (norm + 1e-6)).filter(|&factor| factor < 1.) {
        for grad in grads.values_mut() {
            *grad = (&*grad * factor)?;
        }
    }
    Ok(norm)
}

/// AdamW (Loshchilov and Hutter 2019), with PyTorch's order of operations and a state that can be saved.
///
/// ```text
/// p <- p (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
/// p <- p - lr/(1 - b1^t) m / (sqrt(v)/sqrt(1 - b2^t) + eps)
/// ```
#[derive(Debug)]
pub struct AdamW {
    cfg: AdamWConfig,
    params: Vec<(String, Var)>,
    /// `[2, ...]` each: first and second.
    moments: Vec<Tensor>,
    step: usize,
}

impl AdamW {
    /// An optimiser at step 0 for these parameters.
    ///
    /// # Shapes
    /// Parameters of any shape; the moments have the same.
    /// # Errors
    /// Moments that cannot be allocated. `cfg` is not [validated](AdamWConfig::validate) here.
    pub fn new(params: Vec<(String, Var)>, cfg: AdamWConfig) -> Result<Self> {
        let zeros = |(_, p): &(String, Var)| Tensor::stack(&[p.zeros_like()?, p.zeros_like()?], 0);
        let moments = params.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { cfg, params, moments, step: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// One step with the learning rate `lr_factor * lr`. A parameter without a gradient is left alone.
    ///
    /// # Shapes
    /// Each gradient as the parameter of its name.
    /// # Errors
    /// A gradient of another shape, element type or device; the parameters in front of it have been moved then.
    pub fn step(&mut self, grads: &BTreeMap<String, Tensor>, lr_factor: f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig { lr, beta1, beta2, eps, weight_decay } = self.cfg;
        let lr = lr * lr_factor;
        let by = Step {
            beta1,
            beta2,
            eps,
            step_size: lr / (1. - beta1.powi(self.step as i32)),
            root: (1. - beta2.powi(self.step as i32)).sqrt(),
            keep: 1. - lr * weight_decay,
        };
        for ((name, param), moments) in self.params.iter().zip(&self.moments) {
            if let Some(grad) = grads.get(name) {
                step(param, moments, grad, by)?;
            }
        }
        Ok(())
    }

    /// Copies of the moments as `m.<name>`, `v.<name>`, each behind `prefix`.
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

    /// Takes the moments from a checkpoint made with [`snapshot`](Self::snapshot) after `step` steps.
    ///
    /// # Errors
    /// A moment is missing or has another shape than its parameter.
    pub fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        prefix: &str,
        step: usize,
    ) -> crate::error::Result<()> {
        let moment = |kind: &str, name: &str, like: &Var| {
            let name = format!("{prefix}{kind}.{name}");
            match checkpoint.tensors.get(&name) {
                Some(t) if t.dims() == like.dims() => {
                    Ok(t.to_dtype(like.dtype())?.to_device(like.device())?)
                }
                Some(t) => {
                    let (found, wanted) = (t.dims(), like.dims());
                    Err(checkpoint.error(format!("tensor `{name}` has shape {found:?}, expected {wanted:?}")))
                }
                None => Err(checkpoint.error(format!("tensor `{name}` is missing"))),
            }
        };
        let pairs = self
            .params
            .iter()
            .map(|(name, var)| Ok(Tensor::stack(&[moment("m", name, var)?, moment("v", name, var)?], 0)?));
        self.moments = pairs.collect::<crate::error::Result<_>>()?;
        self.step = step;
        Ok(())
    }
}
