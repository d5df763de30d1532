//! Denoisers that are told a class, and guidance by it.

use candle_core::{Device, Tensor};
use rand::Rng;
use snn_core::Seed;

use crate::denoiser::{no_thresholds, pick};
use crate::{AbsorbingProcess, Denoiser, Error, LogitsAt, Result, Schedule};

/// A network whose logits depend on the class of an image: a model of `p(h_0 | h_t, class)`, and of `p(h_0 | h_t)` where it is told
/// that there is no class.
///
/// [`Sdid`](crate::Sdid) is one where its config has classes. [`Conditioned`] makes a [`Denoiser`] of it.
pub trait Conditional {
    /// Returns the number of classes `C`; 0 if the network knows none.
    fn classes(&self) -> usize;

    /// Computes [`Denoiser::logits`] of images of these classes.
    ///
    /// # Shapes
    /// `h_t` and `t` as of [`Denoiser::logits`], `classes: u32 [N]` in `0..=C`, where `C` is no class -> `[N, K, H', W']`.
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn logits_of(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: &Tensor,
        train: bool,
    ) -> candle_core::Result<Tensor>;

    /// Computes [`Denoiser::logits_at`] of images of these classes. By default all logits are computed, and picked.
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

    /// Prepares for many evaluations, as [`Denoiser::prepare`]. By default nothing is prepared.
    ///
    /// # Errors
    /// Returns the errors of the network's own tensor operations.
    fn prepare_of(&self) -> candle_core::Result<Box<dyn ConditionalAt + '_>> {
        Ok(Box::new(Unprepared { network: self, train: false }))
    }

    /// Prepares with scaled thresholds, as [`Denoiser::prepare_at_threshold`].
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
struct Unprepared<'a, C: ?Sized> {
    network: &'a C,
    train: bool,
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

/// Denoises images of known classes: gives each image's class to a network, and exaggerates what the class changes, if asked to.
///
/// Image `i` has class `classes[i % classes.len()]`: one class for all images, a class each, or all classes in turn.
///
/// In a training with [`loss`](crate::loss()), `i` is the place in the batch, so give it a value with the classes of that batch. With those
/// of all training images every batch would be told the first ones, without an error. (The function `train_denoiser` of the crate
/// `spiking-diffusion` does want those of all, because it tells the places in the whole training set.)
///
/// With guidance `g` (classifier-free, Ho and Salimans 2022) the logits are `(1 + g) cond - g uncond`, where `cond` are those of the
/// image's class and `uncond` those of no class: 0 is the class alone, and larger numbers give clearer and less varied images, at
/// twice the cost. The guidance may change with the diffusion time (a [`Schedule`]: `from` at `t = T_d`, where all is masked, `to` at
/// `t = 1`), so that late steps can be guided more than the first ones, which decide what there is to see. Training is never
/// guided.
///
/// # Examples
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, Conditioned, Sampler, SamplingConfig, Schedule, Sdid, SdidConfig, TokenInput};
/// use candle_core::{DType, Device};
/// use snn_core::{ParamStore, Seed};
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let cfg = SdidConfig {
///     time_steps: 2,
///     channels: vec![8; 5],
///     token_input: TokenInput::Embedding { dim: 8 },
///     classes: Some(10),
///     ..SdidConfig::released_code(16, (3, 3))
/// };
/// let sdid = Sdid::new(&cfg, ParamStore::new(Seed(0), DType::F32, &Device::Cpu).builder())?;
/// let process = AbsorbingProcess::new(16, 9)?;
/// let sevens = Conditioned::new(&sdid, vec![7])?.guided(Schedule::Linear { from: 0., to: 2. }, &process)?;
/// let config = SamplingConfig::default();
/// let codes = Sampler::new(&process, &sevens, &config)?.sample(0..4, (3, 3), Seed(0), &Device::Cpu, &mut |_, _| ())?;
/// assert_eq!(codes.dims(), [4, 3, 3]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Conditioned<C> {
    network: C,
    classes: Vec<u32>,
    /// And the diffusion steps that it runs over.
    guidance: Option<(Schedule, usize)>,
}

impl<C: Conditional> Conditioned<C> {
    /// Gives classes to images, without guidance.
    ///
    /// # Errors
    /// Returns an error if the network knows no classes, if there are no classes here, or if one is not in `0..=C` (`C` is no
    /// class).
    pub fn new(network: C, classes: Vec<u32>) -> Result<Self> {
        let known = network.classes();
        if known == 0 {
            return Err(Error::config(
                "classes",
                format!("{classes:?}"),
                "the network was built without classes",
            ));
        }
        if classes.is_empty() {
            return Err(Error::config("classes", "[]", "needs at least one class"));
        }
        if let Some(&class) = classes.iter().find(|class| **class as usize > known) {
            return Err(Error::config("class", class, format!("must be at most {known}, which is no class")));
        }
        Ok(Self { network, classes, guidance: None })
    }

    /// The same denoiser with guidance, over the diffusion times of this process.
    ///
    /// # Errors
    /// Returns an error if the guidance is negative or not finite.
    pub fn guided(self, guidance: impl Into<Schedule>, process: &AbsorbingProcess) -> Result<Self> {
        let guidance = guidance.into();
        let fits = |g: f64| g.is_finite() && g >= 0.;
        guidance.validate("guidance", "must be finite and not negative", fits)?;
        Ok(Self { guidance: Some((guidance, process.steps())), ..self })
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &C {
        &self.network
    }

    fn classes_of(&self, images: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        let classes: Vec<u32> = images.iter().map(|i| self.classes[i % self.classes.len()]).collect();
        Tensor::new(classes, device)
    }

    /// The guidance of each map, unless it is 0 for all.
    fn guidance_at(&self, t: &Tensor) -> candle_core::Result<Option<Vec<f64>>> {
        let Some((guidance, steps)) = self.guidance else { return Ok(None) };
        let at: Vec<f64> = t.to_vec1::<u32>()?.into_iter().map(|t| guidance.at(t as usize, steps)).collect();
        Ok(at.iter().any(|g| *g != 0.).then_some(at))
    }

    /// The logits at some positions, which `network` computes.
    fn at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        images: &[usize],
        positions: &[Vec<u32>],
        guided: bool,
        network: &dyn ConditionalAt,
    ) -> Result<Tensor> {
        let classes = self.classes_of(images, h_t.device())?;
        let Some(guidance) = self.guidance_at(t)?.filter(|_| guided) else {
            return network.logits_of_at(h_t, t, &classes, positions);
        };
        let [h_t, t, classes] = self.twice(h_t, t, &classes)?;
        let both = network.logits_of_at(&h_t, &t, &classes, &[positions, positions].concat())?;
        let rows = guidance.iter().zip(positions).flat_map(|(&g, at)| at.iter().map(move |_| g));
        Ok(guide(&both, rows.collect())?)
    }

    /// Everything twice, the second time without a class.
    fn twice(&self, h_t: &Tensor, t: &Tensor, classes: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        let none = Tensor::full(self.network.classes() as u32, classes.dims(), classes.device())?;
        Ok([Tensor::cat(&[h_t, h_t], 0)?, Tensor::cat(&[t, t], 0)?, Tensor::cat(&[classes, &none], 0)?])
    }
}

/// `cond + g (cond - uncond)`, where both lie one behind the other, with a `g` for each row. A code that the class rules out
/// (`-inf`) stays ruled out, whatever it is without the class.
fn guide(both: &Tensor, guidance: Vec<f64>) -> candle_core::Result<Tensor> {
    let rows = guidance.len();
    let (cond, uncond) = (both.narrow(0, 0, rows)?, both.narrow(0, rows, rows)?);
    let mut shape = vec![1; both.rank()];
    shape[0] = rows;
    let guidance =
        Tensor::from_vec(guidance, shape, &Device::Cpu)?.to_dtype(both.dtype())?.to_device(both.device())?;
    let guided = (&cond + (&cond - uncond)?.broadcast_mul(&guidance)?)?;
    cond.eq(f64::NEG_INFINITY)?.where_cond(&cond, &guided)
}

impl<C: Conditional> Denoiser for Conditioned<C> {
    fn logits(&self, h_t: &Tensor, t: &Tensor, images: &[usize], train: bool) -> candle_core::Result<Tensor> {
        let classes = self.classes_of(images, h_t.device())?;
        match self.guidance_at(t)?.filter(|_| !train) {
            None => self.network.logits_of(h_t, t, &classes, train),
            Some(guidance) => {
                let [h_t, t, classes] = self.twice(h_t, t, &classes)?;
                guide(&self.network.logits_of(&h_t, &t, &classes, false)?, guidance)
            }
        }
    }

    fn logits_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        images: &[usize],
        positions: &[Vec<u32>],
        train: bool,
    ) -> Result<Tensor> {
        let network = Unprepared { network: &self.network, train };
        self.at(h_t, t, images, positions, !train, &network)
    }

    fn prepare(&self) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared { conditioned: self, network: self.network.prepare_of()? }))
    }

    fn prepare_at_threshold(&self, scale: f64) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared { conditioned: self, network: self.network.prepare_of_at_threshold(scale)? }))
    }
}

struct Prepared<'a, C> {
    conditioned: &'a Conditioned<C>,
    network: Box<dyn ConditionalAt + 'a>,
}

impl<C: Conditional> LogitsAt for Prepared<'_, C> {
    fn logits_at(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        images: &[usize],
        positions: &[Vec<u32>],
    ) -> Result<Tensor> {
        self.conditioned.at(h_t, t, images, positions, true, &*self.network)
    }
}

/// Replaces a share of the labels by no class, at random, so that a network learns to go without: what one step of a training for
/// guidance is given.
///
/// The numbers come from the seed's stream of this label, and each training step needs a label of its own.
///
/// # Examples
/// ```
/// use absorbing_diffusion::drop_labels;
/// use snn_core::Seed;
/// let labels = drop_labels(&[3; 1000], 10, 0.1, Seed(0), "labels/0");
/// let dropped = labels.iter().filter(|label| **label == 10).count();
/// assert!((70..130).contains(&dropped) && labels.iter().all(|label| [3, 10].contains(label)));
/// ```
#[must_use]
pub fn drop_labels(labels: &[u32], classes: usize, share: f64, seed: Seed, label: &str) -> Vec<u32> {
    let mut rng = seed.rng(label);
    let none = classes as u32;
    labels.iter().map(|&label| if rng.random::<f64>() < share { none } else { label }).collect()
}
