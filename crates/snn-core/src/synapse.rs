//! The linear part of a layer: a convolution, a transposed convolution or a linear map.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::init::weight_and_bias;
use crate::ops::chain::{Kind, Links};
use crate::ops::conv::{conv_transpose2d_map, conv2d_map};
use crate::{ConvConfig, conv_transpose2d, conv2d};

/// The linear part of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    Conv(ConvConfig),
    ConvTranspose(ConvConfig),
    Linear,
}

/// A linear map with its weight and bias; the bias is applied by whoever uses it.
#[derive(Clone, Debug)]
pub(crate) struct Synapse {
    pub(crate) map: Map,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Synapse {
    pub(crate) fn conv(c_in: usize, c_out: usize, cfg: ConvConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::Conv(cfg), weight, bias })
    }

    pub(crate) fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_in, c_out, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::ConvTranspose(cfg), weight, bias })
    }

    pub(crate) fn linear(c_in: usize, c_out: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in], c_out)?;
        Ok(Self { map: Map::Linear, weight, bias })
    }

    /// The map without its bias: `[M, C_in, ...]` -> `[M, C_out, ...]`.
    pub(crate) fn apply(&self, xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Conv(cfg) => conv2d(xs, weight, cfg),
            Map::ConvTranspose(cfg) => conv_transpose2d(xs, weight, cfg),
            Map::Linear => xs.matmul(&weight.t()?),
        }
    }

    /// Channels of its input.
    pub(crate) fn source_channels(&self) -> Result<usize> {
        self.weight.dim(if matches!(self.map, Map::ConvTranspose(_)) { 0 } else { 1 })
    }

    /// Which positions of a map `[C, H, W]` reach which of the output, and the output's `[C, H, W]`.
    pub(crate) fn links(&self, source: [usize; 3]) -> Result<(Links, [usize; 3])> {
        let (weight, map) = (&self.weight, (source[1], source[2]));
        let (kind, cfg, kernel, target) = match &self.map {
            Map::Conv(cfg) => {
                let ((c, _, kh, kw), (h, w)) = (weight.dims4()?, conv2d_map(&source, weight, cfg)?);
                (Kind::Conv, *cfg, (kh, kw), [c, h, w])
            }
            Map::ConvTranspose(cfg) => {
                let ((_, c, kh, kw), (h, w)) = (weight.dims4()?, conv_transpose2d_map(&source, weight, cfg)?);
                (Kind::Transposed, *cfg, (kh, kw), [c, h, w])
            }
            Map::Linear => {
                (Kind::Conv, ConvConfig::new(1, 1, 0), (1, 1), [weight.dim(0)?, source[1], source[2]])
            }
        };
        Ok((Links::new(kind, &cfg, kernel, map, (target[1], target[2])), target))
    }

    /// The map with every output channel multiplied by `scale`, the bias aside.
    pub(crate) fn apply_scaled(&self, xs: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let shape = match (&self.map, self.weight.rank()) {
            (Map::ConvTranspose(_), _) => vec![1, scale.elem_count(), 1, 1],
            (_, rank) => [vec![scale.elem_count()], vec![1; rank - 1]].concat(),
        };
        self.apply(xs, &self.weight.broadcast_mul(&scale.reshape(shape)?)?)
    }
}

/// Adds `shift: [C]` to the channels of `xs: [M, C, ...]`.
pub(crate) fn add_to_channels(xs: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let shape = [vec![1, shift.elem_count()], vec![1; xs.rank() - 2]].concat();
    xs.broadcast_add(&shift.reshape(shape)?)
}
