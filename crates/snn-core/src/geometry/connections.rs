//! Which neuron reaches which: the count of a layer's multiplications and of its synaptic operations.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{Axis, ConvConfig, Geometry, Kind};

/// Counts what a layer costs on a map of known size: its multiplications, and the synaptic operations of its spikes.
///
/// Only connections that exist are counted: a spike at the border reaches fewer targets, as on event-driven hardware, and
/// the zeros of a padding are never multiplied. A layer whose inputs all spike once therefore has as many synaptic operations
/// as multiplications.
///
/// # Examples
/// A 3x3 convolution with padding on a 3x3 map: a corner reaches 4 targets, an edge 6, the centre 9.
/// ```
/// # use candle_core::{DType, Device};
/// # use snn_core::{ConvConfig, LifConfig, ParamStore, Seed, SpikingLayer};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::conv(1, 2, ConvConfig::new(3, 1, 1), LifConfig::default(), store.builder())?;
/// let connections = layer.connections([1, 3, 3])?;
/// assert_eq!(connections.macs(), 2. * (4. * 4. + 4. * 6. + 9.));
/// let one_spike_in_a_corner = [1., 0., 0., 0., 0., 0., 0., 0., 0.];
/// assert_eq!(connections.accumulates(&one_spike_in_a_corner), 2. * 4.);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    source_channels: usize,
    /// Channels, rows and columns of the output.
    target: [usize; 3],
    kind: Kind,
    /// Rows and columns.
    axes: [Axis; 2],
}

impl Connections {
    pub(crate) fn of(geometry: &Geometry) -> Self {
        let (kind, target) = (geometry.kind, geometry.output());
        Self { source_channels: geometry.channels.0, target, kind, axes: geometry.axes() }
    }

    /// Those of a linear layer with so many outputs that reads a map `[C, H, W]` flattened: every position reaches all of them.
    #[must_use]
    pub fn of_flattened([channels, h, w]: [usize; 3], outputs: usize) -> Self {
        let (conv, target) = (ConvConfig::new(1, 1, 0), (1, 1));
        let channels = (channels, outputs);
        Self::of(&Geometry { kind: Kind::Conv, conv, kernel: (h, w), channels, source: (h, w), target })
    }

    /// The shape of the layer's output: channels, rows and columns.
    #[must_use]
    pub fn target(&self) -> [usize; 3] {
        self.target
    }

    /// The multiply-accumulates of one pass over real-valued inputs, for one image and one time step: one for each connection.
    #[must_use]
    pub fn macs(&self) -> f64 {
        let pairs = |axis: &Axis| (0..axis.kernel).map(|k| axis.joined(k).len() as f64).sum::<f64>();
        let each = self.axes.iter().map(pairs).product::<f64>();
        self.target[0] as f64 * self.source_channels as f64 * each
    }

    /// The synaptic operations of spikes: one accumulate for each connection of each spike.
    ///
    /// `spikes` holds the number of spikes at each position, row by row, over all channels, and over as many images and time
    /// steps as are to be counted; [`spikes_by_position`] makes it.
    #[must_use]
    pub fn accumulates(&self, spikes: &[f64]) -> f64 {
        let [rows, columns] = &self.axes;
        let width = if self.kind == Kind::Conv { columns.image } else { columns.map }.max(1);
        let reach =
            |position: usize| self.reached(rows, position / width) * self.reached(columns, position % width);
        let each = spikes.iter().enumerate().map(|(position, n)| n * reach(position) as f64);
        self.target[0] as f64 * each.sum::<f64>()
    }

    /// Targets, over all taps, that a source position reaches on one axis.
    fn reached(&self, axis: &Axis, source: usize) -> usize {
        let target = |&k: &usize| match self.kind {
            Kind::Conv => source < axis.image && axis.map_at(source, k).is_some(),
            Kind::Transposed => source < axis.map && axis.image_at(source, k).is_some(),
        };
        (0..axis.kernel).filter(target).count()
    }
}

/// Counts the spikes at each position, summed over time, images and channels, for [`Connections::accumulates`].
///
/// # Shapes
/// `[T, N, C, H, W]` -> `H W` numbers; for linear layers, `[T, N, C]` -> one number.
/// # Errors
/// Returns an error if the rank is neither 5 nor 3.
pub fn spikes_by_position(spikes: &Tensor) -> Result<Vec<f64>> {
    if ![3, 5].contains(&spikes.rank()) {
        bail!("spikes_by_position: wants [T, N, C, H, W] or [T, N, C], not {:?}", spikes.dims())
    }
    let (batch, map) = spikes.dims().split_at(3);
    let shape: [usize; 2] = [batch, map].map(|axes| axes.iter().product());
    let rows = spikes.detach().reshape(&shape)?;
    // A product with ones, which is exact for counts below 2^24: Candle sums rows element by element, at a tenth of the speed.
    let ones = Tensor::ones((1, shape[0]), rows.dtype(), rows.device())?;
    ones.matmul(&rows)?.squeeze(0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LifConfig, ParamStore, Seed, SpikingLayer, conv_transpose2d, conv2d};

    type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

    fn uniform(label: &str, shape: (usize, usize, usize, usize)) -> Result<Tensor> {
        Seed(3).uniform(label, shape, (0., 1.), DType::F64, &Device::Cpu)
    }

    /// A convolution with ones for weights adds one for each connection of each spike.
    #[test]
    fn equals_a_convolution_with_ones() -> TestResult {
        let shapes = [(3, 1, 1, 0), (3, 2, 1, 1), (1, 1, 0, 0), (5, 3, 2, 2), (2, 2, 0, 1), (4, 1, 3, 0)];
        for (i, (kernel, stride, padding, output_padding)) in shapes.into_iter().enumerate() {
            for (h, w) in [(7, 7), (5, 8)] {
                let cfg = ConvConfig::new(kernel, stride, padding);
                let up = cfg.with_output_padding(output_padding);
                let spikes = uniform(&format!("{i}"), (6, 3, h, w))?.lt(0.3)?.to_dtype(DType::F64)?;
                let ones = |shape| Tensor::ones(shape, DType::F64, &Device::Cpu);
                let store = ParamStore::new(Seed(0), DType::F64, &Device::Cpu);
                let lif = LifConfig::default();
                let layers = [
                    SpikingLayer::conv(3, 4, cfg, lif, store.builder().pp("down"))?,
                    SpikingLayer::conv_transpose(3, 4, up, lif, store.builder().pp("up"))?,
                ];
                let sums = [
                    conv2d(&spikes, &ones((4, 3, kernel, kernel))?, &cfg)?,
                    conv_transpose2d(&spikes, &ones((3, 4, kernel, kernel))?, &up)?,
                ];
                let counts = spikes_by_position(&spikes.reshape((2, 3, 3, h, w))?)?;
                for (layer, sum) in layers.iter().zip(&sums) {
                    let connections = layer.connections([3, h, w])?;
                    assert_eq!(
                        connections.accumulates(&counts),
                        sum.sum_all()?.to_scalar::<f64>()?,
                        "{cfg:?}"
                    );
                    assert_eq!(connections.target()[..], sum.dims()[1..]);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn all_inputs_spiking_once_cost_as_much_as_multiplying() -> TestResult {
        let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let lif = LifConfig::default();
        let conv = SpikingLayer::conv(5, 2, ConvConfig::new(3, 2, 1), lif, store.builder().pp("conv"))?;
        let connections = conv.connections([5, 4, 6])?;
        assert_eq!(connections.accumulates(&[5.; 24]), connections.macs());
        // By hand: rows reach 1, 2, 1, 1 outputs at stride 2, columns 1, 2, 1, 2, 1, 1.
        assert_eq!(connections.macs(), 2. * 5. * 5. * 8.);
        let linear = SpikingLayer::linear(7, 3, lif, store.builder().pp("linear"))?;
        assert_eq!(linear.connections([7, 1, 1])?.macs(), 21.);
        assert!(conv.connections([4, 4, 6]).is_err());
        Ok(())
    }
}
