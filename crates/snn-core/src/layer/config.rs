//! What a layer is behind its synapse, as data: its norm and its neurons.

use serde::{Deserialize, Serialize};

use crate::LifConfig;

/// How a layer's currents are normalised on their way from the synapse to the neurons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Norm {
    /// Batch norm over time, batch and map, with PyTorch's running statistics (`eps = 1e-5`, `momentum = 0.1`).
    #[default]
    Batch,
    /// None: the currents are those of the synapse, bias included.
    None,
}

impl Norm {
    fn is_batch(&self) -> bool {
        *self == Self::Batch
    }
}

/// What a [`SpikingLayer`](crate::SpikingLayer) is behind its synapse. A [`LifConfig`] alone is such a layer with batch norm.
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
}

impl From<LifConfig> for LayerConfig {
    fn from(neuron: LifConfig) -> Self {
        Self { neuron, ..Self::default() }
    }
}

impl LayerConfig {
    /// The same with this norm.
    #[must_use]
    pub fn with_norm(self, norm: Norm) -> Self {
        Self { norm, ..self }
    }

    /// Returns an error, with the field and its value, if the neuron does not [validate](LifConfig::validate).
    pub fn validate(&self) -> crate::Result<()> {
        self.neuron.validate()
    }
}
