//! The network: convolutions 4 x 4 of stride 2, written as matrix products of patches, and two dense layers.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::ClassifierCard;

/// Channels after the first, the second, and every further convolution.
const CHANNELS: [usize; 3] = [32, 64, 64];
/// Convolutions go on until no side of the map is longer.
const MAX_MAP: usize = 8;
/// The largest number of values that the dense layers see.
pub(super) const MAP: usize = MAX_MAP * MAX_MAP * CHANNELS[2];

/// `x W + b`, with `W [in, out]`.
struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// `[rows, in]` -> `[rows, out]`.
    fn apply(&self, xs: &Tensor) -> Result<Tensor> {
        xs.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// The layers in order, from named tensors.
pub(super) struct Net {
    convolutions: Vec<Dense>,
    hidden: Dense,
    head: Dense,
}

/// Name, inputs and outputs of every layer of a classifier's network.
pub(super) fn layers(card: &ClassifierCard) -> Vec<(String, usize, usize)> {
    let [mut channels, mut height, mut width] = card.image;
    let mut layers = Vec::new();
    while layers.len() < 2 || height.max(width) > MAX_MAP {
        let next = CHANNELS[layers.len().min(CHANNELS.len() - 1)];
        layers.push((format!("conv{}", layers.len()), 16 * channels, next));
        (channels, height, width) = (next, height.div_ceil(2), width.div_ceil(2));
    }
    let features = card.config.features;
    layers.push(("hidden".to_owned(), height * width * channels, features));
    layers.push(("head".to_owned(), features, card.config.classes));
    layers
}

impl Net {
    /// `tensors` holds `<layer>.weight [in, out]` and `<layer>.bias [out]` of all [`layers`].
    pub(super) fn new(card: &ClassifierCard, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let get = |layer: &str, part: &str, dims: &[usize]| {
            let name = format!("{layer}.{part}");
            match tensors.get(&name) {
                Some(tensor) if tensor.dims() == dims => Ok(tensor.clone()),
                Some(tensor) => {
                    candle_core::bail!("tensor `{name}` has shape {:?}, expected {dims:?}", tensor.dims())
                }
                None => candle_core::bail!("tensor `{name}` is missing"),
            }
        };
        let dense = |(layer, inputs, outputs): &(String, usize, usize)| {
            let (weight, bias) =
                (get(layer, "weight", &[*inputs, *outputs])?, get(layer, "bias", &[*outputs])?);
            Ok(Dense { weight, bias })
        };
        let mut all = layers(card).iter().map(dense).collect::<Result<Vec<_>>>()?;
        match (all.pop(), all.pop()) {
            (Some(head), Some(hidden)) => Ok(Self { convolutions: all, hidden, head }),
            _ => candle_core::bail!("a network has at least two dense layers"),
        }
    }

    /// The activations before the last layer: `[N, H, W, C]` -> `[N, features]`.
    pub(super) fn features(&self, images: &Tensor) -> Result<Tensor> {
        let mut map = images.clone();
        for layer in &self.convolutions {
            map = convolve(&map, layer)?;
        }
        self.hidden.apply(&map.flatten_from(1)?)?.relu()
    }

    /// `[N, features]` -> `[N, classes]`.
    pub(super) fn logits(&self, features: &Tensor) -> Result<Tensor> {
        self.head.apply(features)
    }
}

/// A convolution 4 x 4 of stride 2 with a border of zeros, and what is above 0 of it:
/// `[N, H, W, C]` -> `[N, ceil(H/2), ceil(W/2), out]`.
///
/// Two neighbouring pixels are one vector of `2 C`, so that a patch is two neighbours along each axis.
fn convolve(xs: &Tensor, layer: &Dense) -> Result<Tensor> {
    let (n, h, w, c) = xs.dims4()?;
    let (rows, columns) = (h.div_ceil(2), w.div_ceil(2));
    let xs = xs.pad_with_zeros(1, 1, 2 * rows + 1 - h)?.pad_with_zeros(2, 1, 2 * columns + 1 - w)?;
    let xs = neighbours(&xs.reshape((n * (2 * rows + 2), columns + 1, 2 * c))?)?;
    let xs = neighbours(&xs.reshape((n, rows + 1, 2 * columns * 4 * c))?)?;
    let patches = xs.reshape((n * rows, 4, columns, 4 * c))?.transpose(1, 2)?.contiguous()?;
    let out = layer.apply(&patches.reshape((n * rows * columns, 16 * c))?)?.relu()?;
    out.reshape((n, rows, columns, ()))
}

/// Each vector with the one behind it: `[N, L, D]` -> `[N, L - 1, 2 D]`.
fn neighbours(xs: &Tensor) -> Result<Tensor> {
    let pairs = xs.dim(1)? - 1;
    Tensor::cat(&[xs.narrow(1, 0, pairs)?.contiguous()?, xs.narrow(1, 1, pairs)?.contiguous()?], 2)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn waves(count: usize, step: f64) -> Vec<f32> {
        (0..count).map(|i| (i as f64 * step).sin() as f32).collect()
    }

    /// Against Candle's own convolution, on sizes even and odd.
    #[test]
    fn patches_are_a_convolution() {
        for (h, w) in [(6, 6), (7, 5)] {
            let xs = Tensor::from_vec(waves(2 * h * w * 3, 0.7), (2, h, w, 3), &Device::Cpu).unwrap();
            let weight = Tensor::from_vec(waves(16 * 3 * 5, 1.3), (4, 4, 3, 5), &Device::Cpu).unwrap();
            let bias = Tensor::from_vec(waves(5, 2.1), 5, &Device::Cpu).unwrap();
            let layer = Dense { weight: weight.reshape((48, 5)).unwrap(), bias: bias.clone() };
            let ours = convolve(&xs, &layer).unwrap();

            let kernel = weight.permute((3, 2, 0, 1)).unwrap().contiguous().unwrap();
            let padded = xs.permute((0, 3, 1, 2)).unwrap();
            let padded =
                padded.pad_with_zeros(2, 1, 1 + h % 2).unwrap().pad_with_zeros(3, 1, 1 + w % 2).unwrap();
            let theirs = padded.contiguous().unwrap().conv2d(&kernel, 0, 2, 1, 1).unwrap();
            let theirs = theirs.permute((0, 2, 3, 1)).unwrap().broadcast_add(&bias).unwrap().relu().unwrap();
            assert_eq!(ours.dims(), theirs.dims());
            let gap = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(gap.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }
}
