//! From spike trains to dense features: firing rate, postsynaptic potential, read-outs (paper Eq. 4, 5).
//!
//! All of them are linear in time: one matrix times the spike train.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ops::backend::{Backend, MAX_SHARED};
use crate::ops::time::{self as ops, weighted_sums};
use crate::ops::{room, same_type};
use crate::time::check_time_steps;

/// How often each neuron spikes: its spike firing rate (paper Eq. 4), `SFR = 1/T sum_t z[t]`.
///
/// # Shapes
/// `spikes: [T, N, ...]` -> `[N, ...]`.
/// # Errors
/// Returns an error if the rank is below 2, if there are no time steps, or, on the CPU, if the elements are neither f32 nor
/// f64.
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

/// The postsynaptic potential that a spike train causes at every time step (paper Eq. 5): its spikes, smoothed over time.
///
/// `psp[t] = (1 - 1/tau) psp[t-1] + z[t]/tau`, `psp[-1] = 0`; computed as one `T x T` product.
///
/// # Shapes
/// `spikes: [T, N, ...]` -> `[T, N, ...]`. `tau` is in time steps, at least 1.
/// # Errors
/// Returns an error if `tau` is below 1 or not finite, or if there is no time axis.
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

/// Measures how far two spike trains are apart, by the squared distance of their potentials:
/// `sum_{t, i} (PSP(a)[t, i] - PSP(b)[t, i])^2`, the maximum mean discrepancy of Eq. 9 before it is averaged.
/// Differentiable in both.
///
/// # Shapes
/// `a, b: [T, N, ...]` -> a scalar. `tau` is in time steps, at least 1.
/// # Errors
/// Returns an error if the shapes or element types differ, if there is no time axis, or if `tau` is below 1 or not finite.
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

/// [`psp_distance`] for losses that pull each of the two spike trains with a weight of its own: the distance twice, in one
/// pass, first differentiable in `a` only, then in `b` only.
///
/// These are `|PSP(a) - PSP(sg b)|^2` and `|PSP(sg a) - PSP(b)|^2`, two terms of Eq. 9 (`sg`: without gradient).
///
/// # Shapes
/// `a, b: [T, N, ...]` -> two scalars. `tau` is in time steps, at least 1.
/// # Errors
/// Returns the errors of [`psp_distance`].
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

/// The twin that [`psp_distances`] is tested against, made of Candle's own operations. It runs on any device.
///
/// # Shapes
/// `a, b: [T, N, ...]` -> two scalars. `tau` is in time steps, at least 1.
/// # Errors
/// Returns an error if the shapes or element types differ, if there is no time axis, or if `tau` is below 1 or not finite.
pub fn psp_distances_reference(a: &Tensor, b: &Tensor, tau: f64) -> Result<(Tensor, Tensor)> {
    // PSP is linear: the difference of two potentials is the potential of the difference.
    let distance = |a: &Tensor, b: &Tensor| psp(&(a - b)?, tau)?.sqr()?.sum_all();
    Ok((distance(a, &b.detach())?, distance(&a.detach(), b)?))
}

/// Carries a gradient past an operation that has none, by the straight-through estimator: the result has the values of one
/// tensor, and its gradient goes to another, the carrier.
///
/// # Shapes
/// `values` and `carrier` have the same shape, which is the result's.
/// # Errors
/// Returns an error if the shapes or element types differ.
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

/// Turns a spike train into one number for each neuron, `y = sum_t w[t] x[t]` over `t = 0..T`.
///
/// | variant | `w[t]` | source |
/// | --- | --- | --- |
/// | `Mean` | `1 / T` | firing rate, Eq. 4 |
/// | `Psp { tau }` | `(1 - 1/tau)^(T-1-t) / tau` | postsynaptic potential at the last time step, Eq. 5 |
/// | `ExponentialSum { decay }` | `decay^(T-1-t)` | the released code, with `decay = 0.8` |
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
        /// The weight of a time step as a fraction of the next one's.
        decay: f64,
    },
}

impl Readout {
    /// The weight of each time step in the sum, the first step first.
    ///
    /// # Errors
    /// Returns an error if the read-out does not [validate](Self::validate), if there are 2^31 time steps or more, or if the
    /// weights do not fit into memory.
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

    /// Reads out a spike train.
    ///
    /// # Shapes
    /// `[T, N, ...]` -> `[N, ...]`.
    /// # Errors
    /// Returns an error if the rank is below 2 or there are no time steps, and the errors of [`weights`](Self::weights).
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        Self::apply_all(&[self], xs)?.squeeze(0)
    }

    /// Reads out one spike train in several ways, in one pass over it.
    ///
    /// # Shapes
    /// `[T, N, ...]` -> `[readouts, N, ...]`.
    /// # Errors
    /// Returns an error if `readouts` is empty, and the errors of [`apply`](Self::apply).
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
        // A GPU's kernel keeps all weights in a block's shared memory.
        let fit = Backend::of(xs) != Backend::Cuda
            || readouts.len() * time_steps * xs.dtype().size_in_bytes() <= MAX_SHARED;
        if Backend::of(xs) != Backend::Candle && fit {
            return weighted_sums(xs, weights);
        }
        mix(xs, weights.concat(), readouts.len())?.reshape([&[readouts.len()], &xs.dims()[1..]].concat())
    }

    /// Checks that the read-out can be computed. `field` is what its config field is called in the error.
    ///
    /// # Errors
    /// Returns an error if a time constant is below 1 or not finite, or if a decay lies outside (0, 1].
    pub fn validate(self, field: &str) -> crate::error::Result<()> {
        match self {
            Self::Psp { tau } if !(tau >= 1. && tau.is_finite()) => {
                Err(Error::config(format!("{field}.psp.tau"), tau, "must be at least 1 time step"))
            }
            Self::ExponentialSum { decay } if !(decay > 0. && decay <= 1.) => {
                Err(Error::config(format!("{field}.exponential_sum.decay"), decay, "must lie in (0, 1]"))
            }
            _ => Ok(()),
        }
    }
}

/// How often the neurons of a layer spike on average: the fraction of ones in a tensor of spikes, 0 if it has no elements.
///
/// # Shapes
/// `spikes` may have any shape.
/// # Errors
/// Returns an error if the element type cannot be cast to f64 (f32 on Metal).
pub fn firing_rate(spikes: &Tensor) -> Result<f64> {
    if spikes.elem_count() == 0 {
        return Ok(0.);
    }
    // A sum in f32 would stop counting at 2^24.
    let dtype = if spikes.device().is_metal() { DType::F32 } else { DType::F64 };
    spikes.detach().to_dtype(dtype)?.mean_all()?.to_dtype(DType::F64)?.to_scalar()
}
