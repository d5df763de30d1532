//! The images in the making, one step at a time.

use candle_core::{DType, Device, Tensor};
use rand::{Rng, RngCore};
use rayon::prelude::*;

use crate::categorical::{Sharpening, categorical};
use crate::{
    AbsorbingProcess, Draft, Drawn, Error, LogitsAt, NoisyCodes, Result, RevealOrder, SamplingConfig,
    Settled, host,
};

/// Holds all images of one sampling, and takes them through one step after the other.
pub(crate) struct Canvas<'a> {
    pub(crate) process: &'a AbsorbingProcess,
    pub(crate) config: &'a SamplingConfig,
    pub(crate) order: &'a dyn RevealOrder,
    pub(crate) device: &'a Device,
    /// Rows and columns.
    pub(crate) map: (usize, usize),
    pub(crate) steps: usize,
    pub(crate) images: Vec<Image>,
}

/// One image in the making.
pub(crate) struct Image {
    /// The number that names its random stream.
    pub(crate) number: usize,
    pub(crate) codes: Vec<u32>,
    pub(crate) given: Vec<bool>,
    pub(crate) log_probs: Vec<f64>,
    pub(crate) rng: Box<dyn RngCore>,
}

impl Image {
    /// What an order sees of the image, and the image's random stream.
    fn draft(
        &mut self,
        map: (usize, usize),
        mask: u32,
        left: usize,
        steps: usize,
    ) -> (Draft<'_>, &mut dyn RngCore) {
        let Self { codes, given, log_probs, rng, .. } = self;
        (Draft { map, codes, mask, given, log_probs, left, steps }, &mut **rng)
    }

    fn set(&mut self, position: usize, code: u32, log_prob: f64) {
        self.codes[position] = code;
        self.log_probs[position] = log_prob;
    }
}

/// The positions of one image that a step draws, in ascending order; at least one.
pub(crate) struct Proposal {
    image: usize,
    positions: Vec<usize>,
}

impl Canvas<'_> {
    /// All codes, `[N, H', W']`, flattened.
    pub(crate) fn codes(&self) -> Vec<u32> {
        self.images.iter().flat_map(|image| &image.codes).copied().collect()
    }

    /// Asks the order what this step draws. Images in which that is nothing are settled with nothing drawn, and left out.
    pub(crate) fn propose(&mut self, left: usize) -> Result<Vec<Proposal>> {
        let mask = self.process.mask();
        let mut proposals = Vec::new();
        for image in 0..self.images.len() {
            let state = &mut self.images[image];
            let (draft, rng) = state.draft(self.map, mask, left, self.steps);
            let positions = self.order.propose(&draft, rng);
            let masked = |&at: &usize| draft.codes.get(at) == Some(&mask);
            if !(positions.iter().all(masked) && positions.windows(2).all(|pair| pair[0] < pair[1])) {
                let (what, rule) = (format!("{positions:?}"), "masked positions in ascending order");
                return Err(misbehaved("positions that the order proposed", state.number, left, what, rule));
            }
            match positions.is_empty() {
                true => self.settle(image, &[], left)?,
                false => proposals.push(Proposal { image, positions }),
            }
        }
        Ok(proposals)
    }

    /// Draws the proposed tokens of these images, and keeps what the order keeps.
    pub(crate) fn reveal(&mut self, denoiser: &dyn LogitsAt, batch: &[Proposal], left: usize) -> Result<()> {
        let sharpening = self.config.sharpening(left, self.steps);
        let times: Vec<u32> = batch.iter().map(|proposal| self.time(proposal.image, left)).collect();
        let logits = self.logits(denoiser, batch, &times)?;
        let (k, noise) = (self.process.codes(), self.noise(batch));
        let found = match logits.dtype() {
            DType::F32 => draw(&logits.flatten_all()?.to_vec1::<f32>()?, k, sharpening, noise),
            _ => draw(&host::floats(&logits)?, k, sharpening, noise),
        };
        let mut found = found.into_iter().enumerate();
        for (Proposal { image, positions }, &t) in batch.iter().zip(&times) {
            let mut drawn = Vec::with_capacity(positions.len());
            for (&position, (row, found)) in positions.iter().zip(&mut found) {
                let Some((code, log_prob)) = found else {
                    return Err(self.bad_logits(*image, position, t, &host::floats(&logits.get(row)?)?));
                };
                drawn.push(Drawn { position, code, log_prob });
            }
            self.settle(*image, &drawn, left)?;
        }
        Ok(())
    }

    /// A number in `[0, 1)` for each proposed token, from the stream of its image.
    fn noise(&mut self, batch: &[Proposal]) -> Vec<f64> {
        let mut noise = Vec::new();
        for Proposal { image, positions } in batch {
            let rng = &mut self.images[*image].rng;
            noise.extend(positions.iter().map(|_| rng.random::<f64>()));
        }
        noise
    }

    /// Keeps the drawn codes that the order keeps, and masks again what it masks again.
    fn settle(&mut self, image: usize, drawn: &[Drawn], left: usize) -> Result<()> {
        let (mask, image) = (self.process.mask(), &mut self.images[image]);
        let (draft, rng) = image.draft(self.map, mask, left, self.steps);
        let Settled { keep, remask } = self.order.settle(&draft, drawn, rng);
        let revealed =
            |&at: &usize| draft.codes.get(at).is_some_and(|code| *code != mask) && !draft.given[at];
        if let Some(at) = remask.iter().find(|at| !revealed(at)) {
            let rule = "a position that an earlier step has revealed";
            return Err(misbehaved("position that the order masks again", image.number, left, at, rule));
        }
        remask.iter().for_each(|&at| image.set(at, mask, 0.));
        for i in keep {
            let Some(Drawn { position, code, log_prob }) = drawn.get(i) else {
                let rule = format!("an index of the {} drawn codes", drawn.len());
                return Err(misbehaved("index that the order keeps", image.number, left, i, &rule));
            };
            image.set(*position, *code, *log_prob);
        }
        Ok(())
    }

    /// Whether no mask is left.
    pub(crate) fn finished(&self) -> Result<()> {
        let masked = |image: &&Image| image.codes.contains(&self.process.mask());
        match self.images.iter().find(masked) {
            None => Ok(()),
            Some(image) => {
                let count = image.codes.iter().filter(|code| **code == self.process.mask()).count();
                Err(misbehaved(
                    "number of masks that the order left",
                    image.number,
                    1,
                    count,
                    "0 after the last step",
                ))
            }
        }
    }

    /// The diffusion time that the denoiser is told of an image, that of the share of tokens that the order says is masked; at least 1.
    fn time(&mut self, image: usize, left: usize) -> u32 {
        let (mask, last) = (self.process.mask(), self.process.steps());
        let (draft, _) = self.images[image].draft(self.map, mask, left, self.steps);
        let (masked, of) = self.order.share_masked(&draft);
        let time = (last as u128 * masked as u128).div_ceil(of.max(1) as u128);
        time.clamp(1, last as u128) as u32
    }

    /// The denoiser's logits at the proposed positions, `[proposed tokens, K]`, on the CPU.
    fn logits(&self, denoiser: &dyn LogitsAt, batch: &[Proposal], times: &[u32]) -> Result<Tensor> {
        let (n, k, (h, w)) = (batch.len(), self.process.codes(), self.map);
        let images = || batch.iter().map(|proposal| &self.images[proposal.image]);
        let codes: Vec<u32> = images().flat_map(|image| &image.codes).copied().collect();
        let numbers: Vec<usize> = images().map(|image| image.number).collect();
        let h_t = Tensor::from_vec(codes, (n, h, w), self.device)?;
        let times = Tensor::new(times, self.device)?;
        let positions: Vec<Vec<u32>> =
            batch.iter().map(|p| p.positions.iter().map(|&at| at as u32).collect()).collect();
        let logits = denoiser.logits_at(&NoisyCodes::new(&h_t, &times, &numbers), &positions)?;
        Error::check_shape("what the denoiser returned", logits.dims(), &[positions.concat().len(), k])?;
        Ok(logits.to_device(&Device::Cpu)?)
    }

    fn bad_logits(&self, image: usize, position: usize, t: u32, row: &[f64]) -> Error {
        let bad = |x: &f64| x.is_nan() || *x == f64::INFINITY;
        let code = row.iter().position(bad).unwrap_or(0);
        let (number, (i, j)) = (self.images[image].number, (position / self.map.1, position % self.map.1));
        let at = format!("of code {code} at [{i}, {j}] of image {number}, t = {t},");
        Error::value("logit", at, row[code], "a number, not all of them -inf")
    }
}

/// A code, with its log-probability, from each row of logits.
fn draw<F: Copy + Sync + Into<f64>>(
    logits: &[F],
    codes: usize,
    sharpening: Sharpening,
    noise: Vec<f64>,
) -> Vec<Option<(u32, f64)>> {
    let rows = logits.par_chunks(codes).zip(noise);
    rows.map_init(Vec::new, |weights, (row, u)| categorical(row, sharpening, u, weights)).collect()
}

/// The error of an order that broke the rules of [`RevealOrder`].
fn misbehaved(what: &'static str, image: usize, left: usize, value: impl ToString, rule: &str) -> Error {
    Error::value(what, format!("in image {image} with {left} steps left"), value, rule)
}
