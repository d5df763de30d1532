//! Denoisers that are told a class, and guidance by it.

use candle_core::{Device, Tensor};
use rand::Rng;
use rand::distr::{Distribution, weighted::WeightedIndex};
use snn_core::{DescribeLayers, LayerDescription, Seed};

use crate::{AbsorbingProcess, Denoiser, Error, LogitsAt, NoisyCodes, Result, Schedule};

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

impl<C: Denoiser> Conditioned<C> {
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

    /// What `network` says of images of these classes, guided if it should be: `rows` says how many rows of logits each map has. It is told
    /// whether it is asked about all maps twice, the second time without a class.
    fn told<E: From<candle_core::Error>>(
        &self,
        noisy: &NoisyCodes<'_>,
        guided: bool,
        rows: impl Fn(usize) -> usize,
        network: impl FnOnce(&NoisyCodes<'_>, bool) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Tensor, E> {
        let NoisyCodes { h_t, t, images, .. } = *noisy;
        let classes = self.classes_of(images, h_t.device())?;
        let guidance = if guided { self.guidance_at(t)? } else { None };
        let Some(guidance) = guidance else {
            return network(&NoisyCodes { classes: Some(&classes), ..*noisy }, false);
        };
        let none = Tensor::full(self.network.classes() as u32, classes.dims(), classes.device())?;
        let (h_t, t) = (Tensor::cat(&[h_t, h_t], 0)?, Tensor::cat(&[t, t], 0)?);
        let (images, classes) = ([images, images].concat(), Tensor::cat(&[&classes, &none], 0)?);
        let both = NoisyCodes { h_t: &h_t, t: &t, images: &images, classes: Some(&classes) };
        let of_row = guidance.iter().enumerate().flat_map(|(n, &g)| std::iter::repeat_n(g, rows(n)));
        Ok(guide(&network(&both, true)?, of_row.collect())?)
    }

    /// The same at some positions.
    fn told_at(
        &self,
        noisy: &NoisyCodes<'_>,
        guided: bool,
        positions: &[Vec<u32>],
        network: impl FnOnce(&NoisyCodes<'_>, &[Vec<u32>]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.told(
            noisy,
            guided,
            |n| positions[n].len(),
            |noisy, twice| match twice {
                true => network(noisy, &[positions, positions].concat()),
                false => network(noisy, positions),
            },
        )
    }
}

impl<C: DescribeLayers> DescribeLayers for Conditioned<C> {
    fn describe_layers(&self) -> candle_core::Result<Vec<LayerDescription>> {
        self.network.describe_layers()
    }
}

/// The number of classes, which must not be 0.
fn known(network: &impl Denoiser) -> Result<usize> {
    match network.classes() {
        0 => Err(Error::config("classes", 0, "the network was built without classes")),
        known => Ok(known),
    }
}

/// `cond + g (cond - uncond)`, where both lie one behind the other, with a `g` for each row. A code that the class rules out
/// (`-inf`) stays ruled out, whatever it is without the class; where `g` is 0, what is ruled out without the class does not matter.
fn guide(both: &Tensor, guidance: Vec<f64>) -> candle_core::Result<Tensor> {
    let rows = guidance.len();
    let (cond, uncond) = (both.narrow(0, 0, rows)?, both.narrow(0, rows, rows)?);
    let mut shape = vec![1; both.rank()];
    shape[0] = rows;
    let guidance =
        Tensor::from_vec(guidance, shape, &Device::Cpu)?.to_dtype(both.dtype())?.to_device(both.device())?;
    let guided = (&cond + (&cond - uncond)?.broadcast_mul(&guidance)?)?;
    let alone = guidance.eq(0.)?.broadcast_as(cond.shape())?;
    let alone = (alone + cond.eq(f64::NEG_INFINITY)?)?; // u8, of which each but 0 is true
    alone.where_cond(&cond, &guided)
}

impl<C: Denoiser> Denoiser for Conditioned<C> {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> candle_core::Result<Tensor> {
        self.told(noisy, !train, |_| 1, |noisy, _| self.network.logits(noisy, train))
    }

    fn check_process(&self, process: &AbsorbingProcess) -> Result<()> {
        self.network.check_process(process)
    }

    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>], train: bool) -> Result<Tensor> {
        self.told_at(noisy, !train, positions, |noisy, at| self.network.logits_at(noisy, at, train))
    }

    fn prepare(&self) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared { conditioned: self, network: self.network.prepare()? }))
    }

    fn prepare_at_threshold(&self, scale: f64) -> candle_core::Result<Box<dyn LogitsAt + '_>> {
        Ok(Box::new(Prepared { conditioned: self, network: self.network.prepare_at_threshold(scale)? }))
    }

    fn of_seed(&self, seed: Seed) -> Result<Option<Box<dyn Denoiser + '_>>> {
        let Self { network, classes, guidance } = self;
        Ok(match classes {
            Classes::InTurn(_) => None,
            Classes::Drawn { .. } => {
                let network: &dyn Denoiser = network;
                let borrowed = Conditioned { network, classes: classes.clone(), guidance: *guidance };
                Some(Box::new(borrowed.with_seed(seed)))
            }
        })
    }
}

struct Prepared<'a, C> {
    conditioned: &'a Conditioned<C>,
    network: Box<dyn LogitsAt + 'a>,
}

impl<C: Denoiser> LogitsAt for Prepared<'_, C> {
    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>]) -> Result<Tensor> {
        self.conditioned.told_at(noisy, true, positions, |noisy, at| self.network.logits_at(noisy, at))
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
