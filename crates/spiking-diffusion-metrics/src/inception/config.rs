//! Which network, which layer, and what happens to the pixels before.

use serde::{Deserialize, Serialize};

use crate::{Error, Resize, Result};

/// Tells the two networks that are called Inception v3 apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InceptionVariant {
    /// TensorFlow's network of 2015-12-05, by which FID and KID are defined: average pools leave the padding out, the
    /// last block takes a maximum, and there are 1008 classes.
    Fid,
    /// torchvision's `inception_v3`: average pools count the padding, and there are 1000 classes.
    ImageNet,
}

/// Where in the network the features are taken. All but the logits are averaged over the image.
///
/// The order is that of the network: a layer needs the weights of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InceptionLayer {
    /// The first max pool, with 64 features.
    Pool64,
    /// The second max pool, with 192 features.
    Pool192,
    /// `Mixed_6e`, with 768 features, which is the input of the auxiliary classifier.
    Mixed768,
    /// The last average pool, with 2048 features: the usual choice.
    Pool2048,
    /// The classifier's output without its bias, as torch-fidelity's Inception score takes it.
    LogitsUnbiased,
    /// The classifier's output.
    Logits,
}

impl InceptionLayer {
    /// The number of features.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::{InceptionLayer, InceptionVariant};
    ///
    /// assert_eq!(InceptionLayer::Mixed768.dims(InceptionVariant::Fid), 768);
    /// assert_eq!(InceptionLayer::Logits.dims(InceptionVariant::Fid), 1008);
    /// ```
    #[must_use]
    pub fn dims(self, variant: InceptionVariant) -> usize {
        match (self, variant) {
            (Self::Pool64, _) => 64,
            (Self::Pool192, _) => 192,
            (Self::Mixed768, _) => 768,
            (Self::Pool2048, _) => 2048,
            (Self::LogitsUnbiased | Self::Logits, InceptionVariant::Fid) => 1008,
            (Self::LogitsUnbiased | Self::Logits, InceptionVariant::ImageNet) => 1000,
        }
    }

    /// Finds the layer, other than the logits, that has so many features.
    ///
    /// # Errors
    /// Returns an error if `dims` is none of 64, 192, 768 and 2048.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::InceptionLayer;
    ///
    /// assert_eq!(InceptionLayer::with_dims(768)?, InceptionLayer::Mixed768);
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn with_dims(dims: usize) -> Result<Self> {
        let layers =
            [(64, Self::Pool64), (192, Self::Pool192), (768, Self::Mixed768), (2048, Self::Pool2048)];
        let found = layers.into_iter().find(|(features, _)| *features == dims);
        let (_, layer) = found.ok_or_else(|| Error::config("dims", dims, "must be 64, 192, 768 or 2048"))?;
        Ok(layer)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Pool64 => "64",
            Self::Pool192 => "192",
            Self::Mixed768 => "768",
            Self::Pool2048 => "2048",
            Self::LogitsUnbiased => "logits without bias",
            Self::Logits => "logits",
        }
    }
}

/// How a pixel `u` in `[0, 1]` becomes the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PixelScaling {
    /// `2 u - 1` (pytorch-fid, and what torchvision's network was trained on).
    Symmetric,
    /// `(255 u - 128) / 128` (TensorFlow, torch-fidelity, clean-fid).
    Bytes,
    /// `(u - mean) / std` of ImageNet. torchvision's weights come with `transform_input = true`, which then undoes
    /// it by `x std / 0.5 + (mean - 0.5) / 0.5`; together that is `2 u - 1`.
    ImageNet {
        /// Whether torchvision's `transform_input` follows.
        transform_input: bool,
    },
    /// torchvision's `transform_input` on pixels that were never normalised as it expects, but range from `of[0]` to
    /// `of[1]`: `x = of[0] + (of[1] - of[0]) u`, then `x std / 0.5 + (mean - 0.5) / 0.5`.
    TransformOnly {
        /// The values of black and white.
        of: [f32; 2],
    },
    /// `u scale[c] + offset[c]`.
    Affine {
        /// The factors of red, green and blue.
        scale: [f32; 3],
        /// What is added to red, green and blue.
        offset: [f32; 3],
    },
}

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

impl PixelScaling {
    /// `(scale, offset)` of a colour channel.
    pub(crate) fn affine(self, channel: usize) -> (f32, f32) {
        let (mean, std) = (MEAN[channel], STD[channel]);
        match self {
            Self::Symmetric | Self::ImageNet { transform_input: true } => (2.0, -1.0),
            Self::Bytes => (255.0 / 128.0, -1.0),
            Self::ImageNet { transform_input: false } => (1.0 / std, -mean / std),
            Self::TransformOnly { of: [black, white] } => {
                (2.0 * std * (white - black), 2.0 * std * black + 2.0 * mean - 1.0)
            }
            Self::Affine { scale, offset } => (scale[channel], offset[channel]),
        }
    }

    fn label(self) -> String {
        match self {
            Self::Symmetric => "2u - 1".into(),
            Self::Bytes => "(255u - 128)/128".into(),
            Self::ImageNet { transform_input: true } => "ImageNet mean and std, transform_input".into(),
            Self::ImageNet { transform_input: false } => "ImageNet mean and std".into(),
            Self::TransformOnly { of } => format!("transform_input of pixels in {of:?}"),
            Self::Affine { scale, offset } => format!("u {scale:?} + {offset:?}"),
        }
    }
}

/// Says what an [`Inception`](crate::Inception) computes: which network, up to which layer, and what happens to the pixels
/// before. Published numbers differ in all three.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{InceptionConfig, InceptionLayer};
///
/// let config = InceptionConfig { range: [-0.5, 0.5], ..InceptionConfig::pytorch_fid(InceptionLayer::Mixed768) };
/// assert_eq!(config.dims(), 768);
/// assert!(config.to_string().starts_with("FID Inception 2015-12-05, 768 features"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InceptionConfig {
    /// The network.
    pub variant: InceptionVariant,
    /// Where the features are taken.
    pub layer: InceptionLayer,
    /// The values of black and white in the images; `u = (x - black) / (white - black)`. Pixels outside this range are an error,
    /// unless `quantize` clamps them.
    pub range: [f32; 2],
    /// Whether `u` is first clamped to `[0, 1]` and rounded to a multiple of 1/255, as if the images had been saved
    /// in files.
    pub quantize: bool,
    /// How images become 299 x 299. `None` takes them at the size they have, which must be at least 75 x 75.
    pub resize: Option<Resize>,
    /// How `u` becomes the network's input.
    pub scaling: PixelScaling,
}

impl InceptionConfig {
    /// The config of pytorch-fid: bilinear resizing with half-pixel centres, `2 u - 1`.
    #[must_use]
    pub const fn pytorch_fid(layer: InceptionLayer) -> Self {
        Self {
            variant: InceptionVariant::Fid,
            layer,
            range: [0.0, 1.0],
            quantize: false,
            resize: Some(Resize::Bilinear),
            scaling: PixelScaling::Symmetric,
        }
    }

    /// The config of torch-fidelity: bytes, TensorFlow 1's bilinear resizing, `(x - 128) / 128`.
    #[must_use]
    pub const fn torch_fidelity(layer: InceptionLayer) -> Self {
        let (resize, scaling) = (Some(Resize::BilinearCorner), PixelScaling::Bytes);
        Self { quantize: true, resize, scaling, ..Self::pytorch_fid(layer) }
    }

    /// The config of clean-fid: bytes, Pillow's bicubic resizing on floats (cut to the range of bytes), `(x - 128) / 128`.
    #[must_use]
    pub const fn clean_fid(layer: InceptionLayer) -> Self {
        let (resize, scaling) = (Some(Resize::Bicubic), PixelScaling::Bytes);
        Self { quantize: true, resize, scaling, ..Self::pytorch_fid(layer) }
    }

    /// The config of torchvision's network: PyTorch's bilinear resizing, and the `transform_input` of its published weights.
    #[must_use]
    pub const fn torchvision(layer: InceptionLayer) -> Self {
        let scaling = PixelScaling::ImageNet { transform_input: true };
        Self { variant: InceptionVariant::ImageNet, scaling, ..Self::pytorch_fid(layer) }
    }

    /// Number of features.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.layer.dims(self.variant)
    }

    /// Rejects a range or a scaling that leaves nothing of the pixels or makes them infinite.
    pub(super) fn validate(&self) -> Result<()> {
        let [black, white] = self.range;
        if !(white - black).is_normal() {
            let value = format!("{:?}", self.range);
            return Err(Error::config(
                "range",
                value,
                "must be two different numbers, and their difference finite",
            ));
        }
        let finite = |(scale, offset): (f32, f32)| scale.is_finite() && offset.is_finite();
        if !(0..3).all(|channel| finite(self.scaling.affine(channel))) {
            return Err(Error::config("scaling", format!("{:?}", self.scaling), "must be finite"));
        }
        Ok(())
    }
}

impl std::fmt::Display for InceptionConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let network = match self.variant {
            InceptionVariant::Fid => "FID Inception 2015-12-05",
            InceptionVariant::ImageNet => "torchvision Inception v3",
        };
        let resize = match self.resize {
            None => "not resized",
            Some(Resize::Bilinear) => "bilinear (PyTorch)",
            Some(Resize::BilinearCorner) => "bilinear (TensorFlow 1)",
            Some(Resize::Bicubic) => "bicubic (Pillow, float)",
        };
        let bytes = if self.quantize { "bytes, " } else { "" };
        let (layer, scaling) = (self.layer.label(), self.scaling.label());
        write!(f, "{network}, {layer} features; {bytes}{resize}, {scaling}")
    }
}
