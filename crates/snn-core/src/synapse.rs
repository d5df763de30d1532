//! The linear part of a layer: a convolution, a transposed convolution or a linear map.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::VarBuilder;

use crate::init::weight_and_bias;
use crate::ops::chain::{Kind, Links};
use crate::ops::conv::{Axis, conv_transpose2d_map, conv2d_map};
use crate::ops::{room, same_type};
use crate::{ConvConfig, Error, conv_transpose2d, conv2d};

/// What a linear map is on a map of known size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) kind: Kind,
    pub(crate) conv: ConvConfig,
    pub(crate) kernel: (usize, usize),
    /// Source and target channels.
    pub(crate) channels: (usize, usize),
    /// Source and target maps, rows and columns.
    pub(crate) source: (usize, usize),
    pub(crate) target: (usize, usize),
}

impl Geometry {
    /// Which source positions reach which targets.
    pub(crate) fn links(&self) -> Links {
        Links::new(self.kind, &self.conv, self.kernel, self.source, self.target)
    }

    /// Rows and columns, as the convolution sees them: a transposed one's output plays the image, its input the map.
    pub(crate) fn axes(&self) -> [Axis; 2] {
        let (image, map) = match self.kind {
            Kind::Conv => (self.source, self.target),
            Kind::Transposed => (self.target, self.source),
        };
        let ConvConfig { stride, padding, .. } = self.conv;
        let axis = |image, map, kernel| Axis { image, map, kernel, stride, padding };
        [axis(image.0, map.0, self.kernel.0), axis(image.1, map.1, self.kernel.1)]
    }

    /// Channels, rows and columns of the output.
    pub(crate) fn output(&self) -> [usize; 3] {
        [self.channels.1, self.target.0, self.target.1]
    }

    /// The positions of the source that these of the target depend on, ascending.
    pub(crate) fn sources(&self, targets: &[u32]) -> Vec<u32> {
        let [rows, columns] = self.axes();
        let seen = |axis: &Axis, target: usize| -> Vec<usize> {
            let source = |k| match self.kind {
                Kind::Conv => axis.image_at(target, k),
                Kind::Transposed => axis.map_at(target, k),
            };
            (0..axis.kernel).filter_map(source).collect()
        };
        let mut sources = Vec::new();
        for target in targets.iter().map(|&p| p as usize) {
            let xs = seen(&columns, target % self.target.1);
            for y in seen(&rows, target / self.target.1) {
                sources.extend(xs.iter().map(|x| (y * self.source.1 + x) as u32));
            }
        }
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Whether the positions of both maps can be counted in 32 bits, of which the last stands for none.
    pub(crate) fn check_countable(&self) -> Result<()> {
        for (what, (rows, columns)) in [("input", self.source), ("output", self.target)] {
            if rows.checked_mul(columns).is_none_or(|positions| positions >= u32::MAX as usize) {
                bail!(
                    "the positions of an {what} of {rows} rows and {columns} columns cannot be counted in 32 bits"
                )
            }
        }
        Ok(())
    }

    /// Whether [`links`](Self::links) can be had.
    pub(crate) fn room(&self) -> Result<()> {
        self.check_countable()?;
        let ((rows, columns), kernel) = (self.source.max(self.target), self.kernel);
        // Two lists of pairs of positions, in effect.
        room("the links of a spiking layer", &[kernel.0, kernel.1, 4, rows, columns], DType::U32)
    }
}

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

    /// The map without its bias: `[M, C_in, ...]` -> `[M, C_out, ...]`.
    pub(crate) fn apply(&self, xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Conv(cfg) => conv2d(xs, weight, cfg),
            Map::ConvTranspose(cfg) => conv_transpose2d(xs, weight, cfg),
            Map::Linear if xs.rank() != 2 || xs.dim(1)? != weight.dim(1)? => {
                bail!("linear: input {:?} and weight {:?} do not fit", xs.dims(), weight.dims())
            }
            Map::Linear => xs.matmul(&weight.t()?),
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
    xs.broadcast_add(&shift.reshape(shape)?)
}
