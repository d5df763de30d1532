//! The FSVAE: encoder, posterior, prior, decoder.

use candle_core::{DType, Tensor, bail};
use candle_nn::VarBuilder;
use snn_core::{DescribeLayers, LayerDescription, Model, Observer};

use crate::body::{Body, Z};
use crate::chain::{Chain, Course, pick};
use crate::{Draws, Error, FsvaeConfig, Losses, Result};

/// Everything that one pass makes.
#[derive(Clone, Debug)]
pub struct Output {
    /// Candidates of the posterior, `[T, N, C, k]`.
    pub q_z: Tensor,
    /// Candidates of the prior, `[T, N, C, k]`.
    pub p_z: Tensor,
    /// Latent spikes, picked from `q_z`: `[T, N, C]`.
    pub z: Tensor,
    /// The image again, `[N, channels, H, W]`.
    pub reconstruction: Tensor,
}

/// A fully spiking variational autoencoder (Kamata, Mukuta, Harada 2022): an image becomes the spike trains of `C` latent variables, each of
/// them a Bernoulli draw at each time step, and a prior of spiking layers learns to draw such trains by itself.
///
/// The posterior `q(z_t | x_{<=t}, z_{<t})` and the prior `p(z_t | z_{<t})` offer `k` candidate spikes for each variable; one is picked
/// uniformly, so that the mean of the `k` is the probability of a spike.
///
/// # Examples
/// One training step, then images from the prior:
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use fsvae::{Draws, Fsvae, FsvaeConfig};
/// use snn_core::{AdamW, AdamWConfig, ParamStore, Seed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cfg = FsvaeConfig::table1();
/// cfg.body.time_steps = 4;
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let model = Fsvae::new(&cfg, params.builder())?;
/// let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
///
/// let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?; // in [-0.5, 0.5]
/// let draws = Draws::new(&cfg, 2, 0., Seed(0), "fsvae/draws/0", &Device::Cpu)?;
/// let out = model.forward_t(&images, &draws, true)?;
/// let loss = model.losses(&images, &out)?.total()?;
/// optimiser.step(&params.gradients(&loss.backward()?)?, 1.)?;
///
/// let picks = Draws::picks(&cfg, 3, Seed(0), "fsvae/samples", &Device::Cpu)?;
/// assert_eq!(model.sample(&picks)?.dims(), [3, 1, 28, 28]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Fsvae {
    cfg: FsvaeConfig,
    body: Body,
    posterior: Chain,
    prior: Chain,
    dtype: DType,
}

impl Fsvae {
    /// Builds the model, creating its parameters in `vb` or finding them there.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](FsvaeConfig::validate), or if `vb` holds parameters of other shapes.
    pub fn new(cfg: &FsvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        cfg.validate()?;
        Ok(Self {
            body: Body::new(&cfg.body, &vb)?,
            posterior: Chain::new("posterior", 2 * cfg.body.latent, cfg, &vb)?,
            prior: Chain::new("prior", cfg.body.latent, cfg, &vb)?,
            dtype: vb.dtype(),
            cfg: cfg.clone(),
        })
    }

    /// A whole pass at these draws. With `train`, norms use the statistics of the pass and move the running ones, and `draws.scheduled`
    /// is looked at.
    ///
    /// In training with a norm in prior and posterior, the draws are made by passes over growing prefixes, as its authors do, which also
    /// move the running statistics; the decoder's spikes are picked from the last pass, and may differ from the draws that the
    /// posterior was told. In evaluation, and without a norm there, it goes step by step.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`; `draws.picks: [T, N, C]`.
    /// # Errors
    /// Returns an error if images or draws have another shape, or if a pick is `k` or more.
    pub fn forward_t(&self, images: &Tensor, draws: &Draws, train: bool) -> candle_core::Result<Output> {
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
        draws: &Draws,
        train: bool,
        observe: &mut Observer<'_>,
    ) -> candle_core::Result<Output> {
        self.pass(images, draws, train, Some(observe))
    }

    /// Refuses picks of another shape, or of a candidate that there is not. (Candle takes the largest number for "none", and has a zero for it.)
    fn check(&self, picks: &Tensor, items: usize) -> candle_core::Result<()> {
        self.body.check("picks", picks, items, DType::U32)?;
        let k = self.cfg.candidates;
        match picks.flatten_all()?.to_vec1::<u32>()?.into_iter().find(|&pick| pick as usize >= k) {
            None => Ok(()),
            Some(pick) => bail!("fsvae: a pick is {pick}, of {k} candidates"),
        }
    }

    fn pass(
        &self,
        images: &Tensor,
        draws: &Draws,
        train: bool,
        mut observe: Option<&mut Observer<'_>>,
    ) -> candle_core::Result<Output> {
        let xs = self.body.encode(images, train, observe.as_deref_mut())?;
        self.check(&draws.picks, images.dim(0)?)?;
        let q_z = self.posterior(&xs, &draws.picks, train, observe.as_deref_mut())?;
        let z = pick(&q_z, &draws.picks)?;
        let told = self.told_to_prior(&z.detach(), draws, train)?;
        let p_z = self.prior.forward(&told, train, observe.as_deref_mut())?;
        let reconstruction = self.body.decode(&z, train, observe)?;
        Ok(Output { q_z, p_z, z, reconstruction })
    }

    /// The terms of the loss for a pass over these images.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, those of the pass -> scalars.
    /// # Errors
    /// Returns an error if the images have another shape than those of the pass.
    pub fn losses(&self, images: &Tensor, out: &Output) -> candle_core::Result<Losses> {
        Losses::new(&self.cfg, images, out)
    }

    /// Draws the latent spikes of images, with running statistics.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, `picks: [T, N, C]` -> `[T, N, C]`.
    /// # Errors
    /// Returns an error if images or picks have another shape, or if a pick is `k` or more.
    pub fn encode(&self, images: &Tensor, picks: &Tensor) -> candle_core::Result<Tensor> {
        let xs = self.body.encode(images, false, None)?;
        self.check(picks, images.dim(0)?)?;
        pick(&self.posterior(&xs, picks, false, None)?, picks)
    }

    /// Makes images of latent spikes, with running statistics.
    ///
    /// # Shapes
    /// `z: [T, N, C]` -> `[N, channels, H, W]` in [-1, 1].
    /// # Errors
    /// Returns an error if the spikes have another shape.
    pub fn decode(&self, z: &Tensor) -> candle_core::Result<Tensor> {
        self.body.check("latent spikes", z, z.dims3()?.1, self.dtype)?;
        self.body.decode(z, false, None)
    }

    /// Draws images from the prior, one time step after the other, and with running statistics.
    ///
    /// # Shapes
    /// `picks: [T, N, C]`, of [`Draws::picks`] -> `[N, channels, H, W]` in [-1, 1].
    /// # Errors
    /// Returns an error if the picks have another shape, or if one is `k` or more.
    pub fn sample(&self, picks: &Tensor) -> candle_core::Result<Tensor> {
        self.check(picks, picks.dims3()?.1)?;
        let course = self.prior.by_steps(None, picks, self.dtype)?;
        self.body.decode(&pick(&course.candidates, picks)?, false, None)
    }

    /// The posterior's candidates, with gradient in training.
    fn posterior(
        &self,
        xs: &Tensor,
        picks: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> candle_core::Result<Tensor> {
        let before = if train && self.posterior.is_normed() {
            self.posterior.by_prefixes(xs, picks)?
        } else {
            let Course { before, candidates } =
                self.posterior.by_steps(Some(&xs.detach()), picks, self.dtype)?;
            if !train && observe.is_none() {
                return Ok(candidates);
            }
            before
        };
        self.posterior.forward(&Tensor::cat(&[xs, &before], 2)?, train, observe)
    }

    /// `z_{t-1}` at every time step, in training some of them the prior's own draws.
    fn told_to_prior(&self, z: &Tensor, draws: &Draws, train: bool) -> candle_core::Result<Tensor> {
        let (steps, n, c) = z.dims3()?;
        let mut before = vec![Tensor::zeros((n, c), z.dtype(), z.device())?];
        for t in 0..steps - 1 {
            before.push(match draws.scheduled.get(t).and_then(Option::as_ref) {
                Some(noise) if train => self.own_draw(&Tensor::stack(&before, 0)?, noise)?,
                _ => z.get(t)?,
            });
        }
        Tensor::stack(&before, 0)
    }

    /// What the prior would say next: `mean_k p + noise > 1/2`.
    fn own_draw(&self, told: &Tensor, noise: &Tensor) -> candle_core::Result<Tensor> {
        let scale = self.cfg.scheduled.map_or(0., |scheduled| scheduled.noise);
        let rates = self.prior.last(told)?.mean(2)?;
        let noisy = (rates + (noise.to_dtype(told.dtype())? * scale)?)?;
        noisy.gt(0.5)?.to_dtype(told.dtype())
    }
}

/// Every layer by the name that [`forward_observed`](Fsvae::forward_observed) gives, and the `head`. `z` is no layer: what reads it reads the
/// latent spikes, which are seen under this name.
impl DescribeLayers for Fsvae {
    fn describe_layers(&self) -> candle_core::Result<Vec<LayerDescription>> {
        let (encoder, decoder) = (self.body.describe_encoder()?, self.body.describe_decoder()?);
        let (posterior, prior) = (self.posterior.describe(&["to_latent", Z])?, self.prior.describe(&[Z])?);
        Ok([encoder, posterior, prior, decoder].concat())
    }
}

impl Model for Fsvae {
    const KIND: &'static str = "fsvae";
    type Config = FsvaeConfig;
    type Error = Error;

    fn build(cfg: &FsvaeConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(cfg, vb)
    }

    fn config(&self) -> &FsvaeConfig {
        &self.cfg
    }
}
