//! How the kernels of `batch_norm.cu` are launched.

#[cfg(feature = "cuda")]
pub(crate) mod run;

use candle_core::{DType, Layout, Result, bail};

use crate::ops::Real;
use crate::ops::cuda::launch::{Launch, MAX_BLOCK, contiguous, warp_scratch};

const FILE: &str = "ops/batch_norm/cuda/batch_norm.cu";
/// Elements that a block adds up at least, where a channel has so many.
const SHARE: usize = 8192;
/// Channels that a block goes through at once, where they lie side by side, at most; a warp.
const WIDTH: usize = 32;
/// Parts of a channel at most: one warp adds them.
const PARTS: usize = 512;

/// `[M, C, ...]`, how the kernels cut it: their `Planes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) channels: usize,
    size: usize,
    /// Of a channel.
    elements: usize,
    parts: usize,
    share: usize,
    /// A power of two.
    width: usize,
}

impl Planes {
    /// The error names the operand.
    pub(crate) fn new(kernel: &str, name: &str, layout: &Layout) -> Result<Self> {
        contiguous(kernel, name, layout)?;
        let [items, channels, map @ ..] = layout.dims() else {
            bail!("{kernel}: {name} of shape {:?} has no channels", layout.dims())
        };
        let size = map.iter().product::<usize>();
        let elements = items * size;
        let width = if size == 1 { channels.next_power_of_two().min(WIDTH) } else { 1 };
        let parts = elements.div_ceil(SHARE / width).clamp(1, PARTS);
        let (channels, share) = (*channels, elements.div_ceil(parts));
        // A part may end behind the last element.
        if share.saturating_mul(parts).max(channels) > i32::MAX as usize {
            bail!(
                "{kernel}: {name} of shape {:?} has more elements in a channel than 32 bits count",
                layout.dims()
            )
        }
        Ok(Self { channels, size, elements, parts, share, width })
    }

    /// These currents of neurons, and the neurons, `steps` currents each: both in the same parts, as small as keep a block busy.
    pub(crate) fn of_neurons(self, steps: usize) -> (Self, Self) {
        let neurons = self.elements / steps.max(1);
        let parts = neurons.div_ceil(MAX_BLOCK / self.width).clamp(1, PARTS);
        let cut = |elements: usize| Self { elements, parts, share: elements.div_ceil(parts), ..self };
        (cut(self.elements), cut(neurons))
    }

    /// This shard's sums of [`gradient_sums`](Self::gradient_sums): `[C, 2]`, the parts of [`of_all`](Self::of_all).
    pub(crate) fn total(self, parts: &[f64]) -> Vec<f64> {
        let add = |[first, second]: [f64; 2], part: &[f64; 2]| [first + part[0], second + part[1]];
        let (pairs, _) = parts.as_chunks::<2>();
        pairs.chunks(self.parts).flat_map(|channel| channel.iter().fold([0., 0.], add)).collect()
    }

    /// All shards of a batch, with so many elements a channel, as one part: for [`gradients`](Self::gradients) alone.
    pub(crate) fn of_all(self, elements: usize) -> Result<Self> {
        if elements > i32::MAX as usize {
            bail!("norm_gradients: {elements} elements in a channel of all shards: more than 32 bits count")
        }
        Ok(Self { elements, parts: 1, share: elements, ..self })
    }

    /// The kernels' `Planes`.
    pub(crate) fn record(self, launch: Launch) -> Launch {
        let Self { channels, size, elements, parts, share, width } = self;
        // Checked above.
        launch.record::<f64>(&[], &[channels, size, elements, parts, share, width].map(|n| n as i32))
    }

    /// Sums of two quantities for each part of each channel.
    pub(crate) fn sums(self) -> usize {
        2 * self.channels * self.parts
    }

    pub(crate) fn all(self) -> usize {
        self.channels * self.elements
    }

    /// The threads of a launch with a block for each part of the channels that it goes through at once.
    pub(crate) fn threads(self) -> usize {
        MAX_BLOCK * self.channels.div_ceil(self.width) * self.parts
    }

    /// The shared memory in which a block of so many threads adds.
    pub(crate) fn scratch(self, block: usize) -> usize {
        warp_scratch(block) * self.width
    }

    /// A warp for each channel.
    fn by_channel<F: Real>(self, kernel: &str) -> Result<Launch> {
        Launch::new(FILE, kernel, F::DTYPE, self.channels * WIDTH, |_| 0)
    }

    fn by_part<F: Real>(self, kernel: &str) -> Result<Launch> {
        Launch::new(FILE, kernel, F::DTYPE, self.threads(), |block| self.scratch(block))
    }

    /// `(xs, parts)`
    pub(crate) fn sum<F: Real>(self) -> Result<Launch> {
        let launch = self.by_part::<F>("norm_sums")?.operand("xs", self.all(), F::DTYPE);
        Ok(self.record(launch.operand("parts", self.sums(), DType::F64)))
    }

    /// `(xs, parts, moments)`, of which the last is `[2, C]`.
    pub(crate) fn moments<F: Real>(self) -> Result<Launch> {
        let launch = self.by_channel::<F>("norm_moments")?;
        let launch = launch.operand("xs", self.all(), F::DTYPE).operand("parts", self.sums(), DType::F64);
        Ok(self.record(launch.operand("moments", 2 * self.channels, DType::F64)))
    }

    /// `(moments, weight, bias, by)`, of which the last is `[C, 3]`.
    pub(crate) fn coefficients<F: Real>(self, eps: f64) -> Result<Launch> {
        let c = self.channels;
        let launch = Launch::new(FILE, "norm_coefficients", F::DTYPE, c, |_| 0)?
            .operand("moments", 2 * c, DType::F64)
            .operand("weight", c, F::DTYPE)
            .operand("bias", c, F::DTYPE)
            .operand("by", 3 * c, F::DTYPE);
        Ok(launch.int("the number of channels", c)?.record(&[eps], &[]))
    }

    /// `(xs, by, ys)`
    pub(crate) fn affine<F: Real>(self) -> Result<Launch> {
        let launch = Launch::new(FILE, "norm_affine", F::DTYPE, self.all(), |_| 0)?
            .operand("xs", self.all(), F::DTYPE)
            .operand("by", 3 * self.channels, F::DTYPE)
            .operand("ys", self.all(), F::DTYPE);
        self.sizes(launch)
    }

    /// `(xs, grad, moments, parts)`
    pub(crate) fn gradient_sums<F: Real>(self) -> Result<Launch> {
        let launch = self.by_part::<F>("norm_gradient_sums")?.operand("xs", self.all(), F::DTYPE);
        let launch =
            launch.operand("grad", self.all(), F::DTYPE).operand("moments", 2 * self.channels, DType::F64);
        Ok(self.record(launch.operand("parts", self.sums(), DType::F64)))
    }

    /// `(parts, moments, weight, grads, by)`, of which the last two are `[2, C]` and `[C, 4]`.
    pub(crate) fn gradients<F: Real>(self, eps: f64) -> Result<Launch> {
        let c = self.channels;
        let launch = self
            .by_channel::<F>("norm_gradients")?
            .operand("parts", self.sums(), DType::F64)
            .operand("moments", 2 * c, DType::F64)
            .operand("weight", c, F::DTYPE)
            .operand("grads", 2 * c, F::DTYPE)
            .operand("by", 4 * c, F::DTYPE);
        Ok(self.record(launch).record(&[eps], &[]))
    }

    /// `(xs, grad, by, ys)`
    pub(crate) fn input_gradient<F: Real>(self) -> Result<Launch> {
        let launch = Launch::new(FILE, "norm_input_gradient", F::DTYPE, self.all(), |_| 0)?
            .operand("xs", self.all(), F::DTYPE)
            .operand("grad", self.all(), F::DTYPE)
            .operand("by", 4 * self.channels, F::DTYPE)
            .operand("ys", self.all(), F::DTYPE);
        self.sizes(launch)
    }

    fn sizes(self, launch: Launch) -> Result<Launch> {
        self.map(launch.count(self.all()))
    }

    /// The size of a map and the number of channels.
    pub(crate) fn map(self, launch: Launch) -> Result<Launch> {
        launch.int("the size of a map", self.size)?.int("the number of channels", self.channels)
    }
}
