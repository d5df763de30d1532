//! The training images nearest to samples, which show whether a model repeats what it was trained on.

use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::Progress;

use super::batches::by_batches;
use crate::data::Split;
use crate::error::{Error, Result};

const STAGE: &str = "neighbours";
/// Training images that are compared at a time.
const BLOCK: usize = 1000;

/// One image of a split, and how far it is from what was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its number in the split.
    pub index: usize,
    /// The root of the mean squared difference of the pixels (or features).
    pub distance: f64,
}

/// Finds for each image the nearest of a split, pixel by pixel: the first of those that are equally near.
///
/// # Shapes
/// `images: [N, C, H, W]`, pixels as of [`Split::range`] -> `N` neighbours.
/// # Errors
/// Returns an error if images have another shape than the split's, or if a stop was asked for.
/// # Examples
/// ```
/// use candle_core::Device;
/// use spiking_diffusion::{Silent, data::synthetic_digits, neighbours};
/// # fn main() -> spiking_diffusion::Result<()> {
/// let digits = synthetic_digits()?.train;
/// let found = neighbours::nearest(&digits.range(7..9, &Device::Cpu)?, &digits, &mut Silent)?;
/// assert_eq!((found[0].index, found[1].index), (7, 8));
/// # Ok(()) }
/// ```
pub fn nearest(images: &Tensor, split: &Split, progress: &mut dyn Progress) -> Result<Vec<Neighbour>> {
    let (_, channels, height, width) = images.dims4()?;
    if (channels, height, width) != split.image() {
        let reason = format!("the split's images are {:?}", split.image());
        return Err(Error::config("images", format!("{:?}", images.dims()), reason));
    }
    nearest_of(images, split, &mut |images| Ok(images.clone()), progress)
}

/// [`nearest`], by whatever `features` makes of images, such as a classifier's features; flattened for each image.
///
/// # Shapes
/// `images: [N, C, H, W]`; `features`: `[n, C, H, W]` -> `[n, ..]` -> `N` neighbours.
/// # Errors
/// Returns the errors of `features`, and an error if a stop was asked for.
pub fn nearest_of(
    images: &Tensor,
    split: &Split,
    features: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    progress: &mut dyn Progress,
) -> Result<Vec<Neighbour>> {
    let mut rows = |images: &Tensor| -> Result<Tensor> {
        Ok(features(&images.to_device(&Device::Cpu)?)?.flatten_from(1)?.to_dtype(DType::F32)?)
    };
    let wanted = rows(images)?;
    let squares = wanted.sqr()?.sum_keepdim(1)?;
    let mut found = vec![Neighbour { index: 0, distance: f64::INFINITY }; wanted.dim(0)?];
    by_batches(STAGE, split.len(), BLOCK, progress, |range| {
        let block = rows(&split.range(range.clone(), &Device::Cpu)?)?;
        // |a - b|^2 = |a|^2 - 2 a b + |b|^2 finds who is nearest; how far, the difference itself says.
        let products = wanted.matmul(&block.t()?)?;
        let distances = (squares.broadcast_add(&block.sqr()?.sum(1)?.unsqueeze(0)?)? - (products * 2.)?)?;
        let places: Vec<u32> = distances.argmin(D::Minus1)?.to_vec1()?;
        let candidates = block.index_select(&Tensor::new(places.as_slice(), &Device::Cpu)?, 0)?;
        let exact: Vec<f32> = (&wanted - candidates)?.sqr()?.mean(1)?.sqrt()?.to_vec1()?;
        for ((found, place), distance) in found.iter_mut().zip(places).zip(exact) {
            if f64::from(distance) < found.distance {
                *found = Neighbour { index: range.start + place as usize, distance: distance.into() };
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// The images of the split that these neighbours are.
#[cfg(feature = "report")]
pub(super) fn images_of(found: &[Neighbour], split: &Split) -> Result<Tensor> {
    let indices: Vec<u32> = found.iter().map(|neighbour| neighbour.index as u32).collect();
    split.batch(&indices, &Device::Cpu)
}

/// The mean distance.
pub(super) fn mean_distance(found: &[Neighbour]) -> f64 {
    found.iter().map(|neighbour| neighbour.distance).sum::<f64>() / found.len() as f64
}

#[cfg(test)]
mod tests {
    use snn_train::Silent;

    use super::*;

    /// Against the obvious two loops, over more than a block.
    #[test]
    fn the_nearest_is_the_nearest() {
        let bytes: Vec<u8> = (0..4 * 2300u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let split = Split::new(bytes, vec![0; 2300], (1, 2, 2)).unwrap();
        let images = (split.batch(&[0, 1700, 2299], &Device::Cpu).unwrap() * 0.9).unwrap();
        let rows = |images: &Tensor| images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let all = rows(&split.range(0..2300, &Device::Cpu).unwrap());
        let found = nearest(&images, &split, &mut Silent).unwrap();
        for (row, found) in rows(&images).iter().zip(&found) {
            let distance = |other: &Vec<f32>| {
                (row.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 4.).sqrt()
            };
            let least = all.iter().map(distance).fold(f64::INFINITY, f64::min);
            assert!(
                (found.distance - least).abs() < 1e-6 && (distance(&all[found.index]) - least).abs() < 1e-6
            );
        }
        let other = Tensor::zeros((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(nearest(&other, &split, &mut Silent).unwrap_err().to_string().contains("[1, 1, 3, 3]"));
    }
}
