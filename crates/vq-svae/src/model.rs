//! The VQ-SVAE: encoder, features, codebook, spike generator, decoder (paper section 2.2).

use candle_core::{Tensor, bail};
use candle_nn::VarBuilder;
use rand::Rng;
use snn_core::{
    DescribeLayers, Drive, LayerDescription, Model, Observer, Seed, SpikingLayer, SpikingStack,
    straight_through,
};

use crate::choices::StraightThrough;
use crate::codebook::Codebook;
use crate::decoder::Decoder;
use crate::encoder::{Encoder, Features};
use crate::generator::Generator;
use crate::{CodeUsage, Error, Losses, Result, VqSvaeConfig};

/// Everything that one pass makes.
#[derive(Clone, Debug)]
pub struct Output {
    /// Encoder spikes `z^E_{1:T}`, `[T, N, C, H', W']`.
    pub spikes_e: Tensor,
    /// Dense features `z^E` (Eq. 6), `[N, C, H', W']`.
    pub z_e: Tensor,
    /// Codes `h_0` (Eq. 7), u32 `[N, H', W']`.
    pub codes: Tensor,
    /// Embedding `z^Q` (Eq. 8), `[N, C, H', W']`.
    pub z_q: Tensor,
    /// Generator spikes `z^Q_{1:T}`, `[T, N, C, H', W']`; of a VQ-VAE, which has no generator, `z^Q` with the gradient of `z^E`.
    pub spikes_q: Tensor,
    /// The image again, `[N, channels, H, W]`.
    pub reconstruction: Tensor,
}

/// The spiking layers from codes to the sums that an image is made of.
fn in_a_row(generator: Option<&Generator>, decoder: &Decoder) -> SpikingStack {
    let generator = generator.into_iter().map(Generator::layer);
    SpikingStack::new(generator.chain(decoder.layers()).cloned().collect())
}

/// A vector-quantised spiking autoencoder.
///
/// # Examples
/// One training step, then codes and images:
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::{AdamW, AdamWConfig, ParamStore, Seed};
/// use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cfg = VqSvaeConfig { time_steps: 4, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let model = VqSvae::new(&cfg, params.builder())?;
/// let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
///
/// let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?; // in [-0.5, 0.5]
/// let out = model.forward_t(&images, true)?;
/// let loss = model.losses(&images, &out)?.total()?;
/// optimiser.step(&params.gradients(&loss.backward()?)?, 1.)?;
///
/// let codes = model.encode(&images)?;
/// assert_eq!(codes.dims(), [2, 7, 7]);
/// assert_eq!(model.decode(&codes)?.dims(), [2, 1, 28, 28]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct VqSvae {
    cfg: VqSvaeConfig,
    encoder: Encoder,
    features: Features,
    codebook: Codebook,
    /// None in a VQ-VAE.
    generator: Option<Generator>,
    decoder: Decoder,
    /// The layers of both in a row, for evaluation: no spikes are stored in between.
    codes_to_sums: SpikingStack,
    /// Whether its layers are others than the config says.
    changed: bool,
}

impl VqSvae {
    /// Builds the model, creating its parameters in `vb` or finding them there.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](VqSvaeConfig::validate), or if `vb` holds parameters of other shapes.
    pub fn new(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let encoder = Encoder::new(cfg, vb.pp("encoder"))?;
        let features = Features::new(cfg, vb.pp("features"))?;
        let codebook = Codebook::new(cfg, vb.pp("codebook"))?;
        let generator = match cfg.is_vq_vae() {
            true => None,
            false => Some(Generator::new(cfg, vb.pp("generator"))?),
        };
        let decoder = Decoder::new(cfg, vb.pp("decoder"), vb.pp("head"))?;
        let codes_to_sums = in_a_row(generator.as_ref(), &decoder);
        Ok(Self {
            encoder,
            features,
            codebook,
            generator,
            decoder,
            codes_to_sums,
            changed: false,
            cfg: cfg.clone(),
        })
    }

    /// Returns the network of what `change` makes of each spiking layer, which it is told by name: `encoder.0`, .., `generator`, `decoder.0`,
    /// .. In this way neurons of your own come into it.
    ///
    /// The config knows nothing of it. The network's checkpoints are of a [kind](Model::kind) of their own, `vq-svae of changed layers`, which
    /// [`load`](Model::load) refuses: build the network in the same way again, and restore its parameters (`ParamStore::restore`).
    ///
    /// # Errors
    /// Returns the errors of `change`.
    /// # Examples
    /// Neurons that remember nothing:
    /// ```
    /// # use std::sync::Arc;
    /// # use candle_core::{DType, Device, Result, Tensor};
    /// # use snn_core::{NeuronModel, ParamStore, Seed, Surrogate};
    /// # use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};
    /// #[derive(Debug)]
    /// struct Perceptron;
    ///
    /// impl NeuronModel for Perceptron {
    ///     fn step(&self, x: &Tensor, _: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    ///         Ok((Surrogate::Atan { alpha: 2. }.fire(&(x - 0.5)?)?, Vec::new()))
    ///     }
    /// }
    ///
    /// # fn main() -> vq_svae::Result<()> {
    /// let cfg = VqSvaeConfig { time_steps: 4, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
    /// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    /// let model = VqSvae::new(&cfg, params.builder())?.map_layers(|_name, layer| Ok(layer.with_neuron(Arc::new(Perceptron))))?;
    /// let codes = model.encode(&Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(codes.dims(), [2, 7, 7]);
    /// # Ok(()) }
    /// ```
    pub fn map_layers(
        self,
        mut change: impl FnMut(&str, SpikingLayer) -> candle_core::Result<SpikingLayer>,
    ) -> candle_core::Result<Self> {
        let encoder = self.encoder.map_layers(&mut change)?;
        let generator = self.generator.map(|generator| generator.map_layers(&mut change)).transpose()?;
        let decoder = self.decoder.map_layers(&mut change)?;
        let codes_to_sums = in_a_row(generator.as_ref(), &decoder);
        Ok(Self { encoder, generator, decoder, codes_to_sums, changed: true, ..self })
    }

    /// Runs encoder, quantiser and decoder, and returns the tensors between them.
    ///
    /// ```text
    /// z^E_{1:T} = encoder(x);   z^E = k SFR(z^E_{1:T}) + (1 - k) PSP(z^E_{1:T})     (Eq. 4-6)
    /// h_0 = argmin_k |z^E - e_k|;   z^Q = e[h_0]                                    (Eq. 7, 8)
    /// z^Q_{1:T} = ASG(z^Q);   x^ = output(readout(decoder(z^Q_{1:T})))
    /// ```
    /// The config's [`features`](VqSvaeConfig::features) and [`straight_through`](VqSvaeConfig::straight_through) have the variants. With
    /// `train`, batch norms use the statistics of the batch and update the running ones.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]` in [-0.5, 0.5] -> the shapes that [`Output`] says.
    /// # Errors
    /// Returns an error if the images do not have the config's channels, height and width.
    pub fn forward_t(&self, images: &Tensor, train: bool) -> candle_core::Result<Output> {
        self.pass(images, train, None)
    }

    /// Runs [`forward_t`](Self::forward_t) and calls `observe` with the name and the spikes `[T, N, ...]` of every layer; never in a network
    /// [without spikes](crate::WithoutSpikes).
    ///
    /// # Shapes
    /// As of [`forward_t`](Self::forward_t).
    /// # Errors
    /// Returns the errors of [`forward_t`](Self::forward_t), and those of the observer.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> candle_core::Result<Output> {
        self.pass(images, train, Some(observe).filter(|_| self.cfg.without_spikes.is_none()))
    }

    fn pass(
        &self,
        images: &Tensor,
        train: bool,
        mut observe: Option<&mut Observer<'_>>,
    ) -> candle_core::Result<Output> {
        let (spikes_e, z_e, codes) = self.quantise(images, train, observe.as_deref_mut())?;
        let z_q = self.codebook.look_up(&codes)?;
        let current = match self.cfg.straight_through {
            StraightThrough::Spikes => z_q.clone(),
            StraightThrough::Embedding => straight_through(&z_q, &z_e)?,
        };
        let spikes_q = match &self.generator {
            Some(generator) => generator.forward_t(&current, train)?,
            None => current.unsqueeze(0)?,
        };
        if let Some(observe) = observe.as_deref_mut() {
            observe("generator", &spikes_q)?;
        }
        let decoded = match self.cfg.straight_through {
            StraightThrough::Spikes => straight_through(&spikes_q, &spikes_e)?,
            StraightThrough::Embedding => spikes_q.clone(),
        };
        let reconstruction = self.decoder.forward_t(&decoded, train, observe)?;
        Ok(Output { spikes_e, z_e, codes, z_q, spikes_q, reconstruction })
    }

    fn quantise(
        &self,
        images: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
        self.check(images)?;
        let spikes = self.encoder.forward_t(images, train, observe)?;
        let z = self.features.forward(&spikes)?;
        let codes = self.codebook.nearest(&z)?;
        Ok((spikes, z, codes))
    }

    fn check(&self, images: &Tensor) -> candle_core::Result<()> {
        let wanted = (self.cfg.image.channels, self.cfg.image.height, self.cfg.image.width);
        let (_, c, h, w) = images.dims4()?;
        if (c, h, w) != wanted {
            bail!("vq-svae: images are [N, {c}, {h}, {w}], the model wants [N, ..] of {wanted:?}")
        }
        Ok(())
    }

    /// Computes the four terms of Eq. 9 for a pass over these images; [`Losses`] has their equations. The targets are those of training, with the
    /// config's [`margin`](VqSvaeConfig::margin), which the clamped image of an evaluation pass never reaches.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, those of the pass -> scalars.
    /// # Errors
    /// Returns an error if the images have another shape than those of the pass.
    pub fn losses(&self, images: &Tensor, out: &Output) -> candle_core::Result<Losses> {
        Losses::new(&self.cfg, images, out)
    }

    /// Computes the codes of images, `h_0 = argmin_k |z^E - e_k|` (Eq. 7), with running statistics.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]` in [-0.5, 0.5] -> u32 `[N, H', W']` in `0..K`.
    /// # Errors
    /// Returns an error if the images do not have the config's channels, height and width.
    pub fn encode(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        self.codebook.nearest(&self.evaluated_features(images)?)
    }

    /// Dense features `z^E`, with running statistics.
    fn evaluated_features(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        self.check(images)?;
        self.features.mix(&self.encoder.readouts(images, &self.features.readouts())?)
    }

    /// Moves the codes that hardly any feature of these images is nearest to onto features of theirs, chosen at random from the
    /// seed's stream of this label; returns how many. Part of training where [`revival`](VqSvaeConfig::revival) says so.
    ///
    /// A code counts as dead if it is the nearest of fewer than a hundredth of the features that each would have, were all used
    /// alike. What is dead depends on these images and the network alone, so that a resumed training does the same.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]` in [-0.5, 0.5]; some hundred of them.
    /// # Errors
    /// Returns an error if the images have another shape.
    pub fn revive_codes(&self, images: &Tensor, seed: Seed, label: &str) -> candle_core::Result<usize> {
        let z = self.evaluated_features(images)?.detach();
        let mut usage = CodeUsage::new(self.codebook.size()?);
        usage.record(&self.codebook.nearest(&z)?)?;
        let features = z.permute((0, 2, 3, 1))?.flatten_to(2)?.contiguous()?;
        let count = features.dim(0)?;
        let alive = (count as u64).div_ceil(100 * self.codebook.size()? as u64);
        let dead: Vec<usize> =
            usage.counts().iter().enumerate().filter(|(_, n)| **n < alive).map(|(k, _)| k).collect();
        if dead.is_empty() || count == 0 {
            return Ok(0);
        }
        let mut rng = seed.rng(label);
        let chosen: Vec<u32> = dead.iter().map(|_| rng.random_range(0..count as u32)).collect();
        let chosen = features.index_select(&Tensor::new(chosen, features.device())?, 0)?;
        self.codebook.replace(&dead, &chosen)?;
        Ok(dead.len())
    }

    /// Makes images of codes, with running statistics: embedding (Eq. 8), ASG, decoder. Pixels are meant to lie in [-0.5, 0.5]; unless
    /// [`output`](VqSvaeConfig::output) clamps them, some lie beyond.
    ///
    /// # Shapes
    /// `codes: u32 [N, H', W']` in `0..K` -> `[N, channels, H, W]`. Maps of another size than
    /// [the config's](crate::ImageSpec::code_map) make images of another size.
    /// # Errors
    /// Returns an error if a code lies outside the codebook, as a mask token does.
    pub fn decode(&self, codes: &Tensor) -> candle_core::Result<Tensor> {
        let (largest, size) = (codes.max_all()?.to_scalar::<u32>()?, self.codebook.size()?);
        if largest as usize >= size {
            bail!("vq-svae: cannot decode code {largest} with a codebook of {size}")
        }
        let (z_q, time_steps) = (self.codebook.look_up(codes)?, self.cfg.time_steps);
        let drive = Drive::Constant(&z_q, time_steps);
        let sum = self.codes_to_sums.readout(drive, self.decoder.readout(), false)?;
        self.decoder.image(&sum, time_steps, false)
    }
}

/// Every layer by the name that [`forward_observed`](VqSvae::forward_observed) gives, and the `head`. `encoder.0` reads the image,
/// `generator` the embedding: numbers, as all layers of a network without spikes do.
impl DescribeLayers for VqSvae {
    fn describe_layers(&self) -> candle_core::Result<Vec<LayerDescription>> {
        let (spec, (h, w)) = (&self.cfg.image, self.cfg.image.code_map());
        let code = [self.cfg.code_channels, h, w];
        let encoder = self.encoder.connections([spec.channels, spec.height, spec.width])?;
        let mut layers = LayerDescription::in_a_row("encoder", &[], encoder);
        let mut read = Vec::new();
        if let Some(generator) = &self.generator {
            layers.push(LayerDescription::new("generator", &[], generator.connections(code)?));
            read.push("generator");
        }
        let (decoder, head) = self.decoder.connections(code)?;
        layers.extend(LayerDescription::in_a_row("decoder", &read, decoder));
        let last = layers.last().map_or("", |layer| &layer.name);
        let head = LayerDescription::new("head", &[last], head);
        layers.push(head);
        Ok(match self.cfg.without_spikes {
            Some(_) => layers.into_iter().map(LayerDescription::without_spikes).collect(),
            None => layers,
        })
    }
}

impl Model for VqSvae {
    const KIND: &'static str = "vq-svae";
    type Config = VqSvaeConfig;
    type Error = Error;

    fn build(cfg: &VqSvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(cfg, vb)
    }

    fn config(&self) -> &VqSvaeConfig {
        &self.cfg
    }

    fn kind(&self) -> &str {
        if self.changed { "vq-svae of changed layers" } else { Self::KIND }
    }
}
