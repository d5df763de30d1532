//! What a chain is told, and what it hands back beside tensors.

use std::sync::Arc;

use candle_core::Tensor;

use crate::LifConfig;
use crate::exchange::Exchange;
use crate::geometry::Geometry;

/// What a layer is, before it meets an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) geometry: Geometry,
    pub(crate) lif: LifConfig,
    /// Whether its time constant is learned: `affines` then have `1/tau` behind the two rows.
    pub(crate) learns: bool,
    pub(crate) scaling: Scaling,
    /// Positions of the map that a linear layer reads flattened, `[C, H, W]` as `[C H W]`; else 1.
    pub(crate) flattened: usize,
}

/// What scales and shifts currents in front of the neurons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    /// Batch norm: `affines` are its weight and bias.
    Batch {
        /// Added to the variance.
        eps: f64,
    },
    /// The affine map itself: `affines` are scale and shift of the currents.
    Fixed,
}

/// What a chain returns, with weights of this type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End<W = f64> {
    /// The last layer's spikes, `[T, N, C, H, W]`.
    Spikes,
    /// Sums of spikes over time, one for each row of weights, `[rows, N, sum of C, H, W]`.
    Sums {
        weights: Vec<Vec<W>>,
        /// The layers whose spikes are summed, side by side in this order: the last, and others with maps of its size.
        of: Vec<usize>,
    },
}

impl End {
    /// With weights in single precision.
    pub(crate) fn single(self) -> End<f32> {
        match self {
            Self::Spikes => End::Spikes,
            Self::Sums { weights, of } => {
                let single = |row: Vec<f64>| row.into_iter().map(|weight| weight as f32).collect();
                End::Sums { weights: weights.into_iter().map(single).collect(), of }
            }
        }
    }
}

/// What [`run`] takes beside tensors.
pub(crate) struct Chain<'a> {
    pub(crate) layers: &'a [Spec],
    /// Time steps of an input that is constant.
    pub(crate) constant: Option<usize>,
    /// Whether the forward pass keeps what the backward pass needs; else that runs forward once more.
    pub(crate) keep: bool,
    pub(crate) end: End,
    /// Who carries statistics, where the batch is one shard of a larger one.
    pub(crate) exchange: Option<Arc<dyn Exchange>>,
}

/// What a chain hands back of a layer that is scaled by its batch: `[C]` each, the variance biased.
#[derive(Debug)]
pub(crate) struct BatchMoments {
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    /// Elements of each channel, copies in time aside.
    pub(crate) count: usize,
}

/// The statistics of one batch, on the CPU.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    /// Elements of each channel, copies in time aside.
    pub(crate) count: f64,
    pub(crate) mean: Vec<f64>,
    /// Biased.
    pub(crate) variance: Vec<f64>,
}
