//! What guidance and mixtures ask of a network: logits of images of given classes.

use candle_core::Tensor;

use crate::Result;
use crate::denoiser::{no_thresholds, pick};

/// A network whose logits depend on the class of an image: a model of `p(h_0 | h_t, class)`, and of `p(h_0 | h_t)` where it is told
/// that there is no class.
///
/// [`Sdid`](crate::Sdid) is one where its config has classes. [`Conditioned`](crate::Conditioned) makes a [`Denoiser`](crate::Denoiser) of it.
pub trait Conditional {
    /// Returns the number of classes `C`; 0 if the network knows none.
    fn classes(&self) -> usize;

    /// Computes [`Denoiser::logits`](crate::Denoiser::logits) of images of these classes.
    ///
    /// # Shapes
    /// `h_t` and `t` as of [`Denoiser::logits`](crate::Denoiser::logits), `classes: u32 [N]` in `0..=C`, where `C` is no class -> `[N, K, H', W']`.
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn logits_of(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        train: bool,
    ) -> candle_core::Result<Tensor>;

    /// Computes [`Denoiser::logits_at`](crate::Denoiser::logits_at) of images of these classes. By default all logits are computed, and picked.
    ///
    /// # Shapes
    /// `h_t`, `t` and `classes` are those of [`logits_of`](Self::logits_of) -> `[all positions, K]`, map by map, differentiable.
    /// # Errors
    /// Returns the errors of the network's own tensor operations, and an error if its logits have another shape.
    fn logits_of_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        positions: &[Vec<u32>],
        train: bool,
    ) -> Result<Tensor> {
        pick(&self.logits_of(h_t, t, classes, train)?, h_t.dims3()?, positions)
    }

    /// Prepares for many evaluations, as [`Denoiser::prepare`](crate::Denoiser::prepare). By default nothing is prepared.
    ///
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn prepare_of(&self) -> candle_core::Result<Box<dyn ConditionalAt + '_>> {
        Ok(Box::new(Unprepared { network: self, train: false }))
    }

    /// Prepares with scaled thresholds, as [`Denoiser::prepare_at_threshold`](crate::Denoiser::prepare_at_threshold).
    ///
    /// # Errors
    /// Returns the errors of [`prepare_of`](Self::prepare_of), and an error if the network has no thresholds to scale, which is the
    /// default.
    fn prepare_of_at_threshold(&self, scale: f64) -> candle_core::Result<Box<dyn ConditionalAt + '_>> {
        Err(no_thresholds(scale))
    }
}

/// Computes the logits of some tokens only; [`Conditional::prepare_of`] makes it.
pub trait ConditionalAt {
    /// Computes [`Conditional::logits_of_at`] with `train` off, of the network as it was when it was prepared.
    ///
    /// # Shapes
    /// `h_t`, `t` and `classes` are those of [`Conditional::logits_of`] -> `[all positions, K]`, map by map.
    /// # Errors
    /// Returns the errors of the network's own tensor operations, and an error if its logits have another shape.
    fn logits_of_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        positions: &[Vec<u32>],
    ) -> Result<Tensor>;
}

/// A network that prepares nothing.
pub(crate) struct Unprepared<'a, C: ?Sized> {
    pub(crate) network: &'a C,
    pub(crate) train: bool,
}

impl<C: Conditional + ?Sized> ConditionalAt for Unprepared<'_, C> {
    fn logits_of_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        positions: &[Vec<u32>],
    ) -> Result<Tensor> {
        self.network.logits_of_at(h_t, t, classes, positions, self.train)
    }
}

impl<C: Conditional + ?Sized> Conditional for &C {
    fn classes(&self) -> usize {
        (**self).classes()
    }

    fn logits_of(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        train: bool,
    ) -> candle_core::Result<Tensor> {
        (**self).logits_of(h_t, t, classes, train)
    }

    fn logits_of_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        positions: &[Vec<u32>],
        train: bool,
    ) -> Result<Tensor> {
        (**self).logits_of_at(h_t, t, classes, positions, train)
    }

    fn prepare_of(&self) -> candle_core::Result<Box<dyn ConditionalAt + '_>> {
        (**self).prepare_of()
    }

    fn prepare_of_at_threshold(&self, scale: f64) -> candle_core::Result<Box<dyn ConditionalAt + '_>> {
        (**self).prepare_of_at_threshold(scale)
    }
}
