//! `unmasking.gif`: samples in the making, one frame a diffusion step.

use std::collections::HashMap;

use absorbing_diffusion::Sdid;
use candle_core::{Device, Tensor};
use vq_svae::VqSvae;

use crate::error::Result;
use crate::picture::{self, Frame};
use crate::stages::{draw_codes, process};
use crate::{ExperimentConfig, RunDir};

/// Most images in the film.
const IMAGES: usize = 16;
const COLUMNS: usize = 4;

/// Whether the film of so many samples of this height and width is one: a GIF counts to 65535.
pub(crate) fn fits(image: (usize, usize), samples: usize) -> bool {
    let images = samples.min(IMAGES);
    let grid = (images.div_ceil(COLUMNS), images.min(COLUMNS));
    let side = usize::from(u16::MAX);
    picture::canvas(image, grid, grid.0.max(1)).is_some_and(|(width, height)| width.max(height) <= side)
}

/// Draws the first samples once more and films them. Masked places are covered; under the covers the decoder sees the
/// code that is most frequent in the finished samples.
pub(crate) fn save(
    cfg: &ExperimentConfig,
    (vqsvae, sdid): (&VqSvae, &Sdid),
    run: &RunDir,
    device: &Device,
) -> Result<()> {
    let (process, images) = (process(cfg)?, cfg.samples.min(IMAGES));
    let places = (cfg.sdid.height, cfg.sdid.width);
    let mut states = vec![vec![process.mask(); images * places.0 * places.1]];
    // Steps that reveal nothing are no frames.
    let mut observe = |codes: &[u32], _: usize| {
        if states.last().is_none_or(|last| last != codes) {
            states.push(codes.to_vec());
        }
    };
    draw_codes(cfg, sdid, 0..images, device, &mut observe)?;
    let filler = most_frequent(states.last().map_or(&[], Vec::as_slice));
    let frame = |codes: &Vec<u32>| {
        let covered: Vec<bool> = codes.iter().map(|&code| code == process.mask()).collect();
        let known = codes.iter().zip(&covered).map(|(&code, &covered)| if covered { filler } else { code });
        let known = Tensor::from_vec(known.collect(), (images, places.0, places.1), device)?;
        Ok(Frame { images: vqsvae.decode(&known)?, covered, places })
    };
    let frames = states.iter().map(frame).collect::<Result<Vec<_>>>()?;
    picture::save_film(&run.file("unmasking.gif"), &frames, COLUMNS)
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
