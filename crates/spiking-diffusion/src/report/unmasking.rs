//! `unmasking.gif`: samples in the making, one frame a diffusion step.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use snn_train::RunDir;

use super::picture::{Frame, save_film};
use super::size::{FILM_COLUMNS, FILM_IMAGES};
use crate::error::Result;

/// The first samples, step by step.
pub(crate) struct Unmasking {
    /// The token of a place that is not known yet.
    mask: u32,
    /// Rows and columns of the codes of an image.
    places: (usize, usize),
    images: usize,
    /// After each step, the codes of all images of the film, one after the other.
    steps: Vec<Vec<u32>>,
}

impl Unmasking {
    /// A film of the first of so many samples.
    pub(crate) fn new(samples: usize, mask: u32, places: (usize, usize)) -> Self {
        Self { mask, places, images: samples.min(FILM_IMAGES), steps: Vec::new() }
    }

    /// Takes the codes that images `first`, `first + 1`, .. have after a step. Images come in ascending order.
    pub(crate) fn record(&mut self, first: usize, step: usize, codes: &[u32]) {
        let wanted = self.images.saturating_sub(first) * self.places.0 * self.places.1;
        if self.steps.len() <= step {
            self.steps.resize(step + 1, Vec::new());
        }
        self.steps[step].extend(&codes[..wanted.min(codes.len())]);
    }

    /// Draws the film. Masked places are covered; under the covers the decoder sees the code that is most frequent in the
    /// finished samples.
    pub(crate) fn save(
        &self,
        decode: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>,
        run: &RunDir,
        device: &Device,
    ) -> Result<()> {
        let masked = vec![self.mask; self.images * self.places.0 * self.places.1];
        let mut states = vec![&masked];
        states.extend(&self.steps);
        // Steps that reveal nothing are no frames.
        states.dedup();
        let filler = most_frequent(states.last().map_or(&[], |codes| codes.as_slice()));
        let frame = |codes: &Vec<u32>| {
            let covered: Vec<bool> = codes.iter().map(|&code| code == self.mask).collect();
            let known =
                codes.iter().zip(&covered).map(|(&code, &covered)| if covered { filler } else { code });
            let shape = (self.images, self.places.0, self.places.1);
            let known = Tensor::from_vec(known.collect(), shape, device)?;
            Ok(Frame { images: decode(&known)?, covered, places: self.places })
        };
        let frames = states.into_iter().map(frame).collect::<Result<Vec<_>>>()?;
        save_film(&run.file("unmasking.gif"), &frames, FILM_COLUMNS)
    }
}

/// The most frequent value, the smallest of several; 0 if there is none.
fn most_frequent(codes: &[u32]) -> u32 {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    codes.iter().for_each(|&code| *counts.entry(code).or_default() += 1);
    counts
        .into_iter()
        .max_by_key(|&(code, count)| (count, std::cmp::Reverse(code)))
        .map_or(0, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_code_is_unique() {
        assert_eq!(most_frequent(&[5, 3, 3, 5, 9]), 3);
        assert_eq!(most_frequent(&[7]), 7);
        assert_eq!(most_frequent(&[]), 0);
    }
}
