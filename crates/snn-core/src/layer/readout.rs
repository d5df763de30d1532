//! The last layer: a synapse whose output is summed over time.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::synapse::{Map, Synapse, add_to_channels};
use crate::ops::conv::{check, conv2d_at, pick_positions};
use crate::{Connections, ConvConfig, Readout};

/// Makes numbers of spikes, as the last layer of a network: a synapse without neurons, its output summed over time by a [`Readout`].
///
/// The read-out is linear, so the *spikes* are summed first and the synapse runs once; its bias counts once for
/// every unit of weight. Parameters: `weight`, `bias`.
///
/// # Shapes
/// `[T, N, C_in, H, W]` -> `[N, C_out, H', W']`; for linear layers `[T, N, C_in]` -> `[N, C_out]`.
#[derive(Clone, Debug)]
pub struct ReadoutLayer {
    synapse: Synapse,
    readout: Readout,
}

impl ReadoutLayer {
    /// Makes a convolution.
    ///
    /// # Errors
    /// Returns an error, with the field and its value, if `cfg` or `readout` does not [validate](Readout::validate) or there
    /// are no channels; and if `vb` lacks parameters or holds them in other shapes.
    pub fn conv(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        readout: Readout,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        readout.validate("readout")?;
        Ok(Self { synapse: Synapse::conv(c_in, c_out, cfg, &vb)?, readout })
    }

    /// Makes a transposed convolution.
    ///
    /// # Errors
    /// Returns the errors of [`conv`](Self::conv).
    pub fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        readout: Readout,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        readout.validate("readout")?;
        Ok(Self { synapse: Synapse::conv_transpose(c_in, c_out, cfg, &vb)?, readout })
    }

    /// Makes a linear map, such as the logits of a classifier.
    ///
    /// # Errors
    /// Returns the errors of [`conv`](Self::conv).
    pub fn linear(c_in: usize, c_out: usize, readout: Readout, vb: VarBuilder<'_>) -> Result<Self> {
        readout.validate("readout")?;
        Ok(Self { synapse: Synapse::linear(c_in, c_out, &vb)?, readout })
    }

    /// Returns the same layer for inference, with its parameters outside the graph: what it makes has no gradients in them.
    #[must_use]
    pub fn detached(&self) -> Self {
        let Synapse { map, weight, bias } = self.synapse.clone();
        Self { synapse: Synapse { map, weight: weight.detach(), bias: bias.detach() }, readout: self.readout }
    }

    /// Computes the read-out of the synapse's output.
    ///
    /// # Shapes
    /// `spikes: [T, N, C_in, H, W]` -> `[N, C_out, H', W']`; for linear layers `[T, N, C_in]` -> `[N, C_out]`.
    /// # Errors
    /// Returns an error if shapes or element types do not fit, or if there are no time steps.
    pub fn forward(&self, spikes: &Tensor) -> Result<Tensor> {
        self.forward_cat(&[spikes])
    }

    /// Computes [`forward`](Self::forward) of several spike trains side by side, concatenated by channel after the sum.
    ///
    /// # Shapes
    /// `[T, N, C_i, H, W]` each, the `C_i` adding up to `C_in` -> `[N, C_out, H', W']`; for linear layers `[T, N, C_i]` each
    /// -> `[N, C_out]`.
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward), and an error if there are no trains or if they differ in length.
    pub fn forward_cat(&self, spikes: &[&Tensor]) -> Result<Tensor> {
        let time_steps = spikes.first().map_or(Ok(0), |s| s.dim(0))?;
        if spikes.iter().any(|s| s.dims().first() != Some(&time_steps)) {
            bail!("read-out of spike trains of unequal length")
        }
        let sums = spikes.iter().map(|s| self.readout.apply(s)).collect::<Result<Vec<_>>>()?;
        self.forward_sums(&sums, time_steps)
    }

    /// Computes the same of trains that have been summed already, by [`SpikingStack::readout`](crate::SpikingStack::readout) with
    /// this layer's [`readout`](Self::readout).
    ///
    /// # Shapes
    /// `[N, C_i, H, W]` each, the `C_i` adding up to `C_in` -> `[N, C_out, H', W']`; for linear layers `[N, C_i]` each ->
    /// `[N, C_out]`.
    /// # Errors
    /// Returns an error if there are no sums or no time steps, or if shapes or element types do not fit.
    pub fn forward_sums(&self, sums: &[Tensor], time_steps: usize) -> Result<Tensor> {
        let ys = self.synapse.apply(&self.join(sums)?, &self.synapse.weight)?;
        add_to_channels(&ys, &self.bias(time_steps)?)
    }

    /// Sums side by side, if the synapse can read them.
    fn join(&self, sums: &[Tensor]) -> Result<Tensor> {
        let (rank, wanted) = match self.synapse.map {
            Map::Linear => (2, "[N, C]"),
            _ => (4, "[N, C, H, W]"),
        };
        for (i, sum) in sums.iter().enumerate() {
            self.synapse.check_type("read-out", &format!("sum {i}"), sum)?;
            if sum.rank() != rank {
                bail!("read-out: sum {i} is {:?}, its synapse wants {wanted}", sum.dims())
            }
        }
        Tensor::cat(sums, 1)
    }

    /// The bias, once for every unit of weight.
    fn bias(&self, time_steps: usize) -> Result<Tensor> {
        if time_steps == 0 {
            bail!("read-out of no time steps")
        }
        &self.synapse.bias * self.readout.weights(time_steps)?.iter().sum::<f64>()
    }

    /// Computes [`forward_sums`](Self::forward_sums) at some positions of each item's output.
    ///
    /// # Shapes
    /// Sums as there, `positions[n]` those of item `n`, counted row by row -> `[all positions, C_out]`, item by item. A
    /// linear layer's output has one position, 0.
    /// # Errors
    /// Returns the same errors, and an error if there is not one list for each item or if a position lies outside the map.
    pub fn forward_sums_at(
        &self,
        sums: &[Tensor],
        time_steps: usize,
        positions: &[Vec<u32>],
    ) -> Result<Tensor> {
        let Map::Conv(cfg) = &self.synapse.map else {
            return pick_positions(&self.forward_sums(sums, time_steps)?, positions);
        };
        let ys = conv2d_at(&self.join(sums)?, &self.synapse.weight, cfg, positions)?;
        let bias = self.bias(time_steps)?;
        if !bias.track_op() {
            return ys.broadcast_add(&bias);
        }
        // As a product with ones, whose gradient Candle sums many times as fast as that of a broadcast along the first axis.
        let ones = Tensor::ones((ys.dim(0)?, 1), ys.dtype(), ys.device())?;
        ys + ones.matmul(&bias.unsqueeze(0)?)?
    }

    /// Finds the positions of its input, a map of these rows and columns (a linear layer has one of each), that some positions of
    /// its output depend on; ascending, item by item.
    ///
    /// # Errors
    /// Returns an error if the map does not fit the synapse or its positions cannot be counted in 32 bits, or if a position
    /// lies outside the output.
    pub fn reach(&self, map: (usize, usize), positions: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
        let geometry = self.synapse.geometry([self.synapse.source_channels()?, map.0, map.1])?;
        geometry.check_countable()?;
        check(positions, positions.len(), geometry.target.0, geometry.target.1)?;
        Ok(positions.iter().map(|positions| geometry.sources(positions)).collect())
    }

    /// Whether it reads maps `[C, H, W]`, and not features `[C]`.
    pub(super) fn reads_maps(&self) -> bool {
        !matches!(self.synapse.map, Map::Linear)
    }

    /// Returns how it sums over time.
    #[must_use]
    pub fn readout(&self) -> Readout {
        self.readout
    }

    /// Counts its connections on a map of `source`: channels, rows, columns (a linear layer has one row and one column).
    ///
    /// # Errors
    /// Returns an error if the map does not fit.
    pub fn connections(&self, source: [usize; 3]) -> Result<Connections> {
        self.synapse.connections(source)
    }
}
