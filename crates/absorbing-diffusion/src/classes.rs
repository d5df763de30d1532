//! Denoisers that are told a class, and guidance by it.

use candle_core::{Device, Tensor};
use rand::Rng;
use rand::distr::{Distribution, weighted::WeightedIndex};
use snn_core::{DescribeLayers, LayerDescription, Seed};

use crate::conditional::Unprepared;
use crate::{AbsorbingProcess, Conditional, ConditionalAt, Denoiser, Error, LogitsAt, Result, Schedule};

/// Denoises images of known classes: gives each image's class to a network, and exaggerates what the class changes, if asked to.
///
/// Image `i` has class `classes[i % classes.len()]`: one class for all images, a class each, or all classes in turn. Or its class is
/// [drawn](Self::drawn).
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
    classes: Classes,
    /// And the diffusion steps that it runs over.
    guidance: Option<(Schedule, usize)>,
}

/// Says which class an image has.
#[derive(Clone, Debug)]
enum Classes {
    /// Image `i` has class `i % len`.
    InTurn(Vec<u32>),
    /// Each class has this share of the images of a seed; without a seed, images have no class.
    Drawn { shares: WeightedIndex<f64>, seed: Option<Seed> },
}

impl<C: Conditional> Conditioned<C> {
    /// Gives classes to images, without guidance.
    ///
    /// # Errors
    /// Returns an error if the network knows no classes, if there are no classes here, or if one is not in `0..=C` (`C` is no
    /// class).
    pub fn new(network: C, classes: Vec<u32>) -> Result<Self> {
        let known = known(&network)?;
        if classes.is_empty() {
            return Err(Error::config("classes", "[]", "needs at least one class"));
        }
        if let Some(&class) = classes.iter().find(|class| **class as usize > known) {
            return Err(Error::config("class", class, format!("must be at most {known}, which is no class")));
        }
        Ok(Self { network, classes: Classes::InTurn(classes), guidance: None })
    }

    /// Lets a [`Sampler`](crate::Sampler) draw the class of each image, in proportion to `shares`, one for each class: together they
    /// are the mixture `p(h_0) = sum_c p(c) p(h_0 | c)`, of images of any class. Image `i` draws its class from the stream `class/<i>` of
    /// the sampler's seed, and has none where nobody says a seed.
    ///
    /// # Errors
    /// Returns an error if the network knows no classes, if there is not one share for each, or if shares are negative, not finite or
    /// all 0.
    pub fn drawn(network: C, shares: &[f64]) -> Result<Self> {
        let known = known(&network)?;
        let refused = || {
            let reason = format!("needs {known} numbers, none of them negative, and one of them positive");
            Error::config("shares", format!("{shares:?}"), reason)
        };
        if shares.len() != known || !shares.iter().sum::<f64>().is_finite() {
            return Err(refused());
        }
        let shares = WeightedIndex::new(shares).map_err(|_| refused())?;
        Ok(Self { network, classes: Classes::Drawn { shares, seed: None }, guidance: None })
    }

    /// The same denoiser for images of this seed, where classes are drawn. (A sampler does this by itself.)
    #[must_use]
    pub fn with_seed(self, seed: Seed) -> Self {
        let classes = match self.classes {
            Classes::Drawn { shares, .. } => Classes::Drawn { shares, seed: Some(seed) },
            in_turn @ Classes::InTurn(_) => in_turn,
        };
        Self { classes, ..self }
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

    /// Returns the classes of these images, u32 `[N]`; `C` is no class.
    ///
    /// # Errors
    /// Returns an error if they cannot be copied to the device.
    pub fn classes_of(&self, images: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        let of = |&i: &usize| match &self.classes {
            Classes::InTurn(classes) => classes[i % classes.len()],
            Classes::Drawn { seed: None, .. } => self.network.classes() as u32,
            Classes::Drawn { shares, seed: Some(seed) } => {
                shares.sample(&mut seed.rng(&format!("class/{i}"))) as u32
            }
        };
        Tensor::new(images.iter().map(of).collect::<Vec<u32>>(), device)
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

impl<C: DescribeLayers> DescribeLayers for Conditioned<&C> {
    fn describe_layers(&self) -> candle_core::Result<Vec<LayerDescription>> {
        self.network.describe_layers()
    }
}

/// The number of classes, which must not be 0.
fn known(network: &impl Conditional) -> Result<usize> {
    match network.classes() {
        0 => Err(Error::config("classes", 0, "the network was built without classes")),
        known => Ok(known),
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

    fn of_seed(&self, seed: Seed) -> Result<Option<Box<dyn Denoiser + '_>>> {
        let Self { network, classes, guidance } = self;
        Ok(match classes {
            Classes::InTurn(_) => None,
            Classes::Drawn { .. } => {
                let network: &dyn Conditional = network;
                let borrowed = Conditioned { network, classes: classes.clone(), guidance: *guidance };
                Some(Box::new(borrowed.with_seed(seed)))
            }
        })
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
