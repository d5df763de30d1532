//! Synaptic operations of a trained network beside the multiplications of the same network without spikes, and what both
//! would cost: a proxy that counts arithmetic alone.

use serde::{Deserialize, Serialize};

/// Picojoules of a 32-bit floating point multiply-accumulate, 45 nm (Horowitz, ISSCC 2014: 3.7 + 0.9).
pub const MAC_PICOJOULES: f64 = 4.6;
/// Picojoules of a 32-bit floating point addition, 45 nm (the same source).
pub const AC_PICOJOULES: f64 = 0.9;

/// What is counted, in words.
pub const PROTOCOL: &str = "A compute-only proxy: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate (32-bit floating \
    point, 45 nm, Horowitz 2014). Spiking: one accumulate for each connection of each spike, over all time steps; layers \
    that read real numbers, constant in time, multiply once. Without spikes: the same layers, one multiply-accumulate a \
    connection, one pass, no time steps. Connections into the zeros of a padding do not exist and are not counted on either \
    side. Not counted: memory traffic (which dominates on real hardware), membrane updates, batch norms (folded into the \
    weights), the codebook's search.";

/// Counts the operations and the energy of a piece of work on one image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of the network without spikes.
    pub dense_macs: f64,
    /// Multiply-accumulates of the spiking network (its layers with real-valued input).
    pub macs: f64,
    /// Accumulates of the spiking network.
    pub accumulates: f64,
    /// Energy of the network without spikes, in nanojoules.
    pub dense_nanojoules: f64,
    /// Energy of the spiking network, in nanojoules.
    pub nanojoules: f64,
}

impl Cost {
    pub(crate) fn new(dense_macs: f64, macs: f64, accumulates: f64) -> Self {
        let dense_nanojoules = MAC_PICOJOULES * dense_macs / 1e3;
        let nanojoules = (MAC_PICOJOULES * macs + AC_PICOJOULES * accumulates) / 1e3;
        Self { dense_macs, macs, accumulates, dense_nanojoules, nanojoules }
    }

    /// Returns how many times the energy of the spiking network the other one needs.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.dense_nanojoules / self.nanojoules
    }

    /// `times` times this and `other`.
    pub(crate) fn times_plus(&self, times: f64, other: &Self) -> Self {
        Self::new(
            times * self.dense_macs + other.dense_macs,
            times * self.macs + other.macs,
            times * self.accumulates + other.accumulates,
        )
    }
}

/// Names one line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// A layer, or a piece of work.
    pub name: String,
    /// Its operations, for one image (a layer of the denoiser: one pass).
    #[serde(flatten)]
    pub cost: Cost,
}

/// Compares a spiking network with the same one without spikes, layer by layer and in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// Every layer, in the order of the forward pass.
    pub layers: Vec<Line>,
    /// Sums: reconstructing an image, one pass of the denoiser, generating an image.
    pub work: Vec<Line>,
}
