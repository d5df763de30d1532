//! Images completed where they are not known.

use absorbing_diffusion::Denoiser;
use candle_core::{DType, Device, Tensor};
use snn_train::Progress;

use super::batches::by_batches;
use super::drawing::draw_given;
use super::networks::Autoencoder;
use super::trained::Trained;
use crate::error::{Error, Result};

const STAGE: &str = "inpaint";

/// Holds what [`inpaint`] draws.
#[derive(Clone, Debug)]
pub struct Inpainted {
    /// `[N * completions, C, H, W]`, on the CPU: all completions of the first image, then those of the next. What is known of an image is
    /// as the autoencoder reconstructs it.
    pub images: Tensor,
    /// Their codes, `[N * completions, H', W']`.
    pub codes: Tensor,
    /// Which tokens were known, row by row of the code map; all others were drawn.
    pub known: Vec<bool>,
}

/// Draws completions of images of which a part is known (inpainting): the tokens of that part stay, and the others are drawn in
/// sight of them.
///
/// `known(row, column)` says which pixels are. What is not is black before the image is encoded, so that nothing of it gets through;
/// and because a code looks beyond its own pixels, a token is known if all pixels of its eight neighbours are too. Completion `j` of
/// image `i` has the random numbers of image `i * completions + j` of the config's seed, and its class where [`Trained::of_classes`] names some:
/// none is drawn, because what is known says more.
///
/// # Shapes
/// `images: [N, C, H, W]` in [-0.5, 0.5].
/// # Errors
/// Returns an error if there are no images or completions, if the images do not fit the run, or if a stop was asked for.
/// # Examples
/// ```no_run
/// use candle_core::Device;
/// use spiking_diffusion::{Silent, Trained, data::synthetic_digits, inpaint};
/// # fn main() -> spiking_diffusion::Result<()> {
/// let trained = Trained::load("runs/synthetic-digits-quick-0".as_ref(), &Device::Cpu)?;
/// let digits = synthetic_digits()?.test.range(0..4, &Device::Cpu)?;
/// let drawn = inpaint(&trained, &digits, &|row, _| row < 14, 6, &Device::Cpu, &mut Silent)?;
/// assert_eq!(drawn.images.dims(), [24, 1, 28, 28]);
/// # Ok(()) }
/// ```
pub fn inpaint<D: Denoiser, A: Autoencoder>(
    trained: &Trained<D, A>,
    images: &Tensor,
    known: &dyn Fn(usize, usize) -> bool,
    completions: usize,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Inpainted> {
    let (cfg, (n, _, height, width)) = (&trained.cfg, images.dims4()?);
    if n == 0 || completions == 0 {
        let reason = "needs at least one image and one completion";
        return Err(Error::config("inpaint", format!("{n} images, {completions} completions"), reason));
    }
    if cfg.sdid.classes.is_some() && cfg.label_dropout == Some(0.) && trained.condition.is_none() {
        let reason = "so the denoiser knows no image without a class: name some by `Trained::of_classes`";
        return Err(Error::config("label_dropout", 0, reason));
    }
    let (rows, columns) = (cfg.sdid.height, cfg.sdid.width);
    for (field, tokens, pixels) in [("sdid.height", rows, height), ("sdid.width", columns, width)] {
        if tokens == 0 || pixels % tokens != 0 {
            return Err(Error::config(
                field,
                tokens,
                format!("does not divide the {pixels} pixels of the images"),
            ));
        }
    }
    let pixels: Vec<bool> = (0..height * width).map(|i| known(i / width, i % width)).collect();
    let tokens = known_tokens(&pixels, (height, width), (rows, columns));
    let codes = trained.autoencoder.encode(&blackened(images, &pixels)?.to_device(device)?)?;
    let given = covered(&codes, &tokens, cfg.sdid.codes as u32, completions)?;
    let drawn = by_batches(STAGE, n * completions, cfg.sampling.batch_size, progress, |range| {
        let given = given.narrow(0, range.start, range.len())?;
        let codes = draw_given(cfg, trained.networks(), range, Some(&given), device, &mut |_, _| ())?;
        Ok((trained.autoencoder.decode(&codes)?.to_device(&Device::Cpu)?, codes))
    })?;
    let (drawn, all): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
    Ok(Inpainted { images: Tensor::cat(&drawn, 0)?, codes: Tensor::cat(&all, 0)?, known: tokens })
}

/// The tokens whose pixels, and those of the tokens around them, are all known.
fn known_tokens(
    pixels: &[bool],
    (height, width): (usize, usize),
    (rows, columns): (usize, usize),
) -> Vec<bool> {
    let of = |i: usize, rows: usize, height: usize| {
        let side = height / rows;
        i.saturating_sub(1) * side..((i + 2) * side).min(height)
    };
    let whole = |token: usize| {
        let (down, across) = (of(token / columns, rows, height), of(token % columns, columns, width));
        down.into_iter().all(|y| across.clone().all(|x| pixels[y * width + x]))
    };
    (0..rows * columns).map(whole).collect()
}

/// The images, black where they are not known.
fn blackened(images: &Tensor, known: &[bool]) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    let known: Vec<u8> = known.iter().map(|&known| known.into()).collect();
    let known =
        Tensor::from_vec(known, (1, 1, height, width), images.device())?.broadcast_as(images.shape())?;
    Ok(known.contiguous()?.where_cond(&images.contiguous()?, &images.affine(0., -0.5)?.contiguous()?)?)
}

/// The codes `[N, H', W']` with the mask where they are not known, each map so many times.
fn covered(codes: &Tensor, known: &[bool], mask: u32, times: usize) -> Result<Tensor> {
    let (n, rows, columns) = codes.dims3()?;
    let maps: Vec<u32> = codes.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?;
    let cover = |map: &[u32]| -> Vec<u32> {
        map.iter().zip(known).map(|(&code, &known)| if known { code } else { mask }).collect()
    };
    let given: Vec<u32> = maps.chunks(rows * columns).flat_map(|map| cover(map).repeat(times)).collect();
    Ok(Tensor::from_vec(given, (n * times, rows, columns), codes.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_with_its_surroundings() {
        let known = |hole: (usize, usize)| {
            let pixels: Vec<bool> = (0..28 * 28).map(|i| (i / 28, i % 28) != hole).collect();
            let tokens = known_tokens(&pixels, (28, 28), (7, 7));
            (0..49).filter(|&i| !tokens[i]).map(|i| (i / 7, i % 7)).collect::<Vec<_>>()
        };
        assert_eq!(known((0, 0)), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        let around = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (3, 4)];
        assert_eq!(known((11, 12)), around);
    }

    #[test]
    fn nothing_of_the_hole_gets_through() {
        let images = Tensor::arange(0f32, 16., &Device::Cpu).unwrap().reshape((2, 2, 2, 2)).unwrap();
        let black = blackened(&images, &[true, false, true, true]).unwrap();
        let values: Vec<f32> = black.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values[..8], [0., -0.5, 2., 3., 4., -0.5, 6., 7.]);
        let codes = Tensor::new(&[[[1u32, 2]], [[3, 4]]], &Device::Cpu).unwrap();
        let given = covered(&codes, &[true, false], 9, 2).unwrap();
        assert_eq!(given.flatten_all().unwrap().to_vec1::<u32>().unwrap(), [1, 9, 1, 9, 3, 9, 3, 9]);
    }
}
