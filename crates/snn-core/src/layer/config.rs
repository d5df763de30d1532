//! What a layer is behind its synapse, as data: its norm and its neurons.

use serde::{Deserialize, Serialize};

use super::analog::Analog;
use crate::neuron::is_false;
use crate::{Error, LifConfig};

/// Says how a layer's currents are normalised on their way from the synapse to the neurons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Norm {
    /// Batch norm over time, batch and map, with PyTorch's running statistics (`eps = 1e-5`, `momentum = 0.1`).
    #[default]
    Batch,
    /// Threshold-dependent batch norm (tdBN, Zheng et al. 2021): `y = weight (alpha V_th (x - mean) / sqrt(var + eps)) + bias`,
    /// statistics as those of [`Batch`](Self::Batch).
    ThresholdDependent {
        /// Factor: 1 for layers in a row, `1 / sqrt(n)` where the outputs of `n` of them are added, as in a residual block.
        alpha: f64,
        /// Threshold of the neurons behind it; finite and positive.
        v_threshold: f64,
    },
    /// None: the currents are those of the synapse, bias included.
    None,
}

impl Norm {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_batch(&self) -> bool {
        *self == Self::Batch
    }

    /// Checks that a layer can be normalised with these numbers.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `alpha` or `v_threshold` is not positive and finite.
    pub fn validate(&self) -> crate::Result<()> {
        let Self::ThresholdDependent { alpha, v_threshold } = *self else { return Ok(()) };
        for (field, value) in [("alpha", alpha), ("v_threshold", v_threshold)] {
            if !(value.is_finite() && value > 0.) {
                let field = format!("norm.threshold_dependent.{field}");
                return Err(Error::config(field, value, "must be positive and finite"));
            }
        }
        Ok(())
    }
}

/// Says what a [`SpikingLayer`](crate::SpikingLayer) is behind its synapse. A [`LifConfig`] alone is such a layer with batch norm.
///
/// # Examples
/// ```
/// use snn_core::{LayerConfig, LifConfig, Norm};
/// let plain = LayerConfig::from(LifConfig::default());
/// assert_eq!(plain.norm, Norm::Batch);
/// assert_eq!(plain.with_norm(Norm::None).norm, Norm::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LayerConfig {
    /// Its neurons.
    pub neuron: LifConfig,
    /// Its norm; a config without one has batch norm.
    #[serde(default, skip_serializing_if = "Norm::is_batch")]
    pub norm: Norm,
    /// Whether the time constant is learned, one for the layer (parametric LIF, Fang et al. 2021): `1/tau = sigmoid(w)`, with a
    /// parameter `plif.w` that begins where `tau` is the neuron's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub learn_tau: bool,
    /// What is handed on instead of spikes, where the layer has none; its neuron then computes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analog: Option<Analog>,
}

impl From<LifConfig> for LayerConfig {
    fn from(neuron: LifConfig) -> Self {
        Self { neuron, ..Self::default() }
    }
}

impl LayerConfig {
    /// Returns the same config with this norm.
    #[must_use]
    pub fn with_norm(self, norm: Norm) -> Self {
        Self { norm, ..self }
    }

    /// Returns the same config with a learned time constant.
    #[must_use]
    pub fn with_learned_tau(self) -> Self {
        Self { learn_tau: true, ..self }
    }

    /// Returns the same config without spikes.
    #[must_use]
    pub fn with_analog(self, analog: Analog) -> Self {
        Self { analog: Some(analog), ..self }
    }

    /// Checks that a layer can be built of this.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if its neuron or its norm does not
    /// [validate](LifConfig::validate), or if it learns a time constant that is not above 1 at first, or of a neuron that it has not.
    pub fn validate(&self) -> crate::Result<()> {
        self.neuron.validate().map_err(|e| e.renamed("lif", "neuron"))?;
        let tau = self.neuron.tau;
        if self.learn_tau && !tau.is_some_and(|tau| tau > 1.) {
            let tau = tau.map_or_else(|| "null".to_owned(), |tau| tau.to_string());
            return Err(Error::config("neuron.tau", tau, "must be above 1 where it is learned"));
        }
        if self.learn_tau && self.analog.is_some() {
            return Err(Error::config("learn_tau", true, "a layer without spikes has no time constant"));
        }
        self.norm.validate()
    }
}
