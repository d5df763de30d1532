//! The spiking diffusion image decoder (SDID): a denoiser of spiking layers. The one file here that knows of spikes.

use candle_core::{DType, Device, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};
use snn_core::{
    ConvConfig, DescribeLayers, Drive, LayerDescription, Model, Observer, Readout, ReadoutLayer, Seed,
    SpikingLayer, SpikingStack, statistic,
};

use crate::input::Input;
use crate::prepared::Prepared;
use crate::{AbsorbingProcess, Conditioned, Denoiser, Error, LogitsAt, NoisyCodes, Result, SdidConfig, host};

/// The spiking denoiser `S(h_t, t)` of section 2.3: `p(h_0 = k | h_t) = softmax_k(logits)` at every position.
///
/// ```text
/// S^l    = LIF(BN(conv3x3(S^{l-1}))),  l = 1..L      S^0: the current of the tokens, the same at all T_s time steps
/// logits = b + W * [mean_t S^L, mean_t S^1]          W: a convolution; of all layers' means with HeadReads::All
/// ```
///
/// # Shapes
/// `h_t: u32 [N, H', W']` in `0..=K`, `t: u32 [N]` in `1..=T_d` -> `[N, K, H', W']`.
/// # Examples
/// ```
/// use absorbing_diffusion::{Sdid, SdidConfig};
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::{ParamStore, Seed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cfg = SdidConfig { time_steps: 4, channels: vec![8; 5], ..SdidConfig::released_code(128, (7, 7)) };
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let sdid = Sdid::new(&cfg, params.builder())?;
/// let all_masked = Tensor::full(128u32, (2, 7, 7), &Device::Cpu)?;
/// let t = Tensor::new(&[49u32, 49], &Device::Cpu)?;
/// assert_eq!(sdid.forward_t(&all_masked, &t, false)?.dims(), [2, 128, 7, 7]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Sdid {
    pub(crate) cfg: SdidConfig,
    pub(crate) input: Input,
    /// `[C]`: how often each class occurs.
    shares: Option<Var>,
    pub(crate) stack: SpikingStack,
    /// The layers that the head reads, in the order of its channels.
    pub(crate) read: Vec<usize>,
    pub(crate) head: ReadoutLayer,
    dtype: DType,
    pub(crate) input_channels: usize,
    /// Whether its layers are others than the config says.
    changed: bool,
}

impl Sdid {
    /// Builds the model, creating its parameters in `vb` or finding them there.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](SdidConfig::validate), or if parameters in `vb` have other shapes.
    pub fn new(cfg: &SdidConfig, vb: VarBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let (input, input_channels) = Input::new(cfg, &vb)?;
        let share = |classes| statistic(&vb.pp("class"), classes, "share", Init::Const(1. / classes as f64));
        let shares = cfg.classes.map(share).transpose()?;
        let mut c_in = input_channels;
        let same = ConvConfig::new(3, 1, 1);
        let mut layers = Vec::with_capacity(cfg.channels.len());
        for (i, &c_out) in cfg.channels.iter().enumerate() {
            layers.push(SpikingLayer::conv(c_in, c_out, same, cfg.layer(), vb.pp("layers").pp(i))?);
            c_in = c_out;
        }
        let stack = SpikingStack::new(layers);
        let read = cfg.head_reads.of(cfg.channels.len());
        let c_read = read.iter().map(|&i| cfg.channels[i]).sum();
        let of_head = ConvConfig::new(cfg.head_kernel, 1, cfg.head_kernel / 2);
        let head = ReadoutLayer::conv(c_read, cfg.codes, of_head, Readout::Mean, vb.pp("head"))?;
        Ok(Self {
            input,
            shares,
            stack,
            read,
            head,
            dtype: vb.dtype(),
            input_channels,
            changed: false,
            cfg: cfg.clone(),
        })
    }

    /// Returns how often each class occurs: equally often, unless [told](Self::set_class_shares). Empty without classes.
    ///
    /// # Errors
    /// Returns an error if the tensor cannot be read.
    pub fn class_shares(&self) -> Result<Vec<f64>> {
        self.shares.as_ref().map_or(Ok(Vec::new()), |shares| host::floats(shares))
    }

    /// Says how often each class occurs among the images that the network learns from. It is kept with the parameters, as `class.share`,
    /// and a [`Sampler`](crate::Sampler) draws the class of an image by it, unless [`Conditioned`] says which class it has.
    ///
    /// # Errors
    /// Returns an error if [`Conditioned::drawn`] refuses the shares.
    pub fn set_class_shares(&self, shares: &[f64]) -> Result<()> {
        Conditioned::drawn(self, shares)?;
        let Some(kept) = &self.shares else { return Ok(()) };
        let sum: f64 = shares.iter().sum();
        let shares: Vec<f64> = shares.iter().map(|share| share / sum).collect();
        Ok(kept.set(&Tensor::new(shares, &Device::Cpu)?.to_dtype(kept.dtype())?.to_device(kept.device())?)?)
    }

    /// Returns the network of what `change` makes of each spiking layer, which it is told by name: `layers.0`, .. In this way neurons of your
    /// own come into it, as into a `VqSvae` of the crate `vq-svae`, whose example shows it.
    ///
    /// The config knows nothing of it. The network's checkpoints are of a [kind](Model::kind) of their own, `sdid of changed layers`, which
    /// [`load`](Model::load) refuses: build the network in the same way again, and restore its parameters (`ParamStore::restore`).
    ///
    /// # Errors
    /// Returns the errors of `change`.
    pub fn map_layers(
        self,
        mut change: impl FnMut(&str, SpikingLayer) -> candle_core::Result<SpikingLayer>,
    ) -> candle_core::Result<Self> {
        let stack = self.stack.map_layers(|i, layer| change(&format!("layers.{i}"), layer))?;
        Ok(Self { stack, changed: true, ..self })
    }

    /// [`Denoiser::logits`]: the logits of every code at every position, of images without a class. It need not know which images
    /// it is asked about. [`Conditioned`] tells it their classes, by which it is trained and measured; a [`Sampler`](crate::Sampler) draws them.
    ///
    /// # Shapes
    /// `h_t: u32 [N, H', W']`, `t: u32 [N]` -> `[N, K, H', W']`.
    /// # Errors
    /// Returns an error for maps of another size than the config's, and if there is not one time for each.
    pub fn forward_t(&self, h_t: &Tensor, t: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        self.logits(&NoisyCodes::new(h_t, t, &[]), train)
    }

    /// What the head reads.
    fn sums(&self, noisy: &NoisyCodes<'_>, train: bool) -> candle_core::Result<Tensor> {
        let current = self.current(noisy)?;
        self.stack.readout_of(self.drive(&current), self.head.readout(), &self.read, train)
    }

    /// [`Denoiser::logits`] with a look at every layer's spikes, unless the network has none.
    ///
    /// # Errors
    /// Returns the errors of [`forward_t`](Self::forward_t) and those of the observer.
    pub fn logits_observed(
        &self,
        noisy: &NoisyCodes<'_>,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> candle_core::Result<Tensor> {
        if self.cfg.without_spikes {
            return self.logits(noisy, train);
        }
        let current = self.current(noisy)?;
        let mut all = Vec::with_capacity(self.cfg.channels.len());
        let mut see = |i: usize, spikes: &Tensor| {
            all.push(spikes.clone());
            observe(&format!("layers.{i}"), spikes)
        };
        self.stack.forward_observed(self.drive(&current), train, &mut see)?;
        self.head.forward_cat(&self.read.iter().map(|&i| &all[i]).collect::<Vec<_>>())
    }

    /// What drives the first layer at every spiking time step.
    pub(crate) fn drive<'a>(&self, current: &'a Tensor) -> Drive<'a> {
        Drive::Constant(current, self.cfg.time_steps)
    }

    /// The input current, `[N, channels, H', W']`.
    pub(crate) fn current(&self, noisy: &NoisyCodes<'_>) -> candle_core::Result<Tensor> {
        self.check(noisy)?;
        self.input.forward(noisy, self.dtype)
    }

    pub(crate) fn check(
        &self,
        NoisyCodes { h_t, t, classes, .. }: &NoisyCodes<'_>,
    ) -> candle_core::Result<()> {
        let (n, h, w) = h_t.dims3()?;
        if t.dims() != [n] {
            bail!("sdid: diffusion times are {:?}, the codes want [{n}]", t.dims())
        }
        if (h, w) != (self.cfg.height, self.cfg.width) {
            bail!(
                "sdid: codes are [N, {h}, {w}], the model wants [N, {}, {}]",
                self.cfg.height,
                self.cfg.width
            )
        }
        match classes.filter(|classes| classes.dims() != [n]) {
            Some(classes) => bail!("sdid: classes are {:?}, the codes want [{n}]", classes.dims()),
            None => Ok(()),
        }
    }
}

/// Every layer by the name that [`logits_observed`](Sdid::logits_observed) gives, and the `head`, which reads some of them.
impl DescribeLayers for Sdid {
    fn describe_layers(&self) -> candle_core::Result<Vec<LayerDescription>> {
        let (h, w) = (self.cfg.height, self.cfg.width);
        let connections = self.stack.connections([self.input_channels, h, w])?;
        let mut layers = LayerDescription::in_a_row("layers", &[], connections);
        let read: Vec<_> = self.read.iter().map(|&i| &layers[i]).collect();
        let joined = read.iter().map(|layer| layer.connections.target()[0]).sum();
        let names: Vec<_> = read.iter().map(|layer| layer.name.as_str()).collect();
        layers.push(LayerDescription::new("head", &names, self.head.connections([joined, h, w])?));
        if self.cfg.without_spikes {
            layers = layers.into_iter().map(LayerDescription::without_spikes).collect();
        }
        Ok(layers)
    }
}

impl Model for Sdid {
    const KIND: &'static str = "sdid";
    type Config = SdidConfig;
    type Error = Error;

    fn build(cfg: &SdidConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(cfg, vb)
    }

    fn config(&self) -> &SdidConfig {
        &self.cfg
    }

    fn kind(&self) -> &str {
        if self.changed { "sdid of changed layers" } else { Self::KIND }
    }
}

impl Denoiser for Sdid {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> candle_core::Result<Tensor> {
        self.head.forward_sums(&[self.sums(noisy, train)?], self.cfg.time_steps)
    }

    fn classes(&self) -> usize {
        self.cfg.classes.unwrap_or(0)
    }

    fn check_process(&self, process: &AbsorbingProcess) -> Result<()> {
        let (codes, steps) = (self.cfg.codes, self.cfg.steps);
        for (field, got, wanted) in
            [("process.codes", process.codes(), codes), ("process.steps", process.steps(), steps)]
        {
            if got != wanted {
                return Err(Error::config(field, got, format!("the network was built for {wanted}")));
            }
        }
        Ok(())
    }

    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>], train: bool) -> Result<Tensor> {
        Ok(self.head.forward_sums_at(&[self.sums(noisy, train)?], self.cfg.time_steps, positions)?)
    }

    fn prepare(&self) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared::new(self, None)?))
    }

    fn prepare_at_threshold(&self, scale: f64) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared::new(self, Some(scale))?))
    }

    fn of_seed(&self, seed: Seed) -> Result<Option<Box<dyn Denoiser + '_>>> {
        if self.shares.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(Conditioned::drawn(self, &self.class_shares()?)?.with_seed(seed))))
    }
}
