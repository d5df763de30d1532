//! Batch norm inside a spiking layer, with PyTorch's running statistics.

use candle_core::{Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};

use crate::ops::batch_norm::batch_norm_of_copies;

/// Batch norm over `T*N` (and space) with PyTorch's running statistics: `eps = 1e-5`, `momentum = 0.1`.
#[derive(Clone, Debug)]
pub(crate) struct BatchNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    pub(crate) const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    pub(crate) fn new(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let constant = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            weight: constant("weight", 1.)?,
            bias: constant("bias", 0.)?,
            running_mean: Var::from_tensor(&constant("running_mean", 0.)?)?,
            running_var: Var::from_tensor(&constant("running_var", 1.)?)?,
        })
    }

    /// Normalises with batch statistics and moves the running ones.
    ///
    /// `synapse_bias` was left out of `xs`: the norm takes it away again, so that its gradient is exactly zero, and
    /// only the running mean sees it. `copies`: how often each element stands for itself (constant in time).
    pub(crate) fn train(&self, xs: &Tensor, synapse_bias: &Tensor, copies: usize) -> Result<Tensor> {
        let out = batch_norm_of_copies(xs, &self.weight, &self.bias, Self::EPS, copies)?;
        let n = xs.elem_count() / xs.dim(1)? * copies;
        self.observe(&out.mean, &out.variance, synapse_bias, n)?;
        Ok(out.ys)
    }

    /// Moves the running statistics towards those of a batch of `n` elements a channel, left without `synapse_bias`.
    pub(crate) fn observe(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        synapse_bias: &Tensor,
        n: usize,
    ) -> Result<()> {
        self.update(&self.running_mean, &(mean + synapse_bias.detach())?)?;
        self.update(&self.running_var, &(variance * (n as f64 / (n as f64 - 1.).max(1.)))?)
    }

    fn update(&self, running: &Var, batch: &Tensor) -> Result<()> {
        running.set(&((running.as_detached_tensor() * (1. - Self::MOMENTUM))? + (batch * Self::MOMENTUM)?)?)
    }

    /// The affine map of evaluation, `(scale, shift)` by channel, of a synapse with this bias.
    pub(crate) fn folded(&self, synapse_bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let std = (self.running_var.as_detached_tensor() + Self::EPS)?.sqrt()?;
        let scale = (&self.weight / std)?;
        let centred = (synapse_bias - self.running_mean.as_detached_tensor())?;
        let shift = (&self.bias + (centred * &scale)?)?;
        Ok((scale, shift))
    }
}
