//! Looking into a network while it runs.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// Looks into a network while it runs: a function that is called with the name and the spikes `[T, N, ...]` of every layer as
/// they are made.
pub type Observer<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// Measures the firing rate of each layer, over any number of batches.
///
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let mut rates = snn_core::FiringRates::default();
/// rates.record("encoder.0", &Tensor::new(&[1f32, 0., 0., 1.], &Device::Cpu)?)?;
/// assert_eq!(rates.rates()["encoder.0"], 0.5);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FiringRates {
    /// Spikes and neuron-steps of each layer.
    counts: BTreeMap<String, (f64, f64)>,
}

impl FiringRates {
    /// Adds a batch of a layer's spikes to what is counted.
    ///
    /// # Shapes
    /// `spikes: [T, N, ...]`, or any other shape.
    /// # Errors
    /// Returns the errors of [`firing_rate`](crate::firing_rate).
    pub fn record(&mut self, layer: &str, spikes: &Tensor) -> Result<()> {
        let steps = spikes.elem_count() as f64;
        let count = self.counts.entry(layer.to_owned()).or_default();
        *count = (count.0 + crate::firing_rate(spikes)? * steps, count.1 + steps);
        Ok(())
    }

    /// Adds what another has counted: of one batch each, one after the other, this is as if all were recorded here.
    pub fn merge(&mut self, other: &Self) {
        for (layer, (spikes, steps)) in &other.counts {
            let count = self.counts.entry(layer.clone()).or_default();
            *count = (count.0 + spikes, count.1 + steps);
        }
    }

    /// The firing rate of each layer so far, by name: the fraction of its neurons' time steps that had a spike.
    #[must_use]
    pub fn rates(&self) -> BTreeMap<String, f64> {
        self.counts.iter().map(|(name, (spikes, steps))| (name.clone(), spikes / steps.max(1.))).collect()
    }
}
