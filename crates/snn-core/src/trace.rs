//! From spike trains to dense features: firing rate, postsynaptic potential, read-outs (paper Eq. 4, 5).
//!
//! All of them are linear in time: one matrix times the spike train.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ops::backend::Backend;
use crate::ops::time::{self as ops, weighted_sums};
use crate::ops::{room, same_type};
use crate::time::check_time_steps;

/// Spike firing rate (paper Eq. 4): `SFR = 1/T sum_t z[t]`.
///
/// # Shapes
/// `spikes: [T, N, ...]` -> `[N, ...]`.
/// # Errors
/// A rank below 2, no time steps; on the CPU, an element type other than f32 and f64.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let spikes = Tensor::new(&[[1f32], [0.], [1.], [1.]], &Device::Cpu)?;
/// assert_eq!(snn_core::rate(&spikes)?.to_vec1::<f32>()?, [0.75]);
/// # Ok(()) }
/// ```
pub fn rate(spikes: &Tensor) -> Result<Tensor> {
    Readout::Mean.apply(spikes)
}

/// Postsynaptic potential of a spike train at every time step (paper Eq. 5).
///
/// `psp[t] = (1 - 1/tau) psp[t-1] + z[t]/tau`, `psp[-1] = 0`; computed as one `T x T` product.
///
/// # Shapes
/// `spikes: [T, N, ...]` -> `[T, N, ...]`. `tau` is in time steps, at least 1.
/// # Errors
/// `tau` below 1; no time axis.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let spikes = Tensor::new(&[[1f32], [0.], [1.]], &Device::Cpu)?;
/// assert_eq!(snn_core::psp(&spikes, 2.)?.flatten_all()?.to_vec1::<f32>()?, [0.5, 0.25, 0.625]);
/// # Ok(()) }
/// ```
pub fn psp(spikes: &Tensor, tau: f64) -> Result<Tensor> {
    check_tau(tau)?;
    let steps = spikes.dim(0)?;
    room("psp", &[steps, steps], DType::F64)?;
    let weight = |t: usize, s: usize| if s > t { 0. } else { (1. - 1. / tau).powi((t - s) as i32) / tau };
    let weights: Vec<f64> = (0..steps).flat_map(|t| (0..steps).map(move |s| weight(t, s))).collect();
    mix(spikes, weights, steps)?.reshape(spikes.shape())
}

/// The squared distance of two spike trains by their potentials: `sum_{t, i} (PSP(a)[t, i] - PSP(b)[t, i])^2`, the
/// maximum mean discrepancy of Eq. 9 before it is averaged. Differentiable in both.
///
/// # Shapes
/// `a, b: [T, N, ...]` -> a scalar. `tau` is in time steps, at least 1.
/// # Errors
/// Shapes or element types that differ, no time axis, `tau` below 1.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let (a, b) = (Tensor::new(&[[1f32], [0.]], &Device::Cpu)?, Tensor::new(&[[0f32], [0.]], &Device::Cpu)?);
/// // The potentials are 1/2 and 1/4.
/// assert_eq!(snn_core::psp_distance(&a, &b, 2.)?.to_scalar::<f32>()?, 0.3125);
/// # Ok(()) }
/// ```
pub fn psp_distance(a: &Tensor, b: &Tensor, tau: f64) -> Result<Tensor> {
    let (in_a, in_b) = psp_distances(a, b, tau)?;
    in_a + (&in_b - in_b.detach())?
}

/// [`psp_distance`] twice, in one pass: the first is differentiable in `a` only, the second in `b` only.
///
/// These are `|PSP(a) - PSP(sg b)|^2` and `|PSP(sg a) - PSP(b)|^2`, two terms of Eq. 9 (`sg`: without gradient).
///
/// # Shapes
/// As [`psp_distance`] -> two scalars.
/// # Errors
/// As [`psp_distance`].
pub fn psp_distances(a: &Tensor, b: &Tensor, tau: f64) -> Result<(Tensor, Tensor)> {
    if a.dims() != b.dims() || a.rank() == 0 {
        bail!("psp_distance: spike trains of {:?} and {:?}", a.dims(), b.dims())
    }
    same_type("psp_distance", &[("a", a), ("b", b)])?;
    check_tau(tau)?;
    if Backend::of(a) == Backend::Candle {
        return psp_distances_reference(a, b, tau);
    }
    let both = ops::psp_distances(a, b, tau)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// The twin of [`psp_distances`], with Candle's own operations. Any device.
///
/// # Shapes
/// As [`psp_distance`] -> two scalars.
/// # Errors
/// As [`psp_distance`].
pub fn psp_distances_reference(a: &Tensor, b: &Tensor, tau: f64) -> Result<(Tensor, Tensor)> {
    // PSP is linear: the difference of two potentials is the potential of the difference.
    let distance = |a: &Tensor, b: &Tensor| psp(&(a - b)?, tau)?.sqr()?.sum_all();
    Ok((distance(a, &b.detach())?, distance(&a.detach(), b)?))
}

/// The straight-through estimator: the values of one tensor with the gradient of another.
///
/// # Errors
/// Shapes or element types that differ.
pub fn straight_through(values: &Tensor, carrier: &Tensor) -> Result<Tensor> {
    if values.dims() != carrier.dims() {
        bail!("straight_through: values {:?}, gradient of {:?}", values.dims(), carrier.dims())
    }
    same_type("straight_through", &[("values", values), ("carrier", carrier)])?;
    if Backend::of(values) == Backend::Candle {
        return carrier + (values - carrier)?.detach();
    }
    // Detached, or the backward pass would want a gradient for it.
    values.detach().contiguous()?.apply_op2(&carrier.contiguous()?, ops::StraightThrough)
}

fn check_tau(tau: f64) -> Result<()> {
    if tau >= 1. && tau.is_finite() {
        return Ok(());
    }
    bail!("psp: tau = {tau} must be at least 1 time step")
}

/// `[T', T] x [T, rest] -> [T', rest]`.
fn mix(spikes: &Tensor, weights: Vec<f64>, rows: usize) -> Result<Tensor> {
    let weights =
        Tensor::from_vec(weights, (rows, spikes.dim(0)?), spikes.device())?.to_dtype(spikes.dtype())?;
    weights.matmul(&spikes.flatten_from(1)?.contiguous()?)
}

/// How a spike train becomes one number a neuron: a weighted sum over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Readout {
    /// The firing rate, Eq. 4.
    Mean,
    /// The postsynaptic potential at the last time step, Eq. 5.
    Psp {
        /// Synaptic time constant in time steps.
        tau: f64,
    },
    /// `sum_t decay^(T-1-t) x[t]`, the released code's read-out (`decay = 0.8`, five times the PSP of `tau = 5`).
    ExponentialSum {
        /// Factor a time step.
        decay: f64,
    },
}

impl Readout {
    /// The weight of each time step.
    ///
    /// # Errors
    /// Returns an error if it does not [validate](Self::validate), or if there are 2^31 time steps or more.
    pub fn weights(self, time_steps: usize) -> Result<Vec<f64>> {
        self.validate("readout")?;
        check_time_steps(time_steps)?;
        room("the weights of a read-out", &[time_steps], DType::F64)?;
        let ages = (0..time_steps as i32).rev();
        Ok(match self {
            Self::Mean => vec![1. / time_steps as f64; time_steps],
            Self::Psp { tau } => ages.map(|age| (1. - 1. / tau).powi(age) / tau).collect(),
            Self::ExponentialSum { decay } => ages.map(|age| decay.powi(age)).collect(),
        })
    }

    /// `[T, N, ...]` -> `[N, ...]`.
    ///
    /// # Errors
    /// No time axis, or zero time steps; what [`weights`](Self::weights) rejects.
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        Self::apply_all(&[self], xs)?.squeeze(0)
    }

    /// Several read-outs of one spike train, in one pass over it: `[T, N, ...]` -> `[readouts, N, ...]`.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), no read-outs.
    pub fn apply_all(readouts: &[Self], xs: &Tensor) -> Result<Tensor> {
        let time_steps = xs.dim(0)?;
        if time_steps == 0 || xs.rank() < 2 || readouts.is_empty() {
            bail!(
                "{} read-outs of {:?}: want [T, N, ...] with at least one time step",
                readouts.len(),
                xs.dims()
            )
        }
        let weights: Vec<_> =
            readouts.iter().map(|readout| readout.weights(time_steps)).collect::<Result<_>>()?;
        // A view is written out.
        room("read-outs", xs.dims(), xs.dtype())?;
        if Backend::of(xs) == Backend::Cpu {
            return weighted_sums(xs, weights);
        }
        mix(xs, weights.concat(), readouts.len())?.reshape([&[readouts.len()], &xs.dims()[1..]].concat())
    }

    /// # Errors
    /// A time constant below 1 or a decay outside (0, 1].
    pub fn validate(self, field: &str) -> crate::error::Result<()> {
        match self {
            Self::Psp { tau } if !(tau >= 1. && tau.is_finite()) => {
                Err(Error::config(format!("{field}.tau"), tau, "must be at least 1 time step"))
            }
            Self::ExponentialSum { decay } if !(decay > 0. && decay <= 1.) => {
                Err(Error::config(format!("{field}.decay"), decay, "must lie in (0, 1]"))
            }
            _ => Ok(()),
        }
    }
}

/// The fraction of ones in a tensor of spikes, 0 if it has no elements.
///
/// # Shapes
/// `spikes` of any shape.
/// # Errors
/// An element type that does not cast to f32.
pub fn firing_rate(spikes: &Tensor) -> Result<f64> {
    if spikes.elem_count() == 0 {
        return Ok(0.);
    }
    spikes.detach().to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>().map(f64::from)
}
