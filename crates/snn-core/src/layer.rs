//! Spiking layers: a synapse (convolution, transposed convolution or linear map), batch norm, LIF neurons.

use candle_core::{Result, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};

use crate::init::weight_and_bias;
use crate::time::{merge_time, split_time};
use crate::{ConvConfig, LifConfig, Readout, batch_norm, conv_transpose2d, conv2d, lif, lif_constant};

/// The linear part of a layer.
#[derive(Clone, Debug)]
enum Map {
    Conv(ConvConfig),
    ConvTranspose(ConvConfig),
    Linear,
}

/// A linear map with its weight and bias; the bias is applied by whoever uses it.
#[derive(Clone, Debug)]
struct Synapse {
    map: Map,
    weight: Tensor,
    bias: Tensor,
}

impl Synapse {
    fn conv(c_in: usize, c_out: usize, cfg: ConvConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::Conv(cfg), weight, bias })
    }

    fn conv_transpose(c_in: usize, c_out: usize, cfg: ConvConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_in, c_out, cfg.kernel, cfg.kernel], c_out)?;
        Ok(Self { map: Map::ConvTranspose(cfg), weight, bias })
    }

    fn linear(c_in: usize, c_out: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let (weight, bias) = weight_and_bias(vb, &[c_out, c_in], c_out)?;
        Ok(Self { map: Map::Linear, weight, bias })
    }

    /// The map without its bias: `[M, C_in, ...]` -> `[M, C_out, ...]`.
    fn apply(&self, xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Conv(cfg) => conv2d(xs, weight, cfg),
            Map::ConvTranspose(cfg) => conv_transpose2d(xs, weight, cfg),
            Map::Linear => xs.matmul(&weight.t()?),
        }
    }

    /// The map with every output channel multiplied by `scale`, the bias aside.
    fn apply_scaled(&self, xs: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let shape = match (&self.map, self.weight.rank()) {
            (Map::ConvTranspose(_), _) => vec![1, scale.elem_count(), 1, 1],
            (_, rank) => [vec![scale.elem_count()], vec![1; rank - 1]].concat(),
        };
        self.apply(xs, &self.weight.broadcast_mul(&scale.reshape(shape)?)?)
    }
}

/// Adds `shift: [C]` to the channels of `xs: [M, C, ...]`.
fn add_to_channels(xs: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let shape = [vec![1, shift.elem_count()], vec![1; xs.rank() - 2]].concat();
    xs.broadcast_add(&shift.reshape(shape)?)
}

/// Batch norm over `T*N` (and space) with PyTorch's running statistics: `eps = 1e-5`, `momentum = 0.1`.
#[derive(Clone, Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    fn new(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let constant = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            weight: constant("weight", 1.)?,
            bias: constant("bias", 0.)?,
            running_mean: Var::from_tensor(&constant("running_mean", 0.)?)?,
            running_var: Var::from_tensor(&constant("running_var", 1.)?)?,
        })
    }

    /// Normalises with batch statistics and moves the running ones.
    ///
    /// `synapse_bias` was left out of `xs`: the norm takes it away again, so that its gradient is exactly zero, and
    /// only the running mean sees it. `copies`: how often each element stands for itself (constant in time).
    fn train(&self, xs: &Tensor, synapse_bias: &Tensor, copies: usize) -> Result<Tensor> {
        let out = batch_norm(xs, &self.weight, &self.bias, Self::EPS)?;
        let n = (xs.elem_count() / xs.dim(1)? * copies) as f64;
        self.update(&self.running_mean, &(out.mean + synapse_bias.detach())?)?;
        self.update(&self.running_var, &(out.variance * (n / (n - 1.).max(1.)))?)?;
        Ok(out.ys)
    }

    fn update(&self, running: &Var, batch: &Tensor) -> Result<()> {
        running.set(&((running.as_detached_tensor() * (1. - Self::MOMENTUM))? + (batch * Self::MOMENTUM)?)?)
    }

    /// The affine map of evaluation, `(scale, shift)` by channel, of a synapse with this bias.
    fn folded(&self, synapse_bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let std = (self.running_var.as_detached_tensor() + Self::EPS)?.sqrt()?;
        let scale = (&self.weight / std)?;
        let centred = (synapse_bias - self.running_mean.as_detached_tensor())?;
        let shift = (&self.bias + (centred * &scale)?)?;
        Ok((scale, shift))
    }
}

/// Synapse, batch norm, LIF: the layer that everything here is built of.
///
/// Parameters: `<synapse>.weight`, `<synapse>.bias`, `bn.weight`, `bn.bias`, and the running statistics
/// `bn.running_mean`, `bn.running_var`, where `<synapse>` is `conv` or `linear`.
///
/// # Shapes
/// `[T, N, C_in, H, W]` -> spikes `[T, N, C_out, H', W']`; for linear layers `[T, N, C_in]` -> `[T, N, C_out]`.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, LifConfig, ParamStore, Seed, SpikingLayer};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::conv(1, 32, ConvConfig::new(3, 2, 1), LifConfig::default(), store.builder())?;
/// let image = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(layer.forward_constant(&image, 16, false)?.dims(), [16, 2, 32, 14, 14]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SpikingLayer {
    synapse: Synapse,
    norm: BatchNorm,
    lif: LifConfig,
}

impl SpikingLayer {
    /// Convolution + BN + LIF.
    pub fn conv(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        lif: LifConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Self::new(Synapse::conv(c_in, c_out, cfg, &vb.pp("conv"))?, lif, &vb)
    }

    /// Transposed convolution + BN + LIF.
    pub fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        lif: LifConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Self::new(Synapse::conv_transpose(c_in, c_out, cfg, &vb.pp("conv"))?, lif, &vb)
    }

    /// Linear + BN + LIF.
    pub fn linear(c_in: usize, c_out: usize, lif: LifConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(Synapse::linear(c_in, c_out, &vb.pp("linear"))?, lif, &vb)
    }

    fn new(synapse: Synapse, lif: LifConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = BatchNorm::new(synapse.bias.elem_count(), &vb.pp("bn"))?;
        Ok(Self { synapse, norm, lif })
    }

    /// Spikes in, spikes out. With `train`, normalises by batch statistics and moves the running ones.
    pub fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        let currents = self.currents(&merge_time(xs)?, train, 1)?;
        lif(&split_time(&currents, xs.dim(0)?)?, &self.lif)
    }

    /// The first layer behind direct encoding: `[N, ...]` -> `[T, N, ...]`. Synapse and norm run once, not `T` times.
    pub fn forward_constant(&self, x: &Tensor, time_steps: usize, train: bool) -> Result<Tensor> {
        lif_constant(&self.currents(x, train, time_steps)?, time_steps, &self.lif)
    }

    fn currents(&self, xs: &Tensor, train: bool, copies: usize) -> Result<Tensor> {
        if train {
            return self.norm.train(
                &self.synapse.apply(xs, &self.synapse.weight)?,
                &self.synapse.bias,
                copies,
            );
        }
        let (scale, shift) = self.norm.folded(&self.synapse.bias)?;
        add_to_channels(&self.synapse.apply_scaled(xs, &scale)?, &shift)
    }
}

/// The last layer: a synapse without neurons, its output summed over time by a [`Readout`].
///
/// The read-out is linear, so the *spikes* are summed first and the synapse runs once; its bias counts once for
/// every unit of weight. Parameters: `weight`, `bias`.
///
/// # Shapes
/// `[T, N, C_in, H, W]` -> `[N, C_out, H', W']`.
#[derive(Clone, Debug)]
pub struct ReadoutLayer {
    synapse: Synapse,
    readout: Readout,
}

impl ReadoutLayer {
    /// A convolution.
    pub fn conv(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        readout: Readout,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { synapse: Synapse::conv(c_in, c_out, cfg, &vb)?, readout })
    }

    /// A transposed convolution.
    pub fn conv_transpose(
        c_in: usize,
        c_out: usize,
        cfg: ConvConfig,
        readout: Readout,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { synapse: Synapse::conv_transpose(c_in, c_out, cfg, &vb)?, readout })
    }

    /// The read-out of the synapse's output.
    pub fn forward(&self, spikes: &Tensor) -> Result<Tensor> {
        self.forward_cat(&[spikes])
    }

    /// [`forward`](Self::forward) of several spike trains side by side, concatenated by channel after the sum.
    pub fn forward_cat(&self, spikes: &[&Tensor]) -> Result<Tensor> {
        let sums = spikes.iter().map(|s| self.readout.apply(s)).collect::<Result<Vec<_>>>()?;
        let time_steps = spikes.first().map_or(Ok(0), |s| s.dim(0))?;
        if spikes.iter().any(|s| s.dims()[0] != time_steps) {
            bail!("read-out of spike trains of unequal length")
        }
        let total: f64 = self.readout.weights(time_steps).iter().sum();
        let ys = self.synapse.apply(&Tensor::cat(&sums, 1)?, &self.synapse.weight)?;
        add_to_channels(&ys, &(&self.synapse.bias * total)?)
    }
}
