//! The networks of a finished run.

use absorbing_diffusion::{Conditioned, Denoiser, RevealOrder, Schedule, Sdid};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::Progress;
use vq_svae::VqSvae;

use super::batches::process;
use super::config::ExperimentConfig;
use super::drawing::generate;
use super::networks::{Autoencoder, Networks, SpikingDenoiser};
use super::saved::sha256;
use crate::error::{Error, Result};

/// Draws images from a finished run, by [`samples`](Self::samples), [`generation::save`](crate::generation::save) and
/// [`sweep::sweep`](crate::sweep::sweep()): holds its networks, or those of your own.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trained<D = Sdid, A = VqSvae> {
    /// The run's config, its seed among it.
    pub cfg: ExperimentConfig,
    /// The autoencoder.
    pub autoencoder: A,
    /// The denoiser.
    pub denoiser: D,
    /// SHA-256 of what both networks come from: two runs with equal ones have equal networks.
    pub sha256: String,
    pub(super) order: Option<OwnOrder>,
    pub(super) condition: Option<Condition>,
    /// The denoiser as one that can be observed.
    spiking: Option<fn(&D) -> &dyn SpikingDenoiser>,
}

/// Says which classes images are of, and how far they are guided towards them; see [`Conditioned`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Image `i` has class `classes[i % classes.len()]`; with none here, one is drawn for each image, by its share.
    pub classes: Vec<u32>,
    /// How far what sets the class apart is exaggerated; 0 is the class alone.
    pub guidance: Schedule,
}

/// An order of the user's own, by the name that tells its images from others.
pub(super) struct OwnOrder {
    pub(super) name: String,
    order: Box<dyn RevealOrder + Send + Sync>,
}

impl std::fmt::Debug for OwnOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OwnOrder").field(&self.name).finish()
    }
}

impl Trained {
    /// Returns the same networks for images of these classes. The run must have been trained with `sdid.classes`.
    ///
    /// # Errors
    /// Returns an error if the network knows no classes, if one is asked for that it does not know, if the guidance is negative or not
    /// finite, or if there is any and the run was trained with a `label_dropout` of 0.
    /// # Examples
    /// ```no_run
    /// use candle_core::Device;
    /// use spiking_diffusion::{Condition, Silent, Trained};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let trained = Trained::load("runs/digits-with-classes".as_ref(), &Device::Cpu)?;
    /// let sevens = trained.of_classes(Condition { classes: vec![7], guidance: 2.0.into() })?;
    /// assert_eq!(sevens.samples(16, &Device::Cpu, &mut Silent)?.dims(), [16, 1, 28, 28]);
    /// # Ok(()) }
    /// ```
    pub fn of_classes(self, condition: Condition) -> Result<Trained<Conditioned<Sdid>>> {
        let Self { cfg, autoencoder, denoiser, sha256, order, .. } = self;
        if cfg.label_dropout == Some(0.) && condition.guidance != Schedule::from(0.) {
            let reason = "the run was trained with `label_dropout` = 0, and knows no image without a class";
            return Err(Error::config("guidance", format!("{:?}", condition.guidance), reason));
        }
        let denoiser = match &condition.classes[..] {
            [] => {
                let shares = denoiser.class_shares()?;
                Conditioned::drawn(denoiser, &shares)?
            }
            classes => Conditioned::new(denoiser, classes.to_vec())?,
        };
        let denoiser = denoiser.guided(condition.guidance, &process(&cfg)?)?;
        Ok(Trained { cfg, autoencoder, denoiser, sha256, order, condition: Some(condition), spiking: None })
    }
}

impl<D: Denoiser, A: Autoencoder> Trained<D, A> {
    /// Takes two networks of your own: any autoencoder, and any denoiser of its codes. The config's `sdid` says how many codes there are, on
    /// which map, and in how many diffusion steps (`codes`, `height`, `width`, `steps`), its `vqsvae.image` how large images are, and its `seed` and
    /// `sampling` how they are drawn.
    ///
    /// `name` says which networks they are, conditions included: [`generation::save`](crate::generation::save) takes the images of two
    /// pairs with one name for the same.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use spiking_diffusion::absorbing_diffusion::from_fn;
    /// use spiking_diffusion::{Autoencoder, ExperimentConfig, Preset, Silent, Trained, data};
    ///
    /// /// A block of 4x4 pixels is black or white, as its mean is.
    /// struct Blocks;
    ///
    /// impl Autoencoder for Blocks {
    ///     fn encode(&self, images: &Tensor) -> candle_core::Result<Tensor> {
    ///         images.avg_pool2d(4)?.mean(1)?.gt(0.)?.to_dtype(candle_core::DType::U32)
    ///     }
    ///
    ///     fn decode(&self, codes: &Tensor) -> candle_core::Result<Tensor> {
    ///         let (_, h, w) = codes.dims3()?;
    ///         (codes.unsqueeze(1)?.to_dtype(candle_core::DType::F32)? - 0.5)?.upsample_nearest2d(4 * h, 4 * w)
    ///     }
    /// }
    ///
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let digits = data::mnist(None)?;
    /// let mut cfg = ExperimentConfig::for_data(Preset::Quick, &digits)?;
    /// (cfg.sdid.codes, cfg.sdid.height, cfg.sdid.width) = (2, 7, 7);
    /// // A denoiser that knows nothing: both codes are equally likely everywhere.
    /// let none = from_fn(|h_t, _, _| {
    ///     let (n, h, w) = h_t.dims3()?;
    ///     Tensor::zeros((n, 2, h, w), candle_core::DType::F32, h_t.device())
    /// });
    /// let blocks = Trained::new(cfg, Blocks, none, "blocks of noise");
    /// assert_eq!(blocks.samples(4, &Device::Cpu, &mut Silent)?.dims(), [4, 1, 28, 28]);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new(cfg: ExperimentConfig, autoencoder: A, denoiser: D, name: &str) -> Self {
        Self::of(cfg, autoencoder, denoiser, sha256(&[name.as_bytes()]))
    }

    pub(super) fn of(cfg: ExperimentConfig, autoencoder: A, denoiser: D, sha256: String) -> Self {
        Self { cfg, autoencoder, denoiser, sha256, order: None, condition: None, spiking: None }
    }

    /// Returns the same networks with an order of your own in place of the config's.
    ///
    /// `name` says which order it is: [`generation::save`](crate::generation::save) takes the images of two orders with one name for
    /// the same.
    #[must_use]
    pub fn with_order(self, name: &str, order: impl RevealOrder + Send + Sync + 'static) -> Self {
        Self { order: Some(OwnOrder { name: name.to_owned(), order: Box::new(order) }), ..self }
    }

    /// Returns the same networks, whose denoiser [`evaluate`](crate::evaluate) observes, to measure its firing rates and energy.
    /// The run's own SDID is observed in any case.
    #[must_use]
    pub fn spiking(self) -> Self
    where
        D: SpikingDenoiser,
    {
        Self { spiking: Some(|denoiser| denoiser), ..self }
    }

    /// Borrows both networks, and the order if it is an own one.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        let networks = match self.spiking {
            Some(spiking) => Networks::spiking(&self.autoencoder, spiking(&self.denoiser)),
            None => Networks::new(&self.autoencoder, &self.denoiser),
        };
        match &self.order {
            Some(own) => networks.with_order(&*own.order),
            None => networks,
        }
    }

    /// Draws the first `count` images of the config's seed and sampling: `[count, channels, H, W]`, on the CPU, pixels as of
    /// [`VqSvae::decode`]. `device` is that of the networks. [`generation::save`](crate::generation::save) writes them as files instead, clamped.
    ///
    /// # Errors
    /// Returns the errors of [`generate`], and an error if `count` is 0.
    pub fn samples(&self, count: usize, device: &Device, progress: &mut dyn Progress) -> Result<Tensor> {
        if count == 0 {
            return Err(Error::config("samples", count, "must be at least 1"));
        }
        generate(&self.cfg, self.networks(), 0..count, device, progress)
    }
}
