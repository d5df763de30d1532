//! What goes into layers, and what comes out.

use candle_core::{Result, Tensor, bail};

use crate::Readout;
use crate::ops::chain::End;

/// The input of a layer or a network: a sequence, or one tensor that is repeated at every time step.
///
/// # Shapes
/// With `T` time steps and `N` items in the batch, `Spikes` holds `[T, N, C, H, W]` (`[T, N, C]` in front of linear layers);
/// `Constant(x, T)` holds `[N, C, H, W]` (`[N, C]`) and stands for `T` copies of it (direct encoding, section 2.2), which are never made.
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
    /// The sums of several layers side by side, `[1, N, sum of C, H, W]`.
    SumsOf(Readout, &'a [usize]),
}

impl Finish<'_> {
    /// The same of a chain of so many layers.
    pub(crate) fn end(self, time_steps: usize, layers: usize) -> Result<End> {
        match self {
            Self::Spikes => Ok(End::Spikes),
            Self::Sums([]) => bail!("no read-outs"),
            Self::Sums(readouts) => {
                let weights =
                    readouts.iter().map(|readout| readout.weights(time_steps)).collect::<Result<_>>()?;
                Ok(End::Sums { weights, of: vec![layers.saturating_sub(1)] })
            }
            Self::SumsOf(readout, of) => {
                Ok(End::Sums { weights: vec![readout.weights(time_steps)?], of: of.to_vec() })
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

    /// The same of another tensor.
    pub(crate) fn with<'b>(&self, tensor: &'b Tensor) -> Drive<'b> {
        match self {
            Self::Spikes(_) => Drive::Spikes(tensor),
            Self::Constant(_, time_steps) => Drive::Constant(tensor, *time_steps),
        }
    }

    /// Its tensor with maps `[C, H, W]` as `[C H W]`.
    pub(crate) fn flattened(&self) -> Result<Tensor> {
        self.tensor().flatten_from(self.batch_axes())
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
