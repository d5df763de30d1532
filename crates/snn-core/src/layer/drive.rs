//! What goes into layers, and what comes out.

use candle_core::{Result, Tensor, bail};

use crate::Readout;
use crate::ops::chain::End;

/// Says what drives the first layer.
#[derive(Clone, Copy, Debug)]
pub enum Drive<'a> {
    /// Spikes, or any values, `[T, N, C, H, W]`; `[T, N, C]` in front of linear layers.
    Spikes(&'a Tensor),
    /// The same values at each of so many time steps, `[N, C, H, W]` or `[N, C]` (direct encoding).
    Constant(&'a Tensor, usize),
}

/// What comes out behind the last layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finish<'a> {
    Spikes,
    /// `[readouts, N, C, H, W]`
    Sums(&'a [Readout]),
}

impl Finish<'_> {
    pub(crate) fn end(self, time_steps: usize) -> Result<End> {
        match self {
            Self::Spikes => Ok(End::Spikes),
            Self::Sums([]) => bail!("no read-outs"),
            Self::Sums(readouts) => {
                let row = |r: &Readout| Ok(r.weights(time_steps)?.into_iter().map(|w| w as f32).collect());
                Ok(End::Sums(readouts.iter().map(row).collect::<Result<_>>()?))
            }
        }
    }
}

impl Drive<'_> {
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Self::Spikes(xs) | Self::Constant(xs, _) => xs,
        }
    }

    /// `[C, H, W]`, or `[C]` in front of linear layers.
    pub(crate) fn map(&self) -> &[usize] {
        let dims = self.tensor().dims();
        &dims[self.batch_axes().min(dims.len())..]
    }

    pub(crate) fn time_steps(&self) -> Result<usize> {
        match self {
            Self::Spikes(xs) => xs.dim(0),
            Self::Constant(_, time_steps) => Ok(*time_steps),
        }
    }

    /// The time steps of a constant.
    pub(crate) fn constant(&self) -> Option<usize> {
        match self {
            Self::Spikes(_) => None,
            Self::Constant(_, time_steps) => Some(*time_steps),
        }
    }

    pub(crate) fn items(&self) -> Result<usize> {
        self.tensor().dim(self.batch_axes() - 1)
    }

    /// Axes in front of the channels.
    fn batch_axes(&self) -> usize {
        match self {
            Self::Spikes(_) => 2,
            Self::Constant(..) => 1,
        }
    }
}
