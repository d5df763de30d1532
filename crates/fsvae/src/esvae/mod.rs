//! The ESVAE: latent spikes by their rates, without chains.

mod config;
mod draws;
mod mmd;

use candle_core::{DType, Result as CandleResult, Tensor};
use candle_nn::{Init, VarBuilder};
use snn_core::{DescribeLayers, LayerDescription, Model, Observer, fan_in_bound, straight_through};

pub use config::EsvaeConfig;
pub use draws::EsvaeDraws;

use crate::body::Body;
use crate::{Error, Losses, Result};

/// Everything that one pass of an [`Esvae`] makes.
#[derive(Clone, Debug)]
pub struct EsvaeOutput {
    /// Rates of the posterior: how often each latent neuron spikes, `[N, C]`.
    pub r_q: Tensor,
    /// Rates that the prior draws, `[N, C]`.
    pub r_p: Tensor,
    /// Latent spikes, drawn by `r_q`: `[T, N, C]`.
    pub z: Tensor,
    /// The image again, `[N, channels, H, W]`.
    pub reconstruction: Tensor,
}

/// An efficient spiking variational autoencoder (ESVAE; Zhan et al. 2023): the FSVAE paper's encoder and decoder, between which nothing but the
/// rates of the latent neurons counts.
///
/// The encoder's latent neurons spike at the rates `r_q`; at each time step `z_t = 1` where `r_q > u_t`, with `u_t` uniform in [0, 1), and the
/// gradient passes where `|r_q - u_t| < 1/2`. The prior makes rates of normal noise, `r_p = sigmoid(linear(noise))`; the
/// loss draws the two distributions of rates together.
///
/// Its authors train the prior's linear map (the parameters `prior.*`) at ten times the rate of all others.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use fsvae::{Esvae, EsvaeConfig, EsvaeDraws};
/// use snn_core::{ParamStore, Seed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cfg = EsvaeConfig::original(1);
/// cfg.body.time_steps = 4;
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let model = Esvae::new(&cfg, params.builder())?;
/// let images = Tensor::zeros((2, 1, 32, 32), DType::F32, &Device::Cpu)?; // in [-1, 1]
/// let draws = EsvaeDraws::new(&cfg, 2, Seed(0), "esvae/draws/0", &Device::Cpu)?;
/// let loss = model.losses(&images, &model.forward_t(&images, &draws, true)?)?.total()?;
/// let gradients = params.gradients(&loss.backward()?)?;
/// assert!(gradients.contains_key("prior.weight"));
/// assert_eq!(model.sample(&draws)?.dims(), [2, 1, 32, 32]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Esvae {
    cfg: EsvaeConfig,
    body: Body,
    /// `[C, C]` and `[C]`.
    prior: (Tensor, Tensor),
    dtype: DType,
}

impl Esvae {
    /// Builds the model, creating its parameters in `vb` or finding them there.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](EsvaeConfig::validate), or if `vb` holds parameters of other shapes.
    pub fn new(cfg: &EsvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        let (c, prior) = (cfg.body.latent, vb.pp("prior"));
        let bound = fan_in_bound(&[c, c]);
        let init = Init::Uniform { lo: -bound, up: bound };
        let prior = (prior.get_with_hints((c, c), "weight", init)?, prior.get_with_hints(c, "bias", init)?);
        Ok(Self { body: Body::new(&cfg.body, &vb)?, prior, dtype: vb.dtype(), cfg: cfg.clone() })
    }

    /// A whole pass at these draws. With `train`, norms use the statistics of the pass and move the running ones.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, with draws for `N` images.
    /// # Errors
    /// Returns an error if images or draws have another shape.
    pub fn forward_t(&self, images: &Tensor, draws: &EsvaeDraws, train: bool) -> CandleResult<EsvaeOutput> {
        self.pass(images, draws, train, None)
    }

    /// [`forward_t`](Self::forward_t), with a look at every layer's spikes, and at the latent spikes `z`.
    ///
    /// # Shapes
    /// As [`forward_t`](Self::forward_t).
    /// # Errors
    /// As [`forward_t`](Self::forward_t), and the observer's own.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        draws: &EsvaeDraws,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> CandleResult<EsvaeOutput> {
        self.pass(images, draws, train, Some(observe))
    }

    fn pass(
        &self,
        images: &Tensor,
        draws: &EsvaeDraws,
        train: bool,
        mut observe: Option<&mut Observer<'_>>,
    ) -> CandleResult<EsvaeOutput> {
        let r_q = self.body.encode(images, train, observe.as_deref_mut())?.mean(0)?;
        let z = self.spikes(&r_q, &draws.uniform)?;
        let reconstruction = self.body.decode(&z, train, observe)?;
        Ok(EsvaeOutput { r_p: self.prior_rates(&draws.noise)?, r_q, z, reconstruction })
    }

    /// The terms of the loss for a pass over these images.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, those of the pass -> scalars.
    /// # Errors
    /// Returns an error if the images have another shape than those of the pass.
    pub fn losses(&self, images: &Tensor, out: &EsvaeOutput) -> CandleResult<Losses> {
        let distance = mmd::rbf(&out.r_q, &out.r_p, self.cfg.bandwidths)?;
        Losses::of(images, &out.reconstruction, (distance * self.cfg.weight)?)
    }

    /// Draws the latent spikes of images, with running statistics.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, `uniform: [T, N, C]` in [0, 1) -> `[T, N, C]`.
    /// # Errors
    /// Returns an error if images or numbers have another shape.
    pub fn encode(&self, images: &Tensor, uniform: &Tensor) -> CandleResult<Tensor> {
        self.spikes(&self.body.encode(images, false, None)?.mean(0)?, uniform)
    }

    /// Makes images of latent spikes, with running statistics.
    ///
    /// # Shapes
    /// `z: [T, N, C]` -> `[N, channels, H, W]` in [-1, 1].
    /// # Errors
    /// Returns an error if the spikes have another shape.
    pub fn decode(&self, z: &Tensor) -> CandleResult<Tensor> {
        self.body.check("latent spikes", z, z.dims3()?.1, self.dtype)?;
        self.body.decode(z, false, None)
    }

    /// Draws images from the prior, with running statistics.
    ///
    /// # Shapes
    /// Draws for `N` images -> `[N, channels, H, W]` in [-1, 1].
    /// # Errors
    /// Returns an error if the draws have another shape.
    pub fn sample(&self, draws: &EsvaeDraws) -> CandleResult<Tensor> {
        let rates = self.prior_rates(&draws.noise)?;
        self.body.decode(&self.spikes(&rates, &draws.uniform)?.detach(), false, None)
    }

    /// `sigmoid(linear(noise))`: `[N, C]` -> `[N, C]`.
    fn prior_rates(&self, noise: &Tensor) -> CandleResult<Tensor> {
        let (weight, bias) = &self.prior;
        candle_nn::ops::sigmoid(&noise.to_dtype(self.dtype)?.matmul(&weight.t()?)?.broadcast_add(bias)?)
    }

    /// `z_t = 1` where the rate lies above `u_t`; the gradient passes where they are less than 1/2 apart.
    fn spikes(&self, rates: &Tensor, uniform: &Tensor) -> CandleResult<Tensor> {
        let uniform = uniform.to_dtype(self.dtype)?;
        self.body.check("uniform numbers", &uniform, rates.dim(0)?, self.dtype)?;
        let rates = rates.unsqueeze(0)?.broadcast_as(uniform.shape())?;
        let spikes = rates.gt(&uniform)?.to_dtype(self.dtype)?;
        let window = (rates.detach() - &uniform)?.abs()?.lt(0.5)?.to_dtype(self.dtype)?;
        straight_through(&spikes, &(rates * window)?)
    }
}

/// Every spiking layer by the name that [`forward_observed`](Esvae::forward_observed) gives, and the `head`; the prior's linear map, which runs
/// on numbers once an image, is not among them. `z` is no layer: what reads it reads the latent spikes, which are seen under this name.
impl DescribeLayers for Esvae {
    fn describe_layers(&self) -> CandleResult<Vec<LayerDescription>> {
        Ok([self.body.describe_encoder()?, self.body.describe_decoder()?].concat())
    }
}

impl Model for Esvae {
    const KIND: &'static str = "esvae";
    type Config = EsvaeConfig;
    type Error = Error;

    fn build(cfg: &EsvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(cfg, vb)
    }

    fn config(&self) -> &EsvaeConfig {
        &self.cfg
    }
}
