//! Training images flipped at random.

use candle_core::{Result, Tensor};
use rand::Rng;
use snn_core::Seed;

/// Flips each image left to right with this probability, by the seed's stream `<label>/flips`: `[N, channels, H, W]` to the same.
pub(super) fn flip(images: &Tensor, share: f64, seed: Seed, label: &str) -> Result<Tensor> {
    let mut rng = seed.rng(&format!("{label}/flips"));
    let flipped: Vec<u8> = (0..images.dim(0)?).map(|_| u8::from(rng.random::<f64>() < share)).collect();
    let flipped = Tensor::from_vec(flipped, (images.dim(0)?, 1, 1, 1), images.device())?;
    flipped.broadcast_as(images.shape())?.where_cond(&images.flip(&[3])?, images)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Which images of a batch are flipped, each of them checked to be itself or its mirror image.
    fn flipped(share: f64, seed: Seed, label: &str) -> Vec<bool> {
        let (count, size) = (400usize, 2 * 3 * 4);
        let pixels: Vec<f32> = (0..count * size).map(|i| i as f32).collect();
        let images = Tensor::from_vec(pixels, (count, 2, 3, 4), &Device::Cpu).unwrap();
        let shown =
            flip(&images, share, seed, label).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let is_flipped = |(i, image): (usize, &[f32])| {
            let at = |row: usize, column: usize| (i * size + row * 4 + column) as f32;
            let read = |mirror: bool| -> Vec<f32> {
                (0..size).map(|p| at(p / 4, if mirror { 3 - p % 4 } else { p % 4 })).collect()
            };
            assert!(image == read(true) || image == read(false), "{image:?}");
            image == read(true)
        };
        shown.chunks_exact(size).enumerate().map(is_flipped).collect()
    }

    #[test]
    fn about_half_of_the_images_are_flipped_and_seed_and_step_say_which() {
        let (seed, label) = (Seed(3), "esvae/draws/7");
        let which = flipped(0.5, seed, label);
        let count = which.iter().filter(|&&flipped| flipped).count();
        // Six standard deviations of a fair coin: 60.
        assert!((140..=260).contains(&count), "{count}");
        assert_eq!(flipped(0.5, seed, label), which);
        assert_ne!(flipped(0.5, seed, "esvae/draws/8"), which);
        assert_ne!(flipped(0.5, Seed(4), label), which);
        assert!(flipped(0., seed, label).iter().all(|&flipped| !flipped));
        assert!(flipped(1., seed, label).iter().all(|&flipped| flipped));
    }
}
