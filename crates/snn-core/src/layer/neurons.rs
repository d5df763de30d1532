//! The neurons of a layer: LIF, parametric LIF, or a model of the user's own.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use candle_nn::ops::sigmoid;
use candle_nn::{Init, VarBuilder};

use super::config::LayerConfig;
use crate::ops::lif::plif;
use crate::{LifConfig, direct_encode, lif, lif_constant, lif_step, plif_step};

/// A neuron of your own: what [`SpikingLayer::with_neuron`](crate::SpikingLayer::with_neuron) puts behind a synapse and its norm.
///
/// One time step is all that it must say; its parameters are tensors that it holds, asked for from a
/// [`VarBuilder`] like those of any layer. It is made of differentiable operations; [`Surrogate::fire`](crate::Surrogate::fire)
/// is one.
///
/// # Examples
/// A threshold that each spike raises by a learnable amount, and that falls back by a tenth each step:
/// ```
/// # use std::sync::Arc;
/// # use candle_core::{DType, Device, Result, Tensor};
/// # use candle_nn::Init;
/// # use snn_core::{LifConfig, NeuronModel, ParamStore, Seed, SpikingLayer, Surrogate};
/// #[derive(Debug)]
/// struct Adaptive {
///     /// What a spike adds to the threshold.
///     rise: Tensor,
/// }
///
/// impl NeuronModel for Adaptive {
///     fn step(&self, x: &Tensor, state: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
///         let (v, raised) = match state {
///             [v, raised] => (v.clone(), raised.clone()),
///             _ => (x.zeros_like()?, x.zeros_like()?), // the first step
///         };
///         let h = ((v + x)? * 0.5)?;
///         let spikes = Surrogate::Atan { alpha: 2. }.fire(&((&h - 1.)? - &raised)?)?;
///         let v = (h * (1. - &spikes)?)?;
///         let raised = ((raised * 0.9)? + spikes.broadcast_mul(&self.rise)?)?;
///         Ok((spikes, vec![v, raised]))
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let rise = store.builder().get_with_hints((), "adaptive.rise", Init::Const(0.3))?;
/// let layer = SpikingLayer::linear(4, 8, LifConfig::default(), store.builder())?.with_neuron(Arc::new(Adaptive { rise }));
/// let xs = Tensor::ones((6, 2, 4), DType::F32, &Device::Cpu)?;
/// let grads = layer.forward_t(&xs, true)?.sum_all()?.backward()?;
/// assert!(store.gradients(&grads)?.contains_key("adaptive.rise"));
/// # Ok(()) }
/// ```
pub trait NeuronModel: Debug + Send + Sync {
    /// One time step: currents `[N, ...]` and the state that the step before left, nothing at the first one, to spikes `[N, ...]` and
    /// the state behind them.
    ///
    /// # Errors
    /// Returns an error if the operations that it is made of do.
    fn step(&self, currents: &Tensor, state: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)>;

    /// All time steps: currents `[T, N, ...]` to spikes `[T, N, ...]`. It calls [`step`](Self::step) `T` times, unless the
    /// model has a faster way to the same spikes.
    ///
    /// # Errors
    /// Returns an error if a step does, or if there are no time steps.
    fn forward(&self, currents: &Tensor) -> Result<Tensor> {
        unroll(currents, |x, state| self.step(x, state))
    }

    /// Says whether what it makes are spikes, 0 or 1, and not numbers. What counts operations asks: behind a spike a connection adds, behind a
    /// number it multiplies.
    fn spikes(&self) -> bool {
        true
    }
}

/// Calls `step` for each time step of `currents: [T, N, ...]`.
fn unroll(
    currents: &Tensor,
    step: impl Fn(&Tensor, &[Tensor]) -> Result<(Tensor, Vec<Tensor>)>,
) -> Result<Tensor> {
    let (mut state, mut spikes) = (Vec::new(), Vec::new());
    for t in 0..currents.dim(0)? {
        let (fired, next) = step(&currents.get(t)?, &state)?;
        spikes.push(fired);
        state = next;
    }
    Tensor::stack(&spikes, 0)
}

/// The neurons of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Neurons {
    Lif(LifConfig),
    /// With `w`, a scalar: `1/tau = sigmoid(w)`.
    Plif(LifConfig, Tensor),
    Model(Arc<dyn NeuronModel>),
}

impl Neurons {
    /// Asks for the parameters that a layer's neurons have.
    pub(super) fn new(layer: &LayerConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        if let Some(analog) = layer.analog {
            return Ok(Self::Model(Arc::new(analog)));
        }
        let lif = layer.neuron;
        match lif.tau.filter(|_| layer.learn_tau) {
            Some(tau) => {
                let w = vb.pp("plif").get_with_hints((), "w", Init::Const(-(tau - 1.).ln()))?;
                Ok(Self::Plif(lif, w))
            }
            None => Ok(Self::Lif(lif)),
        }
    }

    /// The same neurons, parameters shared, with a threshold `scale` times as high.
    pub(super) fn with_threshold_scale(&self, scale: f64) -> Result<Self> {
        let scaled = |lif: &LifConfig| -> Result<LifConfig> {
            let lif = LifConfig { v_threshold: lif.v_threshold * scale, ..*lif };
            lif.validate()?;
            Ok(lif)
        };
        Ok(match self {
            Self::Lif(lif) => Self::Lif(scaled(lif)?),
            Self::Plif(lif, w) => Self::Plif(scaled(lif)?, w.clone()),
            Self::Model(_) => {
                bail!("a neuron model, or an activation without spikes, has no threshold to scale")
            }
        })
    }

    /// Whether what they make are spikes, and not numbers.
    pub(super) fn spike(&self) -> bool {
        match self {
            Self::Lif(_) | Self::Plif(..) => true,
            Self::Model(model) => model.spikes(),
        }
    }

    /// What a chain needs to know of them; nothing where they are a model of the user's.
    pub(crate) fn lif(&self) -> Option<LifConfig> {
        match self {
            Self::Lif(lif) | Self::Plif(lif, _) => Some(*lif),
            Self::Model(_) => None,
        }
    }

    /// `1/tau`, `[1]`, where it is learned.
    pub(crate) fn rate(&self) -> Result<Option<Tensor>> {
        match self {
            Self::Plif(_, w) => Ok(Some(sigmoid(w)?.reshape(1)?)),
            _ => Ok(None),
        }
    }

    /// One time step; the state is empty at the first one.
    pub(crate) fn step(&self, x: &Tensor, state: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let membrane = |lif: &LifConfig| match state {
            [] => x.zeros_like()? + lif.v_reset.potential(),
            [v] => Ok(v.clone()),
            _ => bail!("a LIF neuron has one potential, not {}", state.len()),
        };
        let (spikes, v) = match self {
            Self::Lif(lif) => lif_step(x, &membrane(lif)?, lif)?,
            Self::Plif(lif, w) => plif_step(x, &membrane(lif)?, w, lif)?,
            Self::Model(model) => return model.step(x, state),
        };
        Ok((spikes, vec![v]))
    }

    /// `[T, N, ...]` -> spikes `[T, N, ...]`.
    pub(super) fn forward(&self, currents: &Tensor) -> Result<Tensor> {
        match self {
            Self::Lif(lif_config) => lif(currents, lif_config),
            Self::Plif(lif, w) => {
                plif(currents, w, lif).unwrap_or_else(|| unroll(currents, |x, state| self.step(x, state)))
            }
            Self::Model(model) => model.forward(currents),
        }
    }

    /// The same of a current that stays.
    pub(super) fn forward_constant(&self, current: &Tensor, time_steps: usize) -> Result<Tensor> {
        match self {
            Self::Lif(lif) => lif_constant(current, time_steps, lif),
            _ => self.forward(&direct_encode(current, time_steps)?),
        }
    }
}
