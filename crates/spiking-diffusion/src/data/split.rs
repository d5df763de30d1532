//! One split of a data set.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use spiking_diffusion_metrics::resize_bytes;

use crate::error::{Error, Result};

/// Holds images of one shape with their labels, a byte a pixel, and makes batches of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    image: (usize, usize, usize),
}

impl Split {
    /// Makes a split from bytes: images one after the other, each `[channels, height, width]` (the autoencoder wants 1 or 3 channels and
    /// sides divisible by 4), and a label for each. Labels serve classifiers alone; zeros will do elsewhere.
    ///
    /// # Errors
    /// Returns an error if there are no images, if the shape is empty, or if there are not as many pixels or labels as there should be.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>, image: (usize, usize, usize)) -> Result<Self> {
        let images = || format!("{} images of {image:?}", labels.len());
        let size = image.0.checked_mul(image.1).and_then(|size| size.checked_mul(image.2));
        let Some(wanted) = size.and_then(|size| size.checked_mul(labels.len())) else {
            return Err(Error::config("data", images(), "no machine can hold so many pixels"));
        };
        if wanted == 0 {
            let reason = "there must be at least one image, of at least one pixel";
            return Err(Error::config("data", images(), reason));
        }
        if pixels.len() != wanted {
            let what = format!("{} pixels", pixels.len());
            let reason = format!("{} labels of images of {image:?} need {wanted}", labels.len());
            return Err(Error::config("data", what, reason));
        }
        Ok(Self { pixels, labels, image })
    }

    /// Returns the number of images, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns `(channels, height, width)`, the same for every image.
    #[must_use]
    pub fn image(&self) -> (usize, usize, usize) {
        self.image
    }

    /// Returns the labels.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Returns the bytes of image `i`, `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns an error if there are fewer images.
    pub fn bytes(&self, i: usize) -> Result<&[u8]> {
        let bytes = self.pixels.chunks_exact(self.size()).nth(i);
        bytes.ok_or_else(|| Error::config("image", i, format!("there are {}", self.len())))
    }

    /// Makes a tensor of these images, in [-0.5, 0.5] (`byte / 255 - 1/2`).
    ///
    /// # Shapes
    /// -> f32 `[n, channels, height, width]` of `n` indices.
    /// # Errors
    /// Returns an error if an index is that of no image.
    pub fn batch(&self, indices: &[u32], device: &Device) -> Result<Tensor> {
        self.to_tensor(self.gather(indices)?, device)
    }

    /// Makes a tensor of the images of a range, as [`batch`](Self::batch).
    ///
    /// # Shapes
    /// -> f32 `[range.len(), channels, height, width]`.
    /// # Errors
    /// Returns an error if the range goes beyond the images, or backwards.
    pub fn range(&self, range: Range<usize>, device: &Device) -> Result<Tensor> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::config("images", format!("{range:?}"), format!("there are {}", self.len())));
        }
        let bytes = &self.pixels[range.start * self.size()..range.end * self.size()];
        self.to_tensor(bytes.to_vec(), device)
    }

    /// Computes the population variance of all pixels in [0, 1] (MNIST's training images: 0.0949).
    ///
    /// # Errors
    /// Returns no error today; the result is kept for readers that stream.
    pub fn pixel_variance(&self) -> Result<f64> {
        let mut counts = [0u64; 256];
        self.pixels.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        let n = self.pixels.len() as f64;
        let moment = |f: &dyn Fn(f64) -> f64| {
            counts.iter().enumerate().map(|(byte, &count)| count as f64 * f(byte as f64 / 255.)).sum::<f64>()
                / n
        };
        let mean = moment(&|x| x);
        Ok(moment(&|x| (x - mean).powi(2)))
    }

    /// Shape, labels and pixels.
    pub(super) fn hash(&self, hash: &mut Sha256) {
        let (c, h, w) = self.image;
        [self.len(), c, h, w].iter().for_each(|n| hash.update((*n as u64).to_le_bytes()));
        hash.update(&self.labels);
        hash.update(&self.pixels);
    }

    /// The same images in other rows and columns, resized as Pillow's bilinear filter resizes bytes.
    pub(super) fn resized(&self, (height, width): (usize, usize)) -> Result<Self> {
        let (channels, rows, columns) = self.image;
        let pixels = resize_bytes(&self.pixels, (rows, columns), (height, width))?;
        Self::new(pixels, self.labels.clone(), (channels, height, width))
    }

    pub(super) fn first(mut self, n: usize) -> Result<Self> {
        if n == 0 {
            return Err(Error::config("limit", n, "must leave at least one training image"));
        }
        self.labels.truncate(n);
        self.pixels.truncate(self.labels.len() * self.size());
        Ok(self)
    }

    /// The images with these indices, in this order.
    pub(super) fn select(&self, indices: &[u32]) -> Result<Self> {
        let pixels = self.gather(indices)?;
        let labels = indices.iter().map(|&i| self.labels[i as usize]).collect();
        Self::new(pixels, labels, self.image)
    }

    fn gather(&self, indices: &[u32]) -> Result<Vec<u8>> {
        let images: Vec<&[u8]> = indices.iter().map(|&i| self.bytes(i as usize)).collect::<Result<_>>()?;
        Ok(images.concat())
    }

    fn size(&self) -> usize {
        self.image.0 * self.image.1 * self.image.2
    }

    fn to_tensor(&self, pixels: Vec<u8>, device: &Device) -> Result<Tensor> {
        let (channels, height, width) = self.image;
        let shape = (pixels.len() / self.size(), channels, height, width);
        let bytes = Tensor::from_vec(pixels, shape, device)?;
        Ok(bytes.to_dtype(DType::F32)?.affine(1. / 255., -0.5)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split() -> Split {
        Split::new((0..=255).collect(), vec![3, 1, 4, 1], (1, 8, 8)).unwrap()
    }

    #[test]
    fn bytes_become_pixels() {
        let images = split().batch(&[3, 0], &Device::Cpu).unwrap();
        assert_eq!(images.dims(), [2, 1, 8, 8]);
        let values = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((values[63], values[64]), (0.5, -0.5));
        assert_eq!(values[0], (192f32 * (1. / 255.)) - 0.5);
        let range = split().range(2..4, &Device::Cpu).unwrap();
        assert_eq!(range.flatten_all().unwrap().to_vec1::<f32>().unwrap()[64..], values[..64]);
    }

    #[test]
    fn variance_is_that_of_the_bytes() {
        // Uniform over 0..=255: (256^2 - 1) / 12 / 255^2.
        let expected = (65536. - 1.) / 12. / (255. * 255.);
        assert!((split().pixel_variance().unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn an_index_beyond_is_an_error_however_large() {
        let split = Split::new((0..12).collect(), vec![0; 3], (1, 2, 2)).unwrap();
        // `i * 4` wraps to 0 for the second, `(i + 1) * 4` for the first.
        for i in [usize::MAX / 4, usize::MAX / 4 + 1, usize::MAX / 4 + 2, usize::MAX - 1, usize::MAX, 4] {
            let message = split.bytes(i).unwrap_err().to_string();
            assert!(message.contains(&format!("`image` = {i}: there are 3")), "{message}");
            for (start, end) in [(i, i), (0, i), (2, i), (i, usize::MAX), (i, 0), (2, 1)] {
                let message = split.range(start..end, &Device::Cpu).unwrap_err().to_string();
                assert!(message.contains(&format!("`images` = {start}..{end}: there are 3")), "{message}");
            }
        }
        assert_eq!(split.bytes(2).unwrap(), [8, 9, 10, 11]);
        assert!(split.batch(&[u32::MAX], &Device::Cpu).is_err());
        assert_eq!(split.clone().first(usize::MAX).unwrap(), split);
        for image in [(usize::MAX, 2, 1), (1 << 32, 1 << 32, 1), (1, usize::MAX / 2 + 1, 1)] {
            let message = Split::new(vec![0; 4], vec![0; 2], image).unwrap_err().to_string();
            assert!(message.contains(&format!("2 images of {image:?}: no machine")), "{message}");
        }
    }

    #[test]
    fn limits_and_rejections() {
        assert_eq!(split().first(3).unwrap().len(), 3);
        assert_eq!(split().first(9).unwrap(), split());
        let rejected = [
            split().first(0).err(),
            split().batch(&[4], &Device::Cpu).err(),
            split().range(3..5, &Device::Cpu).err(),
            Split::new(vec![0; 63], vec![0], (1, 8, 8)).err(),
            Split::new(Vec::new(), Vec::new(), (1, 8, 8)).err(),
            Split::new(Vec::new(), vec![1], (1, 0, 8)).err(),
        ];
        let named = ["limit", "4", "3..5", "63 pixels", "0 images", "1 images"];
        for (error, part) in rejected.into_iter().zip(named) {
            let message = error.unwrap().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
