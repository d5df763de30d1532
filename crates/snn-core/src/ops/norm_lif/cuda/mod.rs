//! How the kernels of `norm_lif.cu` are launched.

#[cfg(feature = "cuda")]
pub(crate) mod run;

use candle_core::{DType, Layout, Result};

use super::Sequence;
use crate::ops::Real;
use crate::ops::batch_norm::cuda::Planes;
use crate::ops::cuda::launch::{Launch, shaped};
use crate::ops::lif::COLUMNS;
use crate::ops::lif::cuda::record;

const FILE: &str = "ops/norm_lif/cuda/norm_lif.cu";

/// The currents of a launch, and the neurons that they drive.
#[derive(Clone, Debug)]
pub(crate) struct Currents<'a> {
    sequence: &'a Sequence,
    /// The shape of the spikes.
    spikes: Vec<usize>,
    /// Cut into as many parts as the neurons are: what [`Planes::gradients`] takes behind [`backward`](Self::backward).
    pub(crate) planes: Planes,
    neurons: Planes,
}

impl<'a> Currents<'a> {
    /// The error names the kernel, and `xs`.
    pub(crate) fn new(kernel: &str, xs: &Layout, sequence: &'a Sequence) -> Result<Self> {
        let planes = Planes::new(kernel, "xs", xs)?;
        let spikes = sequence.spikes(xs.dims())?;
        let steps = if sequence.constant { 1 } else { sequence.steps };
        let (planes, neurons) = planes.of_neurons(steps);
        Ok(Self { sequence, spikes, planes, neurons })
    }

    /// Elements of the spikes.
    pub(crate) fn elements(&self) -> usize {
        self.spikes.iter().product()
    }

    fn steps(&self, launch: Launch) -> Result<Launch> {
        let launch = launch.int("the number of time steps", self.sequence.steps)?;
        launch.int("constant", self.sequence.constant.into())
    }

    /// `(xs, by, spikes)`
    pub(crate) fn forward<F: Real>(&self) -> Result<Launch> {
        let launch = Launch::new(FILE, "norm_lif_forward", F::DTYPE, self.neurons.all(), |_| 0)?
            .operand("xs", self.planes.all(), F::DTYPE)
            .operand("by", 3 * self.planes.channels, F::DTYPE)
            .operand("spikes", self.elements(), F::DTYPE);
        let launch = self.neurons.map(self.steps(launch.count(self.neurons.all()))?)?;
        Ok(record::<F>(launch, &self.sequence.lif))
    }

    /// `(xs, by, grad_spikes, grads, parts)`: the gradients of the normalised currents, or with `fixed`, where no statistics depend on
    /// them, of the currents.
    pub(crate) fn backward<F: Real>(&self, fixed: bool, grad_spikes: &Layout) -> Result<Launch> {
        let (kernel, c, size) = ("norm_lif_backward", self.planes.channels, F::DTYPE.size_in_bytes());
        shaped(kernel, "grad_spikes", grad_spikes, &self.spikes)?;
        let columns = |block| COLUMNS * self.sequence.steps * block * size;
        let shared = |block| self.neurons.scratch(block) + columns(block);
        let launch = Launch::new(FILE, kernel, F::DTYPE, self.neurons.threads(), shared)?
            .operand("xs", self.planes.all(), F::DTYPE)
            .operand("by", 3 * c, F::DTYPE)
            .operand("grad_spikes", self.elements(), F::DTYPE)
            .operand("grads", self.planes.all(), F::DTYPE)
            .operand("parts", self.planes.sums(), DType::F64);
        let launch = self.steps(self.neurons.record(launch))?.int("fixed", fixed.into())?;
        Ok(record::<F>(launch, &self.sequence.lif))
    }
}
