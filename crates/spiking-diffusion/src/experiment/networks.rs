//! The networks that draw images, whoever made them.

use std::borrow::Borrow;

use absorbing_diffusion::{Conditioned, Denoiser, NoisyCodes, RevealOrder, Sdid};
use candle_core::Tensor;
use snn_core::{DescribeLayers, Observer};
use vq_svae::VqSvae;

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
    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> candle_core::Result<Tensor>;
}

impl SpikingDenoiser for Sdid {
    fn name(&self) -> &'static str {
        "sdid"
    }

    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> candle_core::Result<Tensor> {
        self.logits_observed(noisy, false, observer)
    }
}

impl<C: Borrow<Sdid> + Denoiser + DescribeLayers> SpikingDenoiser for Conditioned<C> {
    fn name(&self) -> &'static str {
        "sdid"
    }

    fn observe(&self, noisy: &NoisyCodes<'_>, observer: &mut Observer<'_>) -> candle_core::Result<Tensor> {
        let classes = self.classes_of(noisy.images, noisy.h_t.device())?;
        let sdid: &Sdid = self.network().borrow();
        sdid.logits_observed(&NoisyCodes { classes: Some(&classes), ..*noisy }, false, observer)
    }
}

/// Draws images, for [`generate`](crate::generate) and [`evaluate`](crate::evaluate): an autoencoder, any denoiser of its codes, and
/// where it is not the config's, the order in which tokens are revealed.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    pub(super) vqsvae: &'a VqSvae,
    pub(super) denoiser: &'a dyn Denoiser,
    pub(super) spiking: Option<&'a dyn SpikingDenoiser>,
    pub(super) order: Option<&'a dyn RevealOrder>,
}

impl<'a> Networks<'a> {
    /// Takes any denoiser of the codes, the map and the diffusion steps of the config (`sdid.codes`, `sdid.height`, `sdid.width`,
    /// `sdid.steps`). It is not asked for firing rates.
    #[must_use]
    pub fn new(vqsvae: &'a VqSvae, denoiser: &'a dyn Denoiser) -> Self {
        Self { vqsvae, denoiser, spiking: None, order: None }
    }

    /// Takes a denoiser whose firing rates and energy are measured too.
    #[must_use]
    pub fn spiking(vqsvae: &'a VqSvae, denoiser: &'a dyn SpikingDenoiser) -> Self {
        Self { spiking: Some(denoiser), ..Self::new(vqsvae, denoiser) }
    }

    /// Returns the same networks with an order of your own in place of the config's.
    #[must_use]
    pub fn with_order(self, order: &'a dyn RevealOrder) -> Self {
        Self { order: Some(order), ..self }
    }
}

impl std::fmt::Debug for Networks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks").field("vqsvae", self.vqsvae).finish_non_exhaustive()
    }
}
