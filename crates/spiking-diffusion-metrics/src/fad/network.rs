//! The encoder: four convolutions with batch norm and leaky ReLU, a linear layer.

use candle_core::{D, Device, Tensor};

use super::SIDE;
use crate::{Error, Result, WeightFile};

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
const LEAK: f64 = 0.01;
const LAYERS: usize = 4;

/// Convolution 3 x 3 of stride 2, and the affine part of the norm behind it.
#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
}

#[derive(Debug)]
pub(super) struct Network {
    channels: usize,
    layers: Vec<Layer>,
    weight: Tensor,
    bias: Tensor,
}

impl Network {
    pub(super) fn new(weights: &WeightFile) -> Result<Self> {
        let tensor = |name: &str, shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(weights.values(name, shape)?, shape, &Device::Cpu)?)
        };
        let channels = weights.rank_4(&first(0))?[1];
        let (mut layers, mut c_in) = (Vec::new(), channels);
        for i in 0..LAYERS {
            let c_out = weights.rank_4(&first(i))?[0];
            let row = |name: &str| -> Result<Tensor> {
                Ok(tensor(&format!("encoder.{i}.{name}"), &[c_out])?.reshape((1, c_out, 1, 1))?)
            };
            layers.push(Layer {
                weight: tensor(&first(i), &[c_out, c_in, 3, 3])?,
                bias: row("0.bias")?,
                scale: row("1.weight")?,
                shift: row("1.bias")?,
            });
            c_in = c_out;
        }
        let features = weights.length("latent_layer.bias")?;
        let side = SIDE >> LAYERS;
        let weight = tensor("latent_layer.weight", &[features, c_in * side * side])?.t()?;
        Ok(Self { channels, layers, weight, bias: tensor("latent_layer.bias", &[features])? })
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    pub(super) fn features(&self) -> usize {
        self.bias.elem_count()
    }

    /// `[N, C, 32, 32]` in [-1, 1] -> `[N, D]`, normalised by the statistics of this batch.
    pub(super) fn features_of(&self, images: &Tensor) -> Result<Tensor> {
        if images.dim(1)? != self.channels {
            let expected = format!("[N, {}, {SIDE}, {SIDE}]", self.channels);
            return Err(Error::Shape { what: "images", expected, got: images.dims().to_vec() });
        }
        let mut xs = images.clone();
        for layer in &self.layers {
            xs = layer.forward(&xs)?;
        }
        Ok(xs.flatten_from(1)?.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

fn first(i: usize) -> String {
    format!("encoder.{i}.0.weight")
}

impl Layer {
    fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let xs = xs.conv2d(&self.weight, 1, 2, 1, 1)?.broadcast_add(&self.bias)?;
        let (n, c, h, w) = xs.dims4()?;
        // In two steps, centred: channels with a large mean lose nothing.
        let by_channel = xs.transpose(0, 1)?.reshape((c, n * h * w))?;
        let mean = by_channel.mean_keepdim(D::Minus1)?;
        let centred = by_channel.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + EPS)?.sqrt()?)?;
        let normed = normed.reshape((c, n, h, w))?.transpose(0, 1)?;
        let ys = normed.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?;
        ys.maximum(&(&ys * LEAK)?)
    }
}
