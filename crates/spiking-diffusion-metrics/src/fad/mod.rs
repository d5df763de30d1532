//! FAD: the Fréchet distance in the features of a published autoencoder, on which spiking generators are compared.

mod network;
mod pillow;

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::input::{self, SLACK};
use crate::resize::checked_dims;
use crate::source::one_channel;
use crate::{Error, FeatureExtractor, FeatureStats, ImageSource, Result, WeightFile};
use network::Network;
pub use pillow::resize_bytes;

/// Side of the images that the network was trained on.
const SIDE: usize = 32;

/// Gives the features of FAD, by which spiking generators are compared: the encoder of an autoencoder of FSVAE's authors
/// (Kamata et al. 2022), as they publish it.
///
/// FSVAE, ESVAE and FSDDIM report the Fréchet distance of its features with one and the same file. Numbers made here can
/// stand beside theirs if the counts are equal (5,120 or 10,000 generated images; the distance of fewer is larger) and so are
/// the batches.
///
/// - Images become bytes (clamped, rounded), are resized to 32 x 32 as Pillow's `BILINEAR` does it unless they are that size,
///   and become `2 x / 255 - 1`.
/// - Four 3 x 3 convolutions of stride 2, each with batch norm and a leaky ReLU, and a linear layer of 64 (of CIFAR-10's
///   network 128) features.
/// - The network is **in training mode**, as the published statistics were made: batch norm takes the statistics of each batch,
///   so that features depend on the batch, and images must come in batches of the protocol's size, in order.
///
/// # Examples
/// ```no_run
/// use spiking_diffusion_metrics::{FAD_BATCH, Fad, FeatureStats, ImageFolder, frechet_distance};
///
/// let (network, published) = (Fad::open("mnist_64.pth")?, FeatureStats::read_npz("mnist_test_64.npz")?);
/// let samples = network.statistics(&ImageFolder::open("samples")?, FAD_BATCH)?;
/// println!("FAD {}", frechet_distance(&published, &samples)?);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
#[derive(Debug)]
pub struct Fad {
    network: Network,
    range: [f64; 2],
}

/// The number of images in a batch of the published statistics.
pub const FAD_BATCH: usize = 256;

impl Fad {
    /// Loads the network for images in [0, 1] from the published `.pth` file, or from the same tensors as `.safetensors`.
    ///
    /// # Errors
    /// Returns an error, with the file and the tensor, if the file cannot be read or is not such a network.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(&WeightFile::open(path)?)
    }

    fn new(weights: &WeightFile) -> Result<Self> {
        Ok(Self { network: Network::new(weights)?, range: [0., 1.] })
    }

    /// The same network for images whose pixels lie in `range`, such as `[-0.5, 0.5]`.
    #[must_use]
    pub fn with_range(self, range: [f64; 2]) -> Self {
        Self { range, ..self }
    }

    /// Names the network, the protocol and the batch size, as they should stand beside a result.
    #[must_use]
    pub fn name(&self, batch_size: usize) -> String {
        format!("FSVAE's autoencoder, {} features, statistics of batches of {batch_size}", self.dims())
    }

    /// The number of features.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.network.features()
    }

    /// The number of channels of the images that it takes; a network of one channel also takes three equal ones.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.network.channels()
    }

    /// Computes the features of images, in their order and in batches of `batch_size`, the last of which may be smaller.
    ///
    /// # Shapes
    /// `images: [N, C, H, W]` -> `[N, D]`.
    /// # Errors
    /// Returns an error if there are no images or the batch size is 0, or if images cannot be read, have other channels than the
    /// network, hold a pixel that is not finite or one that is far outside the range.
    pub fn features(&self, images: &dyn ImageSource, batch_size: usize) -> Result<Tensor> {
        crate::extract_batches(&InBatches(self), images, batch_size)
    }

    /// Computes the statistics of [`features`](Self::features), with no more than one batch of images in memory.
    ///
    /// # Errors
    /// Returns the errors of [`features`](Self::features), and an error if there are fewer than two images.
    pub fn statistics(&self, images: &dyn ImageSource, batch_size: usize) -> Result<FeatureStats> {
        FeatureStats::from_images(&InBatches(self), images, batch_size)
    }

    /// One channel of images that a file gave three equal ones of, if the network wants one.
    fn grey(&self, images: &Tensor) -> Result<Tensor> {
        let (_, c, _, _) = checked_dims(images)?;
        if (self.network.channels(), c) != (1, 3) {
            return Ok(images.clone());
        }
        one_channel(images)?.ok_or_else(|| {
            let expected = "grey images, since the network takes one channel".into();
            Error::Shape { what: "images", expected, got: images.dims().to_vec() }
        })
    }

    /// The images as the network takes them, `[N, C, 32, 32]` in [-1, 1].
    fn prepare(&self, images: &Tensor) -> Result<Tensor> {
        let images = &self.grey(images)?;
        let (n, c, h, w) = checked_dims(images)?;
        let [low, high] = self.range;
        let span = high - low;
        let slack = SLACK * span.abs();
        let is_far = |x: &f64| !(low.min(high) - slack..=low.max(high) + slack).contains(x);
        let values = input::images(images, "images")?.values;
        if !span.is_normal() || values.iter().any(is_far) {
            let reason = "the images reach beyond it by more than 0.4 of its length, or it has none";
            return Err(Error::config("range", format!("{:?}", self.range), reason));
        }
        let byte = |x: f64| ((x - low) / span * 255.).round().clamp(0., 255.) as u8;
        let bytes: Vec<u8> = values.into_iter().map(byte).collect();
        let bytes = if (h, w) == (SIDE, SIDE) { bytes } else { resize_bytes(&bytes, (h, w), (SIDE, SIDE))? };
        let pixels = bytes.into_iter().map(|byte| (2. * f64::from(byte) / 255. - 1.) as f32).collect();
        Ok(Tensor::from_vec(pixels, (n, c, SIDE, SIDE), &Device::Cpu)?)
    }
}

/// The network as an extractor. As its features depend on the batch, it is for this file only.
struct InBatches<'a>(&'a Fad);

impl FeatureExtractor for InBatches<'_> {
    fn name(&self) -> String {
        "FSVAE's autoencoder".into()
    }

    fn dims(&self) -> usize {
        self.0.dims()
    }

    fn extract(&self, images: &Tensor) -> Result<Tensor> {
        self.0.network.features_of(&self.0.prepare(images)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;
    use std::collections::HashMap;

    /// A narrow network of the published names.
    fn weights(channels: [usize; 5], features: usize) -> WeightFile {
        let mut tensors = HashMap::new();
        let mut put = |name: String, shape: &[usize]| {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| ((i * 37 + name.len()) % 19) as f32 / 19. - 0.4).collect();
            tensors.insert(name, Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap());
        };
        for (i, pair) in channels.windows(2).enumerate() {
            put(format!("encoder.{i}.0.weight"), &[pair[1], pair[0], 3, 3]);
            for name in ["0.bias", "1.weight", "1.bias"] {
                put(format!("encoder.{i}.{name}"), &[pair[1]]);
            }
        }
        put("latent_layer.weight".into(), &[features, 4 * channels[4]]);
        put("latent_layer.bias".into(), &[features]);
        WeightFile::from_tensors("memory", tensors)
    }

    fn images(n: usize) -> Tensor {
        let values = (0..n * 784).map(|i| ((i * i) % 257) as f32 / 256.).collect();
        Tensor::from_vec::<_, f32>(values, (n, 1, 28, 28), &Device::Cpu).unwrap()
    }

    #[test]
    fn features_are_those_of_the_batch() {
        let fad = Fad::new(&weights([1, 3, 4, 5, 6], 7)).unwrap();
        let images = images(6);
        let whole = fad.features(&images, 6).unwrap();
        assert_eq!(whole.dims(), [6, 7]);
        let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        let halves = fad.features(&images, 3).unwrap();
        assert_ne!(rows(&whole), rows(&halves));
        let first = fad.features(&images.narrow(0, 0, 3).unwrap(), 3).unwrap();
        assert_eq!(rows(&halves)[..3], rows(&first)[..]);
        let stats = fad.statistics(&images, 3).unwrap();
        let of_features = FeatureStats::from_features(&halves).unwrap();
        let pairs = stats.covariance().iter().zip(of_features.covariance());
        assert!(stats.count() == Some(6) && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn pixels_of_any_range_become_the_same_bytes() {
        let fad = || Fad::new(&weights([1, 3, 4, 5, 6], 7)).unwrap();
        let images = images(4);
        let shifted = (&images - 0.5).unwrap();
        let a = fad().features(&images, 4).unwrap().to_vec2::<f32>().unwrap();
        let b = fad().with_range([-0.5, 0.5]).features(&shifted, 4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(a, b);
    }

    /// As a PNG is read: three equal channels.
    #[test]
    fn grey_images_may_have_three_channels() {
        let fad = Fad::new(&weights([1, 3, 4, 5, 6], 7)).unwrap();
        let images = images(3);
        let three = Tensor::cat(&[&images, &images, &images], 1).unwrap();
        let rows = |images: &Tensor| fad.features(images, 3).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows(&three), rows(&images));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let fad = Fad::new(&weights([1, 3, 4, 5, 6], 7)).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(fad.features(&images(2), 0)).contains("batch_size"));
        let two = Tensor::zeros((2, 2, 32, 32), DType::F32, &Device::Cpu).unwrap();
        assert!(message(fad.features(&two, 2)).contains("[N, 1, 32, 32]"));
        let parts = [images(2), images(2), (images(2) * 0.5).unwrap()];
        let colour = Tensor::cat(&parts, 1).unwrap();
        assert!(message(fad.features(&colour, 2)).contains("grey images"));
        let bad = (images(2) * f64::NAN).unwrap();
        assert!(message(fad.features(&bad, 2)).contains("NaN"));
        let missing = WeightFile::from_tensors("memory", HashMap::new());
        assert!(Fad::new(&missing).unwrap_err().to_string().contains("encoder.0.0.weight"));
    }
}
