//! The networks that draw images, whoever made them.

use std::borrow::Borrow;

use absorbing_diffusion::{Conditioned, Denoiser, NoisyCodes, RevealOrder, Sdid};
use candle_core::{Result, Tensor};
use snn_core::{DescribeLayers, LayerDescription, Observer};
use vq_svae::VqSvae;

/// Turns images into maps of codes and back. [`VqSvae`] is one, and the example stands with [`Trained::new`](crate::Trained::new).
pub trait Autoencoder {
    /// Returns the name that stands in front of its layers' names in reports, as `vqsvae` does in `vqsvae.encoder.0`.
    fn name(&self) -> &str {
        "autoencoder"
    }

    /// Computes the codes of images.
    ///
    /// # Shapes
    /// `images: [N, channels, H, W]`, pixels in [-0.5, 0.5] -> u32 `[N, H', W']`, each below the config's `sdid.codes`.
    /// # Errors
    /// Returns an error if the images do not fit it.
    fn encode(&self, images: &Tensor) -> Result<Tensor>;

    /// Computes the images of codes.
    ///
    /// # Shapes
    /// `codes: u32 [N, H', W']` -> `[N, channels, H, W]`, pixels meant to lie in [-0.5, 0.5].
    /// # Errors
    /// Returns an error if the codes do not fit it.
    fn decode(&self, codes: &Tensor) -> Result<Tensor>;

    /// Returns the codes of images and what they are decoded to, and shows every layer's spikes `[T, N, ..]` under the names of
    /// [`layers`](Self::layers). By default it encodes and decodes, and shows nothing.
    ///
    /// # Errors
    /// Returns an error if the images do not fit it, and the errors of the observer.
    fn observe(&self, images: &Tensor, _observer: &mut Observer<'_>) -> Result<(Tensor, Tensor)> {
        let codes = self.encode(images)?;
        let again = self.decode(&codes)?;
        Ok((codes, again))
    }

    /// Describes the layers whose operations are counted, as [`DescribeLayers`] does, those that decode last. By default there are none, and
    /// reports say nothing of its operations.
    ///
    /// # Errors
    /// Returns an error if a layer does not fit the one before it.
    fn layers(&self) -> Result<Vec<LayerDescription>> {
        Ok(Vec::new())
    }
}

impl Autoencoder for VqSvae {
    fn name(&self) -> &'static str {
        "vqsvae"
    }

    fn encode(&self, images: &Tensor) -> Result<Tensor> {
        Self::encode(self, images)
    }

    fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        Self::decode(self, codes)
    }

    fn observe(&self, images: &Tensor, observer: &mut Observer<'_>) -> Result<(Tensor, Tensor)> {
        let out = self.forward_observed(images, false, observer)?;
        Ok((out.codes, out.reconstruction))
    }

    fn layers(&self) -> Result<Vec<LayerDescription>> {
        self.describe_layers()
    }
}

/// What points to an autoencoder is one.
macro_rules! hand_on {
    ($($pointer:ty),*) => {$(
        impl<A: Autoencoder + ?Sized> Autoencoder for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn encode(&self, images: &Tensor) -> Result<Tensor> {
                (**self).encode(images)
            }

            fn decode(&self, codes: &Tensor) -> Result<Tensor> {
                (**self).decode(codes)
            }

            fn observe(&self, images: &Tensor, observer: &mut Observer<'_>) -> Result<(Tensor, Tensor)> {
                (**self).observe(images, observer)
            }

            fn layers(&self) -> Result<Vec<LayerDescription>> {
                (**self).layers()
            }
        }
    )*};
}

hand_on!(&A, Box<A>, std::sync::Arc<A>);

/// A denoiser of spiking layers, which can be observed: [`evaluate`](crate::evaluate) then measures its firing rates and its energy.
pub trait SpikingDenoiser: Denoiser + DescribeLayers {
    /// The name that stands in front of its layers' names in reports, as `sdid` does in `sdid.layers.0`.
    fn name(&self) -> &str {
        "denoiser"
    }

    /// Computes [`Denoiser::logits`] with `train` off, and shows every layer's spikes `[T, N, C, H', W']` under the layer's
    /// [name](DescribeLayers::describe_layers).
    ///
    /// # Errors
    /// Returns the errors of the network's own tensor operations and those of the observer.
    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> Result<Tensor>;
}

impl SpikingDenoiser for Sdid {
    fn name(&self) -> &'static str {
        "sdid"
    }

    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> Result<Tensor> {
        self.logits_observed(noisy, false, observer)
    }
}

impl<C: Borrow<Sdid> + Denoiser + DescribeLayers> SpikingDenoiser for Conditioned<C> {
    fn name(&self) -> &'static str {
        "sdid"
    }

    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> Result<Tensor> {
        let classes = self.classes_of(noisy.images, noisy.h_t.device())?;
        let sdid: &Sdid = self.network().borrow();
        sdid.logits_observed(&NoisyCodes { classes: Some(&classes), ..*noisy }, false, observer)
    }
}

/// Draws images, for [`generate`](crate::generate) and [`evaluate`](crate::evaluate): any autoencoder, any denoiser of its codes, and
/// where it is not the config's, the order in which tokens are revealed.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    pub(super) autoencoder: &'a dyn Autoencoder,
    pub(super) denoiser: &'a dyn Denoiser,
    pub(super) spiking: Option<&'a dyn SpikingDenoiser>,
    pub(super) order: Option<&'a dyn RevealOrder>,
}

impl<'a> Networks<'a> {
    /// Takes an autoencoder, and a denoiser of its codes, both of the codes, the map and the diffusion steps of the config (`sdid.codes`,
    /// `sdid.height`, `sdid.width`, `sdid.steps`). The denoiser is not asked for firing rates.
    #[must_use]
    pub fn new(autoencoder: &'a dyn Autoencoder, denoiser: &'a dyn Denoiser) -> Self {
        Self { autoencoder, denoiser, spiking: None, order: None }
    }

    /// Takes a denoiser whose firing rates and energy are measured too.
    #[must_use]
    pub fn spiking(autoencoder: &'a dyn Autoencoder, denoiser: &'a dyn SpikingDenoiser) -> Self {
        Self { spiking: Some(denoiser), ..Self::new(autoencoder, denoiser) }
    }

    /// Returns the same networks with an order of your own in place of the config's.
    #[must_use]
    pub fn with_order(self, order: &'a dyn RevealOrder) -> Self {
        Self { order: Some(order), ..self }
    }
}

impl std::fmt::Debug for Networks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks").field("autoencoder", &self.autoencoder.name()).finish_non_exhaustive()
    }
}
