//! Muon: steps whose matrices are orthogonal.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::optim::check_rates;
use crate::Checkpoint;
use crate::error::Error;

/// Hyper-parameters of [`Muon`], named as in `torch.optim.Muon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// The parameters that it moves: those whose name begins with one of these, such as `layers.`, and that have two dimensions
    /// or more. Muon is meant for the weights of hidden layers; embeddings, read-outs and norms are better left to AdamW.
    pub parameters: Vec<String>,
    /// Learning rate, which the schedule multiplies.
    pub lr: f64,
    /// How much of the gradients before is kept.
    pub momentum: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for MuonConfig {
    /// Learning rate 0.02, momentum 0.95 and weight decay 0.01, for the parameters under `layers.`.
    fn default() -> Self {
        Self { parameters: vec!["layers.".into()], lr: 0.02, momentum: 0.95, weight_decay: 0.01 }
    }
}

impl MuonConfig {
    /// Checks that the optimiser can work with these numbers.
    ///
    /// # Errors
    /// Returns an error, which names the field, if `lr` or `weight_decay` is negative or not finite, if their product exceeds 1, so
    /// that a step would take more than the whole of a parameter, or if `momentum` lies outside [0, 1).
    pub fn validate(&self) -> crate::error::Result<()> {
        check_rates("muon", self.lr, self.weight_decay)?;
        if self.lr * self.weight_decay > 1. {
            let reason = format!("must be at most 1 / lr = {}", 1. / self.lr);
            return Err(Error::config("muon.weight_decay", self.weight_decay, reason));
        }
        if !(0. ..1.).contains(&self.momentum) {
            return Err(Error::config("muon.momentum", self.momentum, "must lie in [0, 1)"));
        }
        Ok(())
    }

    /// Whether it moves the parameter of this name and shape.
    #[must_use]
    pub fn moves(&self, name: &str, var: &Var) -> bool {
        var.rank() >= 2 && self.parameters.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// Coefficients of the quintic `a x + b x^3 + c x^5` that drives every singular value towards 1 (Jordan et al. 2024).
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// How often it is applied.
const ITERATIONS: usize = 5;
/// Least norm by which a matrix is divided.
const LEAST_NORM: f64 = 1e-7;

/// Moves weights by Muon (Jordan et al. 2024): the direction is the gradient's moving average with all its singular values made
/// nearly equal, so that rare directions are learned as fast as common ones. What it brings a spiking
/// denoiser is in `docs/ablation.md`.
///
/// A weight counts as a matrix of `rows x columns`, its first dimension by all the others:
///
/// ```text
/// m <- mu m + (1 - mu) g;  u = (1 - mu) g + mu m                          (Nesterov's momentum)
/// x <- u / |u|;  five times: x <- a x + b (x x^T) x + c (x x^T)^2 x        (Newton and Schulz)
/// p <- p (1 - lr wd) - lr sqrt(max(1, rows / columns)) x
/// ```
///
/// It is `torch.optim.Muon` with `nesterov=True` and `adjust_lr_fn="original"`, but computes in the parameters' own precision, where
/// PyTorch rounds to bfloat16.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use snn_core::{Muon, MuonConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let weight = Var::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu)?;
/// let cfg = MuonConfig { lr: 0.1, weight_decay: 0., ..MuonConfig::default() };
/// let mut muon = Muon::new(vec![("layers.0.weight".into(), weight.clone())], &cfg)?;
/// // One of the two is a thousand times as steep, and both move by about 0.1.
/// let grad = Tensor::new(&[[1000f32, 0.], [0., 30.]], &Device::Cpu)?;
/// muon.step(&[("layers.0.weight".into(), grad)].into(), 1.)?;
/// let moved = weight.to_vec2::<f32>()?;
/// assert!((0.87..0.94).contains(&moved[0][0]) && (0.87..0.94).contains(&moved[1][1]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Muon {
    cfg: MuonConfig,
    params: Vec<(String, Var)>,
    momenta: Vec<Tensor>,
}

impl Muon {
    /// An optimiser of these parameters, whatever their names. It does not [validate](MuonConfig::validate) `cfg`.
    ///
    /// # Shapes
    /// Parameters have two dimensions or more.
    /// # Errors
    /// Returns an error that names the parameter if one has fewer than two dimensions, or if the momenta cannot be allocated.
    pub fn new(params: Vec<(String, Var)>, cfg: &MuonConfig) -> Result<Self> {
        if let Some((name, var)) = params.iter().find(|(_, var)| var.rank() < 2) {
            candle_core::bail!("muon: `{name}` is {:?}, a matrix has two dimensions or more", var.dims())
        }
        let momenta = params.iter().map(|(_, var)| var.zeros_like()).collect::<Result<_>>()?;
        Ok(Self { cfg: cfg.clone(), params, momenta })
    }

    /// Takes one step with the learning rate `lr_factor * lr`. A parameter without a gradient is left as it is.
    ///
    /// # Shapes
    /// Each gradient has the shape of the parameter of the same name.
    /// # Errors
    /// Returns an error if a gradient has another shape, element type or device than its parameter. The parameters before it
    /// have then been moved already.
    pub fn step(&mut self, grads: &BTreeMap<String, Tensor>, lr_factor: f64) -> Result<()> {
        let MuonConfig { lr, momentum, weight_decay, .. } = self.cfg;
        let lr = lr * lr_factor;
        for ((name, param), kept) in self.params.iter().zip(&mut self.momenta) {
            let Some(grad) = grads.get(name) else { continue };
            let new = (grad * (1. - momentum))?;
            *kept = ((&*kept * momentum)? + &new)?.detach();
            let direction = (new + (&*kept * momentum)?)?.flatten_from(1)?;
            let (rows, columns) = direction.dims2()?;
            let rate = lr * (rows as f64 / columns as f64).max(1.).sqrt();
            let step = (orthogonal(&direction)? * rate)?.reshape(param.shape())?;
            param.set(&((param.as_detached_tensor() * (1. - lr * weight_decay))? - step)?)?;
        }
        Ok(())
    }

    /// Copies the momenta, to be put into a checkpoint, under the names `<prefix><name>`.
    #[must_use]
    pub fn snapshot(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let all = self.params.iter().zip(&self.momenta);
        all.map(|((name, _), kept)| (format!("{prefix}{name}"), kept.clone())).collect()
    }

    /// Takes the momenta from a checkpoint made with [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// Returns an error, and takes nothing, if one is missing or has another shape than its parameter.
    pub fn restore(&mut self, checkpoint: &Checkpoint, prefix: &str) -> crate::error::Result<()> {
        let found =
            self.params.iter().map(|(name, var)| checkpoint.tensor_like(&format!("{prefix}{name}"), var));
        self.momenta = found.collect::<crate::error::Result<_>>()?;
        Ok(())
    }
}

/// `[rows, columns]` with singular values near 1 and the same singular vectors.
///
/// Each iteration multiplies `x` by the polynomial `p = a + b g + c g^2` of its Gram matrix `g = x x^T`, and makes `g` into `p g p`. So
/// only the square matrices are iterated, and the product of the polynomials meets the matrix once, at the end: two products with
/// the long side instead of ten.
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let tall = rows > columns;
    let norm = matrix.sqr()?.sum_all()?.sqrt()?.maximum(LEAST_NORM)?;
    let x = matrix.broadcast_div(&norm)?;
    let mut gram = if tall { x.t()?.matmul(&x)? } else { x.matmul(&x.t()?)? };
    let [a, b, c] = QUINTIC;
    let diagonal = (Tensor::eye(gram.dim(0)?, gram.dtype(), gram.device())? * a)?;
    let polynomial = |g: &Tensor| (&diagonal + (g * b)?)? + (g.matmul(g)? * c)?;
    let mut all = polynomial(&gram)?;
    let mut last = all.clone();
    for _ in 1..ITERATIONS {
        gram = last.matmul(&gram)?.matmul(&last)?;
        last = polynomial(&gram)?;
        all = last.matmul(&all)?;
    }
    if tall { x.matmul(&all) } else { all.matmul(&x) }
}
