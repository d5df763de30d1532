//! What a leaky integrate-and-fire neuron is (paper Eq. 1-3).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Surrogate;
use crate::error::Error;

/// What a spike does to the membrane (Eq. 3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// `V = V_reset`, the potential given.
    Hard(f64),
    /// `V = H - V_th`; the resting potential is 0.
    Soft,
}

impl Reset {
    pub(crate) fn potential(self) -> f64 {
        match self {
            Self::Hard(v) => v,
            Self::Soft => 0.,
        }
    }
}

/// Parameters of a LIF neuron; potentials are in units of the threshold's scale, times in time steps.
///
/// ```text
/// H[t] = V[t-1] + (X[t] - (V[t-1] - V_reset)) / tau      (Eq. 1; decay_input)
/// H[t] = V[t-1] - (V[t-1] - V_reset) / tau + X[t]        (not decay_input)
/// H[t] = V[t-1] + X[t]                                   (tau = None: integrate-and-fire)
/// S[t] = Theta(H[t] - V_th),  Theta(0) = 1               (Eq. 2; 0 with strict_threshold)
/// V[t] = H[t] (1 - S[t]) + V_reset S[t]                  (Eq. 3; hard reset)
/// V[t] = H[t] - V_th S[t]                                (soft reset)
/// ```
/// `V[-1] = V_reset` (0 for the soft reset).
///
/// `X / tau` is a true division, not a product with a rounded `1 / tau`: from rest, a current of exactly `tau` reaches a threshold of 1.
///
/// A current that is infinite or NaN is no error. Plus infinity fires, minus infinity and NaN do not; the membrane then stays
/// infinite or NaN, unless a hard reset clears it. Where `H` is infinite or NaN, the gradient through the spike is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifConfig {
    /// Membrane time constant in time steps, at least 1; `None` for no leak.
    pub tau: Option<f64>,
    /// Firing threshold `V_th`.
    pub v_threshold: f64,
    /// Reset rule.
    pub v_reset: Reset,
    /// Whether the input current is divided by `tau` too, as Eq. 1 has it.
    pub decay_input: bool,
    /// Whether gradients stop at the spike in the reset.
    pub detach_reset: bool,
    /// Stand-in for the derivative of `Theta`.
    pub surrogate: Surrogate,
    /// Whether only a potential above the threshold fires, and one that equals it does not: `Theta(0) = 0`. A config that does not
    /// say so has `Theta(0) = 1`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict_threshold: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

impl Default for LifConfig {
    /// The paper's neuron: `tau = 2, V_th = 1, V_reset = 0`, ATan surrogate with `alpha = 2`.
    fn default() -> Self {
        Self {
            tau: Some(2.),
            v_threshold: 1.,
            v_reset: Reset::Hard(0.),
            decay_input: true,
            detach_reset: false,
            surrogate: Surrogate::Atan { alpha: 2. },
            strict_threshold: false,
        }
    }
}

impl LifConfig {
    /// The integrate-and-fire neuron: no leak, otherwise as the default.
    #[must_use]
    pub fn integrate_and_fire() -> Self {
        Self { tau: None, ..Self::default() }
    }

    /// Checks the numbers of the neuron.
    ///
    /// # Errors
    /// Returns an error if `tau` is below 1, if the threshold does not lie above the reset potential, if a number is not finite, or if
    /// the surrogate does not [validate](Surrogate::validate).
    pub fn validate(&self) -> crate::error::Result<()> {
        if let Some(tau) = self.tau.filter(|tau| !(tau.is_finite() && *tau >= 1.)) {
            return Err(Error::config("lif.tau", tau, "must be at least 1 time step"));
        }
        let v_reset = self.v_reset.potential();
        if !self.v_threshold.is_finite() || self.v_threshold <= v_reset {
            return Err(Error::config(
                "lif.v_threshold",
                self.v_threshold,
                "must lie above the reset potential",
            ));
        }
        if !v_reset.is_finite() {
            return Err(Error::config("lif.v_reset", v_reset, "must be finite"));
        }
        self.surrogate.validate().map_err(|e| e.within("lif"))
    }

    /// Firing with its surrogate gradient, of potentials `H`. Any device.
    pub(crate) fn fire(&self, h: &Tensor) -> candle_core::Result<Tensor> {
        let x = (h - self.v_threshold)?;
        let spikes = if self.strict_threshold { x.gt(0.)? } else { x.ge(0.)? };
        self.surrogate.carry(&spikes, &(h - self.surrogate.origin(self.v_threshold))?)
    }

    /// `H = leak V + drive X + rest`.
    pub(crate) fn coefficients(&self) -> (f64, f64, f64) {
        let Some(tau) = self.tau else { return (1., 1., 0.) };
        let leak = 1. - 1. / tau;
        (leak, if self.decay_input { 1. / tau } else { 1. }, (1. - leak) * self.v_reset.potential())
    }
}
