//! How far images are from real ones, by the features of a network.

use candle_core::{Device, Tensor};
use snn_train::Progress;
use spiking_diffusion_metrics::{FAD_BATCH, Fad, FeatureExtractor, FeatureStats, frechet_distance};

use super::distance::{extract, in_8_bits};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};

/// Says which real images are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Against {
    /// Training images. Whatever is *chosen*, such as a temperature, is chosen by these, so that the distance to test images is
    /// measured once, in the end, and of what was chosen without them.
    #[default]
    Train,
    /// Test images, for what is reported; those [held out](Dataset::hold_out) in their place, where there are any.
    Test,
}

impl Against {
    pub(crate) fn of(self, data: &Dataset) -> (&Split, &'static str) {
        match self {
            Self::Train => (&data.train, "training"),
            Self::Test if data.held_out > 0 => (&data.test, "held-out"),
            Self::Test => (&data.test, "test"),
        }
    }
}

/// Holds the network whose features are compared.
#[non_exhaustive]
pub enum FeatureNetwork {
    /// Any extractor, such as Inception or a classifier; it must take pixels in [-0.5, 0.5].
    Extractor(Box<dyn FeatureExtractor>),
    /// The network of FAD, for pixels in [-0.5, 0.5], in batches of [`FAD_BATCH`].
    Fad(Box<Fad>),
}

impl FeatureNetwork {
    fn name(&self) -> String {
        match self {
            Self::Extractor(extractor) => extractor.name(),
            Self::Fad(network) => network.name(FAD_BATCH),
        }
    }

    fn statistics(&self, images: &Tensor, progress: &mut dyn Progress) -> Result<FeatureStats> {
        Ok(match self {
            Self::Extractor(extractor) => {
                FeatureStats::from_features(&extract(&**extractor, images, progress)?)?
            }
            Self::Fad(network) => network.statistics(images, FAD_BATCH)?,
        })
    }
}

/// Measures the Fréchet distance of images to real ones: a network, and the statistics of its features of the real images.
///
/// # Examples
/// ```
/// use spiking_diffusion::judge::{Against, FeatureNetwork, Judge};
/// use spiking_diffusion::metrics::Pixels;
/// use spiking_diffusion::{Silent, data};
/// # fn main() -> spiking_diffusion::Result<()> {
/// let digits = data::mnist(None)?;
/// let pixels = FeatureNetwork::Extractor(Box::new(Pixels::new(1, 28, 28)));
/// let judge = Judge::new(pixels, Against::Train, &digits, 50, &mut Silent)?;
/// assert_eq!(judge.name(), "pixels 1x28x28, against the first 50 training images");
/// let same = digits.train.range(0..50, &candle_core::Device::Cpu)?;
/// assert!(judge.distance(&same, &mut Silent)?.abs() < 1e-6);
/// # Ok(()) }
/// ```
pub struct Judge {
    features: FeatureNetwork,
    real: FeatureStats,
    name: String,
}

impl Judge {
    /// Takes the features of the first `count` real images.
    ///
    /// # Errors
    /// Returns an error if there are fewer such images or fewer than two are asked for, if the network does not take them, or if
    /// a stop was asked for.
    pub fn new(
        features: FeatureNetwork,
        against: Against,
        data: &Dataset,
        count: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let (split, set) = against.of(data);
        if !(2..=split.len()).contains(&count) {
            let reason = format!("needs at least two, and there are {} {set} images", split.len());
            return Err(Error::config("real", format!("{count} images"), reason));
        }
        let real = features.statistics(&split.range(0..count, &Device::Cpu)?, progress)?;
        let which = if count == split.len() { "all" } else { "the first" };
        let name = format!("{}, against {which} {count} {set} images", features.name());
        Ok(Self { features, real, name })
    }

    /// With statistics that somebody else has taken of `what`.
    pub(super) fn with_statistics(features: FeatureNetwork, real: FeatureStats, what: &str) -> Self {
        let name = format!("{}, against {what}", features.name());
        Self { features, real, name }
    }

    /// Names the network and the real images, as they should stand beside a result.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Measures the distance of images in [-0.5, 0.5], rounded to 8 bits as in a PNG; smaller is better. Only distances of equally many
    /// images can be compared.
    ///
    /// # Errors
    /// Returns an error if there are fewer than two images, if the network does not take them, or if a stop was asked for.
    pub fn distance(&self, images: &Tensor, progress: &mut dyn Progress) -> Result<f64> {
        Ok(frechet_distance(&self.real, &self.features.statistics(&in_8_bits(images)?, progress)?)?)
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Judge").field(&self.name).finish()
    }
}
