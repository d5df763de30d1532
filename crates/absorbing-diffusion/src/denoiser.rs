//! What the diffusion asks of a network.

use candle_core::{Result, Tensor};
use snn_core::{Seed, pick_positions};

use crate::AbsorbingProcess;

/// What a [`Denoiser`] is asked about: partly masked codes, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct NoisyCodes<'a> {
    /// u32 `[N, H', W']` in `0..=K`, where `K` is the mask.
    pub h_t: &'a Tensor,
    /// Their diffusion times, u32 `[N]` in `1..=T_d`, on the same device.
    pub t: &'a Tensor,
    /// `images[n]` is the number of the image whose codes are `h_t[n]`: the number that [`Sampler`](crate::Sampler) draws it
    /// by, its place in what [`bits_per_token`](crate::bits_per_token) is given, and its place in the batch of
    /// [`loss`](crate::loss()), so that in training it is a denoiser with the conditions of that batch that the loss is given. A
    /// network without a condition ignores it.
    ///
    /// One number therefore means a training image, a test image or an image that is drawn, whoever asks. Make a denoiser for each of
    /// these uses, with the conditions of its own images, around one network that they borrow. The function `train_denoiser` of the crate
    /// `spiking-diffusion` gives the loss the conditions of each batch: it tells the denoiser the places in the whole training set.
    pub images: &'a [usize],
    /// The class of each image, u32 `[N]` in `0..=C`, where [`C`](Denoiser::classes) is no class; only [`Conditioned`](crate::Conditioned) says it.
    pub classes: Option<&'a Tensor>,
}

impl<'a> NoisyCodes<'a> {
    /// Codes at their times, of images by their numbers and of no class.
    #[must_use]
    pub fn new(h_t: &'a Tensor, t: &'a Tensor, images: &'a [usize]) -> Self {
        Self { h_t, t, images, classes: None }
    }
}

/// The network that the diffusion trains and samples from: a model of `p(h_0 | h_t)`, which is given partly masked codes and
/// returns the logits of every code at every position.
///
/// Nothing in this crate but [`Sdid`](crate::Sdid) knows of spikes. Any network will do, spiking or not, and so will
/// a function, which is the way to write an oracle or a baseline:
///
/// ```
/// use absorbing_diffusion::{Denoiser, NoisyCodes, from_fn};
/// use candle_core::{DType, Device, Result, Tensor};
///
/// # fn main() -> Result<()> {
/// // Knows nothing: every one of 128 codes is as likely as the next.
/// let uniform = from_fn(|h_t, _t, _train| {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 128, h, w), DType::F32, h_t.device())
/// });
/// let h_t = Tensor::full(128u32, (2, 7, 7), &Device::Cpu)?;
/// let t = Tensor::new(&[49u32, 49], &Device::Cpu)?;
/// assert_eq!(uniform.logits(&NoisyCodes::new(&h_t, &t, &[0, 1]), false)?.dims(), [2, 128, 7, 7]);
/// # Ok(()) }
/// ```
///
/// A denoiser may hold something for each image, such as a code that it likes, because it is told which images it is asked about.
///
/// ```
/// use absorbing_diffusion::{Denoiser, NoisyCodes};
/// use candle_core::{DType, Device, Result, Tensor};
///
/// /// Code `liked[i]` everywhere in image `i`.
/// struct Favourite {
///     liked: Vec<u32>,
/// }
///
/// impl Denoiser for Favourite {
///     fn logits(&self, noisy: &NoisyCodes<'_>, _train: bool) -> Result<Tensor> {
///         let (n, h, w) = noisy.h_t.dims3()?;
///         let liked: Vec<u32> = noisy.images.iter().map(|&i| self.liked[i]).collect();
///         let one_hot = candle_nn::encoding::one_hot(Tensor::new(liked, noisy.h_t.device())?, 10, 50f32, 0.)?;
///         one_hot.reshape((n, 10, 1, 1))?.broadcast_as((n, 10, h, w))?.contiguous()
///     }
/// }
/// # fn main() -> Result<()> {
/// let h_t = Tensor::full(10u32, (1, 7, 7), &Device::Cpu)?;
/// let t = Tensor::new(&[49u32], &Device::Cpu)?;
/// let logits = Favourite { liked: vec![4, 2] }.logits(&NoisyCodes::new(&h_t, &t, &[1]), false)?;
/// assert_eq!(logits.argmax(1)?.flatten_all()?.to_vec1::<u32>()?, [2; 49]);
/// # Ok(()) }
/// ```
///
/// A network that is told classes, and guided by them, says how many it [knows](Self::classes); [`Conditioned`](crate::Conditioned) then tells it
/// those of each image.
pub trait Denoiser {
    /// Computes the logits of `p(h_0 | h_t)`. Only those at masked positions are read.
    ///
    /// `train` switches between training and evaluation as usual: batch or running statistics, dropout or none. When it is off,
    /// the logits of an image must not depend on the rest of its batch, or results will depend on the batch size.
    ///
    /// # Shapes
    /// -> `[N, K, H', W']` on the device of the codes, of any float type.
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> Result<Tensor>;

    /// Returns the number of classes `C` that the network can be told ([`NoisyCodes::classes`]), so that it is a model of `p(h_0 | h_t, class)` and,
    /// where there is no class, of `p(h_0 | h_t)`; 0 if it knows none, which is the default.
    fn classes(&self) -> usize {
        0
    }

    /// Checks that the network was made for a process of so many codes and steps. [`Sampler`](crate::Sampler), [`loss`](crate::loss()) and
    /// [`bits_per_token`](crate::bits_per_token) ask. By default any process will do.
    ///
    /// # Errors
    /// Returns an error if it was made for another one.
    fn check_process(&self, _process: &AbsorbingProcess) -> crate::Result<()> {
        Ok(())
    }

    /// Computes [`logits`](Self::logits) of some tokens only: those at the positions `positions[n]` of map `n`, counted row by row. The loss and
    /// the bound ask for masked tokens alone.
    ///
    /// The default implementation computes all logits, and picks.
    ///
    /// # Shapes
    /// -> `[all positions, K]`, map by map, differentiable.
    /// # Errors
    /// Returns the errors of [`logits`](Self::logits), and an error if its logits have another shape.
    fn logits_at(
        &self,
        noisy: &NoisyCodes<'_>,
        positions: &[Vec<u32>],
        train: bool,
    ) -> crate::Result<Tensor> {
        pick(&self.logits(noisy, train)?, noisy.h_t.dims3()?, positions)
    }

    /// Prepares for many evaluations, during which nothing of the network changes.
    /// [`Sampler::sample`](crate::Sampler::sample) calls this once, and then asks for the logits of the tokens that it reveals.
    ///
    /// By default nothing is prepared, and [`logits_at`](Self::logits_at) is asked each time.
    ///
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn prepare(&self) -> Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Everywhere(self)))
    }

    /// Prepares as [`prepare`](Self::prepare) does, with the threshold of every neuron `scale` times as high as it was trained; for
    /// [`SamplingConfig::v_threshold_scale`](crate::SamplingConfig::v_threshold_scale).
    ///
    /// # Errors
    /// Returns the errors of [`prepare`](Self::prepare), and an error if the denoiser has no thresholds to scale, which is the default.
    fn prepare_at_threshold(&self, scale: f64) -> Result<Box<dyn LogitsAt + '_>> {
        let reason = "the denoiser has no thresholds to scale";
        Err(snn_core::Error::config("sampling.v_threshold_scale", scale, reason).into())
    }

    /// Draws what images of this seed are told apart by before their first token, such as their classes, and returns the denoiser that
    /// knows it. [`Sampler::sample`](crate::Sampler::sample) calls this once, and prepares what it gets, unless tokens are
    /// [given](crate::Sampler::with_given), which say more of an image than chance would.
    ///
    /// By default nothing is drawn, and the denoiser itself does. A denoiser that is made around another one hands this on as it does
    /// [`prepare`](Self::prepare), or images have no classes.
    ///
    /// # Errors
    /// Returns an error if the denoiser cannot draw.
    fn of_seed(&self, _seed: Seed) -> crate::Result<Option<Box<dyn Denoiser + '_>>> {
        Ok(None)
    }
}

/// Computes the logits of some tokens only, for sampling; [`Denoiser::prepare`] makes it.
pub trait LogitsAt {
    /// Computes [`Denoiser::logits_at`] with `train` off. The network's parameters must not have changed since it was prepared.
    ///
    /// # Shapes
    /// -> `[all positions, K]`, map by map.
    /// # Errors
    /// Returns the errors of the network's own tensor operations, and an error if its logits have another shape.
    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>]) -> crate::Result<Tensor>;
}

/// A denoiser that prepares nothing.
struct Everywhere<'a, D: ?Sized>(&'a D);

impl<D: Denoiser + ?Sized> LogitsAt for Everywhere<'_, D> {
    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>]) -> crate::Result<Tensor> {
        self.0.logits_at(noisy, positions, false)
    }
}

/// The logits `[N, K, H', W']` at these positions of each map, `[all positions, K]`.
fn pick(logits: &Tensor, (n, h, w): (usize, usize, usize), positions: &[Vec<u32>]) -> crate::Result<Tensor> {
    let k = logits.dims().get(1).copied().unwrap_or(0);
    crate::Error::check_shape("what the denoiser returned", logits.dims(), &[n, k, h, w])?;
    Ok(pick_positions(logits, positions)?)
}

/// Makes a [`Denoiser`] of a function of the codes, their times and `train`, which returns the logits.
pub fn from_fn<F: Fn(&Tensor, &Tensor, bool) -> Result<Tensor>>(f: F) -> FromFn<F> {
    FromFn(f)
}

/// A function as a denoiser: [`from_fn`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct FromFn<F>(F);

impl<F: Fn(&Tensor, &Tensor, bool) -> Result<Tensor>> Denoiser for FromFn<F> {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> Result<Tensor> {
        self.0(noisy.h_t, noisy.t, train)
    }
}

/// Hands the methods of a denoiser on to what is borrowed or boxed.
macro_rules! hand_on {
    ($($pointer:ty),*) => {$(
        impl<D: Denoiser + ?Sized> Denoiser for $pointer {
            fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> Result<Tensor> {
                (**self).logits(noisy, train)
            }

            fn classes(&self) -> usize {
                (**self).classes()
            }

            fn check_process(&self, process: &AbsorbingProcess) -> crate::Result<()> {
                (**self).check_process(process)
            }

            fn logits_at(
                &self,
                noisy: &NoisyCodes<'_>,
                positions: &[Vec<u32>],
                train: bool,
            ) -> crate::Result<Tensor> {
                (**self).logits_at(noisy, positions, train)
            }

            fn prepare(&self) -> Result<Box<dyn LogitsAt + '_>> {
                (**self).prepare()
            }

            fn prepare_at_threshold(&self, scale: f64) -> Result<Box<dyn LogitsAt + '_>> {
                (**self).prepare_at_threshold(scale)
            }

            fn of_seed(&self, seed: Seed) -> crate::Result<Option<Box<dyn Denoiser + '_>>> {
                (**self).of_seed(seed)
            }
        }
    )*};
}

hand_on!(&D, Box<D>, std::sync::Arc<D>);
