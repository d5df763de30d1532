//! Batch norm inside a spiking layer, with PyTorch's running statistics.

use candle_core::{Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};

use crate::exchange;
use crate::ops::batch_norm::batch_norm_of_copies;
use crate::ops::norm_lif::{Sequence, norm_lif};
use crate::{BatchNormed, Norm, statistic};

/// Batch norm over `T*N` (and space) with PyTorch's running statistics: `eps = 1e-5`, `momentum = 0.1`; times `alpha V_th` where it
/// depends on the threshold.
#[derive(Clone, Debug)]
pub(crate) struct BatchNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// `alpha V_th`, none in plain batch norm.
    factor: Option<f64>,
    running_mean: Var,
    running_var: Var,
}

/// The statistics of a batch, by channel.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) mean: Tensor,
    /// Biased.
    pub(crate) variance: Tensor,
    /// Elements of each channel, copies in time included; two or more.
    pub(crate) count: usize,
}

impl BatchNorm {
    pub(crate) const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// None where there is no norm.
    pub(crate) fn new(norm: Norm, channels: usize, vb: &VarBuilder<'_>) -> Result<Option<Self>> {
        let factor = match norm {
            Norm::Batch => None,
            Norm::ThresholdDependent { alpha, v_threshold } => Some(alpha * v_threshold),
            Norm::None => return Ok(None),
        };
        let parameter = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        let statistic = |name, value| statistic(vb, channels, name, Init::Const(value));
        Ok(Some(Self {
            weight: parameter("weight", 1.)?,
            bias: parameter("bias", 0.)?,
            factor,
            running_mean: statistic("running_mean", 0.)?,
            running_var: statistic("running_var", 1.)?,
        }))
    }

    /// What multiplies the normalised currents: the weight, times the factor.
    pub(crate) fn gain(&self) -> Result<Tensor> {
        match self.factor {
            Some(factor) => &self.weight * factor,
            None => Ok(self.weight.clone()),
        }
    }

    /// Normalises with batch statistics, and returns them; the running ones stay, see [`observe`](Self::observe).
    ///
    /// `copies`: how often each element stands for itself (constant in time).
    pub(crate) fn train(&self, xs: &Tensor, copies: usize) -> Result<(Tensor, Batch)> {
        let exchange = exchange::current();
        let made = batch_norm_of_copies(xs, &self.gain()?, &self.bias, Self::EPS, copies, exchange)?;
        Ok(with_batch(made, copies))
    }

    /// The same with neurons behind it, as one operation: their spikes instead of the normalised currents.
    pub(crate) fn train_lif(&self, xs: &Tensor, sequence: &Sequence) -> Result<(Tensor, Batch)> {
        let made = norm_lif(xs, [&self.gain()?, &self.bias], Self::EPS, sequence, exchange::current())?;
        Ok(with_batch(made, sequence.copies()))
    }

    /// Moves the running statistics towards those of a batch.
    ///
    /// `synapse_bias` was left out of the batch: the norm takes it away again, so that its gradient is exactly zero, and
    /// only the running mean sees it.
    pub(crate) fn observe(&self, batch: &Batch, synapse_bias: &Tensor) -> Result<()> {
        let n = batch.count as f64;
        self.update(&self.running_mean, &(&batch.mean + synapse_bias.detach())?)?;
        self.update(&self.running_var, &(&batch.variance * (n / (n - 1.)))?)
    }

    fn update(&self, running: &Var, batch: &Tensor) -> Result<()> {
        running.set(&((running.as_detached_tensor() * (1. - Self::MOMENTUM))? + (batch * Self::MOMENTUM)?)?)
    }

    /// The affine map of evaluation, `(scale, shift)` by channel, of a synapse with this bias.
    pub(crate) fn folded(&self, synapse_bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let std = (self.running_var.as_detached_tensor() + Self::EPS)?.sqrt()?;
        let scale = (self.gain()? / std)?;
        let centred = (synapse_bias - self.running_mean.as_detached_tensor())?;
        let shift = (&self.bias + (centred * &scale)?)?;
        Ok((scale, shift))
    }
}

/// Of so many elements of each channel, copies aside.
fn with_batch((out, count): (BatchNormed, usize), copies: usize) -> (Tensor, Batch) {
    (out.ys, Batch { mean: out.mean, variance: out.variance, count: count * copies })
}
