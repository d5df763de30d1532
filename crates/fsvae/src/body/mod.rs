//! The spiking autoencoder around the latent variables.

mod config;

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::VarBuilder;
use snn_core::{
    Connections, ConvConfig, Drive, LayerDescription, Observer, ReadoutLayer, SpikingLayer, SpikingStack,
};

pub use config::BodyConfig;
pub(crate) use config::{bare_layer, original_layer};

/// Encoder and decoder.
#[derive(Debug)]
pub(crate) struct Body {
    cfg: BodyConfig,
    encoder: SpikingStack,
    to_latent: SpikingStack,
    from_latent: SpikingStack,
    decoder: SpikingStack,
    head: ReadoutLayer,
}

impl Body {
    pub(crate) fn new(cfg: &BodyConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (halve, mix) = (ConvConfig::new(3, 2, 1), ConvConfig::new(1, 1, 0));
        let double = halve.with_output_padding(1);
        let (mut encoder, mut c_in) = (Vec::new(), cfg.image[0]);
        let convolutions = cfg.encoder.iter().map(|c| (*c, halve)).chain(cfg.mix.map(|c| (c, mix)));
        for (i, (c_out, conv)) in convolutions.enumerate() {
            encoder.push(SpikingLayer::conv(c_in, c_out, conv, cfg.maps, vb.pp("encoder").pp(i))?);
            c_in = c_out;
        }
        let mut decoder = Vec::new();
        for (i, &c_out) in cfg.decoder.iter().enumerate() {
            decoder.push(SpikingLayer::conv_transpose(
                c_in,
                c_out,
                double,
                cfg.maps,
                vb.pp("decoder").pp(i),
            )?);
            c_in = c_out;
        }
        let flat = cfg.latent_map().iter().product();
        let linear = |c_in, c_out, name: &str| -> Result<SpikingStack> {
            Ok(SpikingStack::new(vec![SpikingLayer::linear(c_in, c_out, cfg.linear, vb.pp(name))?]))
        };
        let head = ConvConfig::new(3, 1, 1);
        Ok(Self {
            encoder: SpikingStack::new(encoder),
            to_latent: linear(flat, cfg.latent, "to_latent")?,
            from_latent: linear(cfg.latent, flat, "from_latent")?,
            decoder: SpikingStack::new(decoder),
            head: ReadoutLayer::conv_transpose(c_in, cfg.image[0], head, cfg.readout, vb.pp("head"))?,
            cfg: cfg.clone(),
        })
    }

    /// The spikes of the latent neurons: `[N, channels, H, W]` -> `[T, N, C]`.
    pub(crate) fn encode(
        &self,
        images: &Tensor,
        train: bool,
        mut observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        if images.dims().get(1..) != Some(&self.cfg.image) {
            bail!("fsvae: images are {:?}, the model wants [N, ..] of {:?}", images.dims(), self.cfg.image)
        }
        let drive = Drive::Constant(images, self.cfg.time_steps);
        let name = |i: usize| format!("encoder.{i}");
        let spikes = run(&self.encoder, drive, train, &name, observe.as_deref_mut())?;
        let drive = spikes.flatten_from(2)?;
        run(&self.to_latent, Drive::Spikes(&drive), train, &|_| "to_latent".to_owned(), observe)
    }

    /// Images of latent spikes: `[T, N, C]` -> `[N, channels, H, W]`.
    pub(crate) fn decode(
        &self,
        z: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let (steps, n, _) = z.dims3()?;
        let [c, h, w] = self.cfg.latent_map();
        let spikes = self.from_latent.forward(Drive::Spikes(z), train)?.reshape((steps, n, c, h, w))?;
        let drive = Drive::Spikes(&spikes);
        let Some(observe) = observe else {
            let sum = self.decoder.readout(drive, self.head.readout(), train)?;
            return self.head.forward_sums(&[sum], steps)?.tanh();
        };
        observe(Z, z)?;
        observe("from_latent", &spikes)?;
        let name = |i: usize| format!("decoder.{i}");
        self.head.forward(&run(&self.decoder, drive, train, &name, Some(observe))?)?.tanh()
    }

    /// The layers in front of the latent variables.
    pub(crate) fn describe_encoder(&self) -> Result<Vec<LayerDescription>> {
        let mut layers =
            LayerDescription::in_a_row("encoder", &[], self.encoder.connections(self.cfg.image)?);
        let last = layers.last().map_or(String::new(), |layer| layer.name.clone());
        let flattened = Connections::of_flattened(self.cfg.latent_map(), self.cfg.latent);
        layers.push(LayerDescription::new("to_latent", &[&last], flattened));
        Ok(layers)
    }

    /// The layers behind them.
    pub(crate) fn describe_decoder(&self) -> Result<Vec<LayerDescription>> {
        let from_latent = self.from_latent.connections([self.cfg.latent, 1, 1])?;
        let mut layers: Vec<_> =
            from_latent.into_iter().map(|it| LayerDescription::new("from_latent", &[Z], it)).collect();
        let connections = self.decoder.connections(self.cfg.latent_map())?;
        let map = connections.last().map_or(self.cfg.latent_map(), Connections::target);
        layers.extend(LayerDescription::in_a_row("decoder", &["from_latent"], connections));
        let last = layers.last().map_or(String::new(), |layer| layer.name.clone());
        layers.push(LayerDescription::new("head", &[&last], self.head.connections(map)?));
        Ok(layers)
    }

    /// Refuses random numbers of another shape or type than `[T, items, C]` of `dtype`.
    pub(crate) fn check(&self, what: &str, draws: &Tensor, items: usize, dtype: DType) -> Result<()> {
        let wanted = [self.cfg.time_steps, items, self.cfg.latent];
        if draws.dims() != wanted || draws.dtype() != dtype {
            let (dims, found) = (draws.dims(), draws.dtype());
            bail!("fsvae: {what} are {dims:?} of {found:?}, the model wants {wanted:?} of {dtype:?}")
        }
        Ok(())
    }
}

/// What latent spikes are called, which are drawn and no layer's.
pub(crate) const Z: &str = "z";

/// Runs layers in a row, with a look at each, if anybody looks.
pub(crate) fn run(
    layers: &SpikingStack,
    drive: Drive<'_>,
    train: bool,
    name: &dyn Fn(usize) -> String,
    observe: Option<&mut Observer<'_>>,
) -> Result<Tensor> {
    match observe {
        Some(observe) => layers.forward_observed(drive, train, &mut |i, spikes| observe(&name(i), spikes)),
        None => layers.forward(drive, train),
    }
}
