//! The reverse process: from all masked to no mask.

use std::ops::Range;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_core::Seed;

use crate::canvas::{Canvas, Image};
use crate::categorical::Sharpening;
use crate::{AbsorbingProcess, Denoiser, Error, Order, Result, RevealOrder, Schedule, host};

/// How a [`Sampler`] draws: in which order, how far it prefers what is likely, and in how many steps.
///
/// At every masked position that a step draws, the logits become a distribution in three moves: the temperature divides them,
/// `top_k` keeps the most likely codes, and `top_p` keeps the most likely of those; what is left is drawn in proportion. Any of
/// them makes samples more typical and less varied, and moves them away from the distribution that the network has learned.
/// Greedy sampling is `top_k = 1`: the likeliest code, always, so that images differ by their order alone.
///
/// # Examples
/// ```
/// use absorbing_diffusion::{Order, SamplingConfig, Schedule};
/// let careful = SamplingConfig {
///     order: Order::Confidence { noise: 3. },
///     temperature: Schedule::Linear { from: 1., to: 0.6 },
///     top_p: Some(0.95),
///     ..Default::default()
/// };
/// careful.validate().unwrap();
/// let plain = serde_json::to_string(&SamplingConfig::default()).unwrap();
/// assert_eq!(plain, r#"{"order":"posterior","temperature":1.0,"batch_size":64}"#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// How the tokens to reveal are picked.
    pub order: Order,
    /// Divides the logits. Below 1, likely codes become even likelier. It may change from the first step to the last.
    pub temperature: Schedule,
    /// The most codes that a token is drawn from, the likeliest; of equally likely ones the lowest. `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// The share `p`: a token is drawn from the fewest of the likeliest codes that have at least this share of the probability
    /// (of what the temperature made and `top_k` left). `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Threshold guidance (SDDPM, Cao et al. 2024): how many times as high as trained the firing thresholds of a spiking denoiser are
    /// while images are drawn. Above 1 its neurons fire less, below 1 more, and no training is needed to try it. `None` is 1. What is
    /// measured of the denoiser alone (its bound, firing rates, operations) is measured without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v_threshold_scale: Option<f64>,
    /// Steps from all masked to no mask. `None` is as many as the process has, `T_d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The most images that the denoiser is given at once.
    pub batch_size: usize,
}

impl Default for SamplingConfig {
    /// The posterior at temperature 1 in `T_d` steps, 64 images at once.
    fn default() -> Self {
        Self {
            order: Order::Posterior,
            temperature: Schedule::Constant(1.),
            top_k: None,
            top_p: None,
            v_threshold_scale: None,
            steps: None,
            batch_size: 64,
        }
    }
}

impl SamplingConfig {
    /// Checks that a sampler can work with these numbers.
    ///
    /// # Errors
    /// Returns an error if a temperature is not positive and finite, `top_k` is 0, `top_p` is not in `(0, 1]`, the scale of the
    /// thresholds is not positive and finite, the order does not [validate](Order::validate), or the steps or the batch size are 0.
    pub fn validate(&self) -> Result<()> {
        let positive = |t: f64| t.is_finite() && t > 0.;
        self.temperature.validate("sampling.temperature", "must be positive and finite", positive)?;
        if self.top_k == Some(0) {
            return Err(Error::config("sampling.top_k", 0, "must be at least 1"));
        }
        if let Some(p) = self.top_p.filter(|&p| !(p > 0. && p <= 1.)) {
            return Err(Error::config("sampling.top_p", p, "must lie in (0, 1]"));
        }
        if let Some(scale) = self.v_threshold_scale.filter(|&scale| !positive(scale)) {
            return Err(Error::config("sampling.v_threshold_scale", scale, "must be positive and finite"));
        }
        if self.steps.is_some_and(|steps| !(1..=u32::MAX as usize).contains(&steps)) {
            let steps = self.steps.unwrap_or(0);
            return Err(Error::config("sampling.steps", steps, "needs at least 1 step, less than 2^32"));
        }
        if self.batch_size == 0 {
            return Err(Error::config("sampling.batch_size", 0, "must be at least 1"));
        }
        self.order.validate()
    }

    /// The number of steps in which a process is sampled.
    #[must_use]
    pub fn steps_of(&self, process: &AbsorbingProcess) -> usize {
        self.steps.unwrap_or(process.steps())
    }

    /// What is done to the logits with `left` of `steps` steps left.
    pub(crate) fn sharpening(&self, left: usize, steps: usize) -> Sharpening {
        Sharpening { temperature: self.temperature.at(left, steps), top_k: self.top_k, top_p: self.top_p }
    }
}

/// Generates maps of codes by the reverse process, `p(h_{t-1} | h_t) = sum_k q(h_{t-1} | h_t, h_0 = k) p(h_0 = k | h_t)`: at each step an
/// [order](RevealOrder) picks masked positions, a code is drawn at each from `softmax(logits / temperature)` (cut, if
/// [the config](SamplingConfig) says so), and the order decides which of the drawn codes stay.
///
/// Positions are picked before the denoiser is asked, and images of which none was picked are left out of the batch.
/// That is exact, since an unread logit changes nothing, and saves 36 % of the work of [`Order::Posterior`] at
/// `T_d = H' W' = 49`. A denoiser that [prepares](Denoiser::prepare) computes the picked positions only.
///
/// The number of sampling steps is free: with `left` of `steps` left, a share of `left / steps` of the tokens that were not
/// [given](Self::with_given) is masked (unless the [order](RevealOrder::share_masked) says otherwise), and the denoiser is told the diffusion
/// time at which that many of all tokens are, `t = ceil(T_d left / steps)` where none is given.
///
/// Image `i` draws all its numbers from the stream `sample/<i>` of the seed (its class, if a denoiser has [some to draw](Denoiser::of_seed), from
/// `class/<i>`), on the host in f64, so it is the same
/// whatever the batch size, the range it is asked in, and the device (as far as its logits are the same).
///
/// # Examples
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, Sampler, SamplingConfig, from_fn};
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::Seed;
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(128, 49)?;
/// let uniform = from_fn(|h_t, _t, _train| {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 128, h, w), DType::F32, h_t.device())
/// });
/// let config = SamplingConfig { temperature: 0.65.into(), ..Default::default() };
/// let sampler = Sampler::new(&process, &uniform, &config)?;
/// let mut steps = 0;
/// let codes = sampler.sample(0..16, (7, 7), Seed(0), &Device::Cpu, &mut |_, _| steps += 1)?;
/// assert_eq!((codes.dims(), steps), ([16, 7, 7].as_slice(), 49));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy)]
pub struct Sampler<'a> {
    process: &'a AbsorbingProcess,
    denoiser: &'a dyn Denoiser,
    config: &'a SamplingConfig,
    order: &'a dyn RevealOrder,
    given: Option<&'a Tensor>,
}

impl std::fmt::Debug for Sampler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("process", self.process)
            .field("config", self.config)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl<'a> Sampler<'a> {
    /// A sampler with the order of its config, for which no tokens are given.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](SamplingConfig::validate), or if the denoiser is one
    /// [of another process](Denoiser::check_process).
    pub fn new(
        process: &'a AbsorbingProcess,
        denoiser: &'a dyn Denoiser,
        config: &'a SamplingConfig,
    ) -> Result<Self> {
        config.validate()?;
        denoiser.check_process(process)?;
        Ok(Self { process, denoiser, config, order: &config.order, given: None })
    }

    /// The same sampler with an order of your own in place of the config's.
    #[must_use]
    pub fn with_order(self, order: &'a dyn RevealOrder) -> Self {
        Self { order, ..self }
    }

    /// The same sampler for images of which some tokens are known beforehand (inpainting): these stay as they are, and the others
    /// are drawn in sight of them.
    ///
    /// # Shapes
    /// `codes: u32 [N, H', W']` in `0..=K`, one map for each image that is sampled; the mask `K` where a token is to be drawn.
    #[must_use]
    pub fn with_given(self, codes: &'a Tensor) -> Self {
        Self { given: Some(codes), ..self }
    }

    /// Draws the images of this seed whose numbers are in `images`.
    ///
    /// `observe(codes, left)` is called after each step with all codes, `[N, H', W']` flattened, masks included, and the
    /// number of steps that are left: from `steps - 1` down to 0. It is for progress bars and for films.
    ///
    /// # Shapes
    /// `map`: rows and columns `(H', W')` -> `u32 [images.len(), H', W']` in `0..K`, on `device`.
    /// # Errors
    /// Returns an error if there is no token to draw; if the given tokens have another shape or are out of range; if the logits
    /// have another shape, or are no distribution at a token that is drawn, being NaN, `+inf` or all `-inf` (the error names the
    /// image, the position and the time); if thresholds are to be scaled and the denoiser has none; and if the order picks what it must not or leaves a mask after its last step.
    pub fn sample(
        &self,
        images: Range<usize>,
        map: (usize, usize),
        seed: Seed,
        device: &Device,
        observe: &mut dyn FnMut(&[u32], usize),
    ) -> Result<Tensor> {
        let (n, h, w) = (images.len(), map.0, map.1);
        if n.checked_mul(h).and_then(|rows| rows.checked_mul(w)).is_none_or(|tokens| tokens == 0) {
            let shape = format!("{:?}", (images, h, w));
            return Err(Error::config(
                "sampling.shape",
                shape,
                "needs a token or more, and no more than fit",
            ));
        }
        let steps = self.config.steps_of(self.process);
        let mut canvas = Canvas {
            process: self.process,
            config: self.config,
            order: self.order,
            device,
            map,
            steps,
            images: self.images(images, map, seed)?,
        };
        let of_seed = if self.given.is_none() { self.denoiser.of_seed(seed)? } else { None };
        let denoiser = of_seed.as_deref().unwrap_or(self.denoiser);
        let denoiser = match self.config.v_threshold_scale {
            None => denoiser.prepare()?,
            Some(scale) => denoiser.prepare_at_threshold(scale)?,
        };
        for left in (1..=steps).rev() {
            for batch in canvas.propose(left)?.chunks(self.config.batch_size) {
                canvas.reveal(&*denoiser, batch, left)?;
            }
            observe(&canvas.codes(), left - 1);
        }
        canvas.finished()?;
        Ok(Tensor::from_vec(canvas.codes(), (n, h, w), device)?)
    }

    /// The images as they are before the first step.
    fn images(&self, images: Range<usize>, (h, w): (usize, usize), seed: Seed) -> Result<Vec<Image>> {
        let (mask, length) = (self.process.mask(), h * w);
        let codes = match self.given {
            None => vec![mask; images.len() * length],
            Some(given) => {
                Error::check_shape("the given tokens", given.dims(), &[images.len(), h, w])?;
                host::codes(given, self.process.codes() + 1)?.0
            }
        };
        let image = |(number, codes): (usize, &[u32])| Image {
            number,
            codes: codes.to_vec(),
            given: codes.iter().map(|&code| code != mask).collect(),
            log_probs: vec![0.; length],
            rng: Box::new(seed.rng(&format!("sample/{number}"))),
        };
        Ok(images.zip(codes.chunks(length)).map(image).collect())
    }
}
