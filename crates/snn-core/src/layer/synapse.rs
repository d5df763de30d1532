//! The linear part of a layer: a convolution, a transposed convolution or a linear map.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use crate::geometry::{Geometry, Kind, conv_transpose2d_map, conv2d_map};
use crate::ops::precision::product;
use crate::ops::same_type;
use crate::train::init::weight_and_bias;
use crate::{Connections, ConvConfig, Error, conv_transpose2d, conv2d};

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
        check_channels("conv", c_in, c_out)?;
        cfg.validate()?;
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::Conv(cfg), weight, bias })
    }

    pub(crate) fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        check_channels("conv", c_in, c_out)?;
        cfg.validate()?;
        let (weight, bias) = weight_and_bias(vb, &[c_in, c_out, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::ConvTranspose(cfg), weight, bias })
    }

    pub(crate) fn linear(c_in: usize, c_out: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        check_channels("linear", c_in, c_out)?;
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in], c_out)?;
        Ok(Self { map: Map::Linear, weight, bias })
    }

    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.map, Map::Linear)
    }

    /// `[M, C, H, W]` as it reads them: `[M, C H W]` if it is a linear map.
    pub(crate) fn flattened(&self, xs: &Tensor) -> Result<Tensor> {
        if self.is_linear() && xs.rank() > 2 { xs.flatten_from(1) } else { Ok(xs.clone()) }
    }

    /// The map without its bias: `[M, C_in, ...]` -> `[M, C_out, ...]`.
    pub(crate) fn apply(&self, xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Conv(cfg) => conv2d(xs, weight, cfg),
            Map::ConvTranspose(cfg) => conv_transpose2d(xs, weight, cfg),
            Map::Linear if xs.rank() != 2 || xs.dim(1)? != weight.dim(1)? => {
                bail!("linear: input {:?} and weight {:?} do not fit", xs.dims(), weight.dims())
            }
            Map::Linear => product(xs, &weight.t()?),
        }
    }

    /// Whether `xs` has the element type of the weight; `what` has both.
    pub(crate) fn check_type(&self, what: &str, name: &str, xs: &Tensor) -> Result<()> {
        same_type(what, &[(name, xs), ("its weight", &self.weight)])
    }

    /// Channels of its input.
    pub(crate) fn source_channels(&self) -> Result<usize> {
        self.weight.dim(if matches!(self.map, Map::ConvTranspose(_)) { 0 } else { 1 })
    }

    /// Its geometry on a map `[C, H, W]`; a linear map's is `[C, 1, 1]`.
    pub(crate) fn geometry(&self, source: [usize; 3]) -> Result<Geometry> {
        let (weight, [c, h, w]) = (&self.weight, source);
        let (kind, conv, kernel, channels, target) = match self.map {
            Map::Conv(cfg) => {
                let ((to, from, kh, kw), target) = (weight.dims4()?, conv2d_map(&source, weight, &cfg)?);
                (Kind::Conv, cfg, (kh, kw), (from, to), target)
            }
            Map::ConvTranspose(cfg) => {
                let ((from, to, kh, kw), target) =
                    (weight.dims4()?, conv_transpose2d_map(&source, weight, &cfg)?);
                (Kind::Transposed, cfg, (kh, kw), (from, to), target)
            }
            Map::Linear => {
                let (to, from) = weight.dims2()?;
                if source != [from, 1, 1] {
                    bail!("linear: input [.., {c}, {h}, {w}], weight [{to}, {from}] do not fit")
                }
                (Kind::Conv, ConvConfig::new(1, 1, 0), (1, 1), (from, to), (1, 1))
            }
        };
        Ok(Geometry { kind, conv, kernel, channels, source: (h, w), target })
    }

    /// Its connections on a map `[C, H, W]`.
    pub(crate) fn connections(&self, source: [usize; 3]) -> Result<Connections> {
        Ok(Connections::of(&self.geometry(source)?))
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

/// Whether there are channels at all.
fn check_channels(synapse: &str, c_in: usize, c_out: usize) -> Result<()> {
    match [("c_in", c_in), ("c_out", c_out)].into_iter().find(|(_, channels)| *channels == 0) {
        Some((field, _)) => Err(Error::config(format!("{synapse}.{field}"), 0, "must be at least 1").into()),
        None => Ok(()),
    }
}

/// Adds `shift: [C]` to the channels of `xs: [M, C, ...]`.
pub(crate) fn add_to_channels(xs: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let shape = [vec![1, shift.elem_count()], vec![1; xs.rank() - 2]].concat();
    // In two moves, so that the gradient is summed in two: Candle sums over the last axes, one after the other in memory, and then
    // over few numbers, many times as fast as over the first and the last axes at once.
    let by_item = [&[xs.dim(0)?][..], &shape[1..]].concat();
    xs.broadcast_add(&shift.reshape(shape)?.broadcast_as(by_item)?)
}
