//! Convolution, batch norm and ReLU as blocks of matrix products.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::graph::ConvSpec;
use super::map::Map;
use super::weights::InceptionWeights;
use crate::Result;

/// Added to the running variance.
const EPSILON: f64 = 1e-3;
/// Values of a block of input windows, a quarter of a second-level cache or so.
const BLOCK_VALUES: usize = 1 << 17;
/// Output pixels of a block, at least and at most.
const BLOCK_PIXELS: [usize; 2] = [96, 2048];

/// `y = max(0, W x + b)` for the window `x` of each output pixel.
///
/// Batch norm is in the weights: `W = w g / sqrt(v + 1e-3)`, `b = beta - m g / sqrt(v + 1e-3)`.
pub(crate) struct Conv {
    spec: ConvSpec,
    /// `[kernel height, kernel width, inputs, outputs]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Conv {
    pub(crate) fn load(spec: ConvSpec, weights: &InceptionWeights) -> Result<Self> {
        let [height, width] = spec.kernel;
        let kernel = weights
            .get(&format!("{}.conv.weight", spec.name), &[spec.outputs, spec.inputs, height, width])?;
        let norm = |field: &str| weights.get(&format!("{}.bn.{field}", spec.name), &[spec.outputs]);
        let (gain, beta) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        let scale: Vec<f64> = gain
            .iter()
            .zip(&variance)
            .map(|(g, v)| f64::from(*g) / (f64::from(*v) + EPSILON).sqrt())
            .collect();
        let shift = |o: usize| (f64::from(beta[o]) - f64::from(mean[o]) * scale[o]) as f32;
        let bias = (0..spec.outputs).map(shift).collect();
        let weights = channels_last(&kernel, &spec, &scale);
        Ok(Self { spec, weights, bias })
    }

    pub(crate) fn forward(&self, input: &Map) -> Map {
        let [height, width] = self.output_size(input);
        let mut out = Map::zeros(height, width, self.spec.outputs);
        let depth = self.window_len();
        let pixels = (BLOCK_VALUES / depth).clamp(BLOCK_PIXELS[0], BLOCK_PIXELS[1]);
        let blocks = out.values.par_chunks_mut(pixels * self.spec.outputs).enumerate();
        blocks.for_each_init(Vec::new, |windows, (block, out)| {
            let (start, len) = (block * pixels, out.len() / self.spec.outputs);
            if self.is_pointwise() {
                self.product(&input.values[start * depth..(start + len) * depth], out);
            } else {
                self.gather(input, width, start..start + len, windows);
                self.product(windows, out);
            }
            self.activate(out);
        });
        out
    }

    fn output_size(&self, input: &Map) -> [usize; 2] {
        let size = |side: usize, axis: usize| {
            (side + 2 * self.spec.padding[axis]).saturating_sub(self.spec.kernel[axis]) / self.spec.stride + 1
        };
        [size(input.height, 0), size(input.width, 1)]
    }

    fn window_len(&self) -> usize {
        self.spec.kernel[0] * self.spec.kernel[1] * self.spec.inputs
    }

    fn is_pointwise(&self) -> bool {
        self.spec.kernel == [1, 1] && self.spec.stride == 1
    }

    /// `windows [pixels, window]` times `weights [window, outputs]` into `out [pixels, outputs]`.
    fn product(&self, windows: &[f32], out: &mut [f32]) {
        let (depth, outputs) = (self.window_len(), self.spec.outputs);
        let pixels = out.len() / outputs;
        let weights = MatRef::from_column_major_slice(&self.weights, outputs, depth);
        let windows = MatRef::from_column_major_slice(windows, depth, pixels);
        let out = MatMut::from_column_major_slice_mut(out, outputs, pixels);
        matmul(out, Accum::Replace, weights, windows, 1.0, Par::Seq);
    }

    /// The windows of the output pixels `range`, one after the other; zeros outside the image.
    fn gather(&self, input: &Map, width: usize, range: std::ops::Range<usize>, windows: &mut Vec<f32>) {
        windows.clear();
        let stride = self.spec.stride;
        for at in range {
            let (top, left) = (at / width * stride, at % width * stride);
            for row in 0..self.spec.kernel[0] {
                match (top + row).checked_sub(self.spec.padding[0]).filter(|y| *y < input.height) {
                    Some(y) => self.gather_row(input, y, left, windows),
                    None => push_zeros(windows, self.spec.kernel[1] * self.spec.inputs),
                }
            }
        }
    }

    /// One row of a window that starts `padding` columns left of `left`.
    fn gather_row(&self, input: &Map, y: usize, left: usize, windows: &mut Vec<f32>) {
        let (padding, kernel, channels) = (self.spec.padding[1], self.spec.kernel[1], input.channels);
        let before = padding.saturating_sub(left).min(kernel);
        let (first, end) =
            (left + before - padding.min(left + before), (left + kernel).saturating_sub(padding));
        let end = end.min(input.width);
        let line = y * input.width;
        push_zeros(windows, before * channels);
        windows.extend_from_slice(&input.values[(line + first) * channels..(line + end) * channels]);
        push_zeros(windows, (kernel - before - (end - first)) * channels);
    }

    fn activate(&self, out: &mut [f32]) {
        for pixel in out.chunks_exact_mut(self.spec.outputs) {
            pixel.iter_mut().zip(&self.bias).for_each(|(y, b)| *y = (*y + b).max(0.0));
        }
    }
}

fn push_zeros(values: &mut Vec<f32>, count: usize) {
    values.resize(values.len() + count, 0.0);
}

/// `[outputs, inputs, height, width]` times `scale [outputs]` -> `[height, width, inputs, outputs]`.
fn channels_last(kernel: &[f32], spec: &ConvSpec, scale: &[f64]) -> Vec<f32> {
    let (outputs, inputs, area) = (spec.outputs, spec.inputs, spec.kernel[0] * spec.kernel[1]);
    let mut out = vec![0.0; kernel.len()];
    for (at, value) in kernel.iter().enumerate() {
        let (output, input, position) = (at / (inputs * area), at / area % inputs, at % area);
        out[(position * inputs + input) * outputs + output] = (f64::from(*value) * scale[output]) as f32;
    }
    out
}
