//! Clusters of images by k-means.

use std::time::Instant;

use candle_core::{D, Device, Tensor};
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand::seq::index;
use rayon::prelude::*;
use snn_core::Seed;
use snn_train::{Progress, go_on};

use super::batches::batches;
use crate::data::Split;
use crate::error::Result;

/// Most rounds; what still moves then moves little.
const ROUNDS: usize = 50;
/// Images that the first means are chosen from, at random, and images at a time.
const FIRST: usize = 10_000;
const BATCH: usize = 1_000;
const STAGE: &str = "clusters";

/// Finds means of images, `[count, C, H, W]`, such that each image is near to one: k-means over pixels (Lloyd), from images that are
/// chosen one after the other, each in proportion to its squared distance to the nearest chosen before it (k-means++). Images are on the
/// CPU. A mean that no image is nearest to stays where it is.
///
/// # Errors
/// Returns an error if there are no images, or if a stop was asked for.
pub(super) fn means_of(
    images: &Split,
    count: usize,
    seed: Seed,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    let (channels, height, width) = images.image();
    let mut means = first_means(images, count, seed)?;
    let mut nearest = Vec::new();
    progress.begin(STAGE, ROUNDS, 0);
    for round in 1..=ROUNDS {
        let before = std::mem::replace(&mut nearest, nearest_of(images, &means)?);
        if before == nearest {
            break;
        }
        means = moved(images, &means, &nearest)?;
        progress.advance(round, None);
        go_on(progress, STAGE, round, ROUNDS)?;
    }
    progress.end();
    Ok(means.reshape((count, channels, height, width))?)
}

/// The seconds that [`means_of`] takes at most for `items` images, by its first means and its first round for some of them.
pub(super) fn seconds_for(items: usize, some: &Split, count: usize) -> Result<f64> {
    let clock = Instant::now();
    let means = first_means(some, count, Seed(0))?;
    let first = clock.elapsed().as_secs_f64() / some.len().min(FIRST) as f64;
    let clock = Instant::now();
    moved(some, &means, &nearest_of(some, &means)?)?;
    let round = clock.elapsed().as_secs_f64() / some.len() as f64;
    Ok(first * items.min(FIRST) as f64 + round * (ROUNDS * items) as f64)
}

/// The number of the mean that each image is nearest to; the first of equals.
pub(super) fn nearest_of(images: &Split, means: &Tensor) -> Result<Vec<u32>> {
    // |x - m|^2 = |x|^2 + (|m|^2 - 2 x m), of which the first term is the same for all means.
    let means = means.flatten_from(1)?;
    let (squares, doubled) = (means.sqr()?.sum(1)?, (means.t()? * -2.)?);
    let ranges: Vec<_> = batches(images.len(), BATCH).collect();
    let nearest = ranges.into_par_iter().map(|range| -> Result<Vec<u32>> {
        let distances = pixels(images, range)?.matmul(&doubled)?.broadcast_add(&squares)?;
        Ok(distances.argmin(D::Minus1)?.to_vec1()?)
    });
    Ok(nearest.collect::<Result<Vec<_>>>()?.concat())
}

/// `[images, C H W]`.
fn pixels(images: &Split, range: std::ops::Range<usize>) -> Result<Tensor> {
    Ok(images.range(range, &Device::Cpu)?.flatten_from(1)?)
}

/// Images that lie far apart, `[count, C H W]`.
fn first_means(images: &Split, count: usize, seed: Seed) -> Result<Tensor> {
    let (all, mut rng) = (images.len(), seed.rng(STAGE));
    let some: Vec<u32> = index::sample(&mut rng, all, all.min(FIRST)).into_iter().map(|i| i as u32).collect();
    let images = images.batch(&some, &Device::Cpu)?.flatten_from(1)?;
    let (n, length) = images.dims2()?;
    let values = images.flatten_all()?.to_vec1::<f32>()?;
    let image = |i: usize| &values[i * length..][..length];
    let (mut distances, mut chosen) = (vec![1f64; n], Vec::with_capacity(count));
    while chosen.len() < count {
        // Where all images are chosen already, or equal to one that is, any will do.
        let next = WeightedIndex::new(&distances).map_or(n - 1, |by_distance| by_distance.sample(&mut rng));
        let first = chosen.is_empty();
        distances.par_iter_mut().enumerate().for_each(|(i, distance)| {
            let to_it = squared_distance(image(i), image(next)).into();
            *distance = if first { to_it } else { distance.min(to_it) };
        });
        chosen.push(next as u32);
    }
    Ok(images.index_select(&Tensor::from_vec(chosen, count, &Device::Cpu)?, 0)?)
}

/// In eight sums, which the compiler makes a vector of.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (a, b) in a.0.iter().zip(b.0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += (a - b) * (a - b);
        }
    }
    let rest = a.1.iter().zip(b.1).map(|(a, b)| (a - b) * (a - b));
    sums.into_iter().chain(rest).sum()
}

/// The mean of the images that are nearest to each.
fn moved(images: &Split, means: &Tensor, nearest: &[u32]) -> Result<Tensor> {
    let (count, length) = means.flatten_from(1)?.dims2()?;
    let (mut sums, mut counts) = (vec![0f64; count * length], vec![0f64; count]);
    for range in batches(images.len(), BATCH) {
        let values = pixels(images, range.clone())?.flatten_all()?.to_vec1::<f32>()?;
        for (image, &mean) in values.chunks(length).zip(&nearest[range]) {
            let mean = mean as usize;
            counts[mean] += 1.;
            let sums = &mut sums[mean * length..][..length];
            sums.iter_mut().zip(image).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }
    let mut values = means.flatten_all()?.to_vec1::<f32>()?;
    for ((values, sums), n) in values.chunks_mut(length).zip(sums.chunks(length)).zip(counts) {
        if n > 0. {
            values.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / n) as f32);
        }
    }
    Ok(Tensor::from_vec(values, (count, length), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use snn_train::Silent;

    use super::*;

    /// Images of 2 x 2 pixels about each of these values.
    fn about(values: &[u8]) -> Split {
        let mut rng = Seed(4).rng("images");
        let image = |i: usize| [(); 4].map(|()| values[i % values.len()] + rng.random_range(0..10));
        Split::new((0..2_300).flat_map(image).collect(), vec![0; 2_300], (1, 2, 2)).unwrap()
    }

    #[test]
    fn groups_are_found_with_their_means() {
        let images = about(&[0, 80, 160, 240]);
        let find = |count| means_of(&images, count, Seed(1), &mut Silent).unwrap();
        let means = find(4);
        assert_eq!(means.dims(), [4, 1, 2, 2]);
        let values = |means: &Tensor| means.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&means), values(&find(4)));
        let nearest = nearest_of(&images, &means).unwrap();
        // Every fourth image is of the same group, and the group's mean is the mean of its images.
        for group in 0..4 {
            let all: Vec<usize> = (group..2_300).step_by(4).collect();
            assert!(all.iter().all(|&i| nearest[i] == nearest[group]), "{group}");
            let own = images.batch(&all.iter().map(|&i| i as u32).collect::<Vec<_>>(), &Device::Cpu).unwrap();
            let gap = (own.mean(0).unwrap() - means.get(nearest[group] as usize).unwrap()).unwrap();
            let gap = gap.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(gap < 1e-5, "{group}: {gap}");
        }
        // The obvious twin: the least squared difference of all.
        let means = find(7);
        let (values, flat) = (pixels(&images, 0..2_300).unwrap(), means.flatten_from(1).unwrap());
        let difference = values.unsqueeze(1).unwrap().broadcast_sub(&flat.unsqueeze(0).unwrap()).unwrap();
        let twin = difference.sqr().unwrap().sum(2).unwrap().argmin(1).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(nearest_of(&images, &means).unwrap(), twin);
    }

    #[test]
    fn as_many_clusters_as_images_and_more_clusters_than_different_images() {
        let same = Split::new(vec![7; 12], vec![0; 3], (1, 2, 2)).unwrap();
        let means = means_of(&same, 3, Seed(0), &mut Silent).unwrap();
        assert_eq!(nearest_of(&same, &means).unwrap(), [0; 3]);
    }
}
