//! How the kernels of `lif.cu` are launched.

#[cfg(feature = "cuda")]
pub(crate) mod run;

use candle_core::{DType, Layout, Result, bail};

use super::COLUMNS;
use super::neuron::Neuron;
use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, contiguous, shaped, warp_scratch};
use crate::{LifConfig, Surrogate};

const FILE: &str = "ops/lif/cuda/lif.cu";

/// The input current of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) layout: &'a Layout,
    /// Time steps, where the input has no time axis.
    pub(crate) constant: Option<usize>,
    /// Whether `1/tau` is learned: the kernels of parametric LIF, which take `w`.
    pub(crate) learned: bool,
}

impl Current<'_> {
    fn kernel(&self, pass: &str) -> String {
        format!("{}lif_{pass}", if self.learned { "p" } else { "" })
    }

    /// Time steps and neurons.
    fn sizes(&self, kernel: &str) -> Result<(usize, usize)> {
        contiguous(kernel, "xs", self.layout)?;
        match (self.constant, self.layout.dims()) {
            (Some(steps), dims) => Ok((steps, dims.iter().product())),
            (None, [steps, dims @ ..]) => Ok((*steps, dims.iter().product())),
            (None, []) => bail!("{kernel}: wants [T, ...], got a scalar"),
        }
    }

    /// The shape of the spikes.
    fn spikes(&self) -> Vec<usize> {
        let time: Vec<usize> = self.constant.into_iter().collect();
        [&time, self.layout.dims()].concat()
    }

    fn finish<F: Real>(
        self,
        launch: Launch,
        cfg: &LifConfig,
        steps: usize,
        neurons: usize,
    ) -> Result<Launch> {
        let launch = launch.count(neurons).int("the number of time steps", steps)?;
        let launch = launch.int("constant", self.constant.is_some().into())?;
        Ok(record::<F>(launch, cfg))
    }
}

/// `(xs, [w,] spikes)`
pub(crate) fn forward<F: Real>(cfg: &LifConfig, xs: Current<'_>) -> Result<Launch> {
    let kernel = xs.kernel("forward");
    let (steps, neurons) = xs.sizes(&kernel)?;
    let mut launch = Launch::new(FILE, &kernel, F::DTYPE, neurons, |_| 0)?;
    launch = launch.operand("xs", xs.layout.shape().elem_count(), F::DTYPE);
    if xs.learned {
        launch = launch.operand("w", 1, F::DTYPE);
    }
    launch = launch.operand("spikes", steps * neurons, F::DTYPE);
    xs.finish::<F>(launch, cfg, steps, neurons)
}

/// `(xs, [w,] grad_spikes, grad_xs [, parts])`: with a learned `1/tau`, [`weight_gradient`] adds the parts.
pub(crate) fn backward<F: Real>(cfg: &LifConfig, xs: Current<'_>, grad_spikes: &Layout) -> Result<Launch> {
    let kernel = xs.kernel("backward");
    let (steps, neurons) = xs.sizes(&kernel)?;
    shaped(&kernel, "grad_spikes", grad_spikes, &xs.spikes())?;
    let (inputs, size) = (xs.layout.shape().elem_count(), F::DTYPE.size_in_bytes());
    let scratch = |block| if xs.learned { warp_scratch(block) } else { 0 };
    let shared = |block| scratch(block) + COLUMNS * steps * block * size;
    let mut launch = Launch::new(FILE, &kernel, F::DTYPE, neurons, shared)?;
    launch = launch.operand("xs", inputs, F::DTYPE);
    if xs.learned {
        launch = launch.operand("w", 1, F::DTYPE);
    }
    launch = launch.operand("grad_spikes", steps * neurons, F::DTYPE).operand("grad_xs", inputs, F::DTYPE);
    if xs.learned {
        let parts = launch.grid as usize;
        launch = launch.operand("parts", parts, DType::F64);
    }
    xs.finish::<F>(launch, cfg, steps, neurons)
}

/// `(parts, w, grad_w)`, in one block.
pub(crate) fn weight_gradient<F: Real>(parts: usize) -> Result<Launch> {
    let launch = Launch::new(FILE, "plif_weight_gradient", F::DTYPE, 1, warp_scratch)?;
    let launch = launch.operand("parts", parts, DType::F64).operand("w", 1, F::DTYPE);
    launch.operand("grad_w", 1, F::DTYPE).int("the number of parts", parts)
}

/// The kernel's `Neuron`: its numbers and its flags.
pub(crate) fn record<F: Real>(launch: Launch, cfg: &LifConfig) -> Launch {
    let (n, surrogate) = (Neuron::<F>::new(cfg), &cfg.surrogate);
    // As `Surrogate::derivative_of` rounds them.
    let (kind, a, b) = match *surrogate {
        Surrogate::Atan { alpha } => (0, std::f64::consts::FRAC_PI_2 * alpha, alpha / 2.),
        Surrogate::Sigmoid { alpha } => (1, -alpha, alpha),
        Surrogate::Rectangle { width } => (2, width / 2., 1. / width),
        Surrogate::Triangle { width } => (3, width, 0.),
        Surrogate::Gaussian { sigma } => (4, sigma, 1. / (sigma * std::f64::consts::TAU.sqrt())),
        Surrogate::Window { width, height, .. } => (5, width / 2., height),
    };
    let [a, b] = [a, b].map(F::from_f64);
    let numbers = [
        n.leak,
        n.drive,
        n.rest,
        n.tau,
        n.threshold,
        n.fires_from,
        n.origin,
        n.clears,
        n.jump,
        n.v_reset,
        n.through_reset,
        a,
        b,
    ];
    launch.record(&numbers, &[n.divides.into(), n.decay_input.into(), n.hard.into(), kind])
}
