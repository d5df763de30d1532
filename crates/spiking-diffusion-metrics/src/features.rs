//! From images to features.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::{Error, ImageSource, Result};

/// Turns images into the feature vectors between which distances are measured: an Inception network, the pixels themselves,
/// or a network of your own.
///
/// A distance between features means nothing without the extractor and its preprocessing, so [`name`] says
/// which they are, to stand beside the number.
///
/// [`name`]: FeatureExtractor::name
///
/// # Examples
/// ```
/// use candle_core::Tensor;
/// use spiking_diffusion_metrics::{FeatureExtractor, Result};
///
/// /// Mean brightness: one feature.
/// struct Brightness;
///
/// impl FeatureExtractor for Brightness {
///     fn name(&self) -> String {
///         "brightness".into()
///     }
///     fn dims(&self) -> usize {
///         1
///     }
///     fn extract(&self, images: &Tensor) -> Result<Tensor> {
///         Ok(images.flatten_from(1)?.mean_keepdim(1)?)
///     }
/// }
/// ```
pub trait FeatureExtractor {
    /// Names the network, the weights and the preprocessing, as they should stand beside a result.
    fn name(&self) -> String;

    /// The number of features `D`.
    fn dims(&self) -> usize;

    /// Computes the features of a batch, `images [N, C, H, W]` -> `[N, D]`.
    ///
    /// The features of an image must not depend on the other images of the batch.
    ///
    /// # Errors
    /// Returns an error if the extractor does not take such images.
    fn extract(&self, images: &Tensor) -> Result<Tensor>;

    /// Whether a set may hold images of several sizes, because the extractor resizes each to the size that it needs. By default
    /// it may not, and a source that has images of several sizes refuses.
    fn takes_any_size(&self) -> bool {
        false
    }
}

/// Takes the flattened pixels as features, without a network, for tests and baselines: a distance between them says little
/// about perception.
///
/// `features[n, (c H + h) W + w] = images[n, c, h, w]`
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::{FeatureExtractor, Pixels};
///
/// let pixels = Pixels::new(1, 28, 28);
/// let images = Tensor::zeros((4, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(pixels.extract(&images)?.dims(), [4, 784]);
/// assert_eq!(pixels.name(), "pixels 1x28x28");
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels {
    channels: usize,
    height: usize,
    width: usize,
}

impl Pixels {
    /// An extractor for images `[N, channels, height, width]`.
    #[must_use]
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }
}

impl FeatureExtractor for Pixels {
    fn name(&self) -> String {
        format!("pixels {}x{}x{}", self.channels, self.height, self.width)
    }

    fn dims(&self) -> usize {
        self.channels.saturating_mul(self.height).saturating_mul(self.width)
    }

    fn extract(&self, images: &Tensor) -> Result<Tensor> {
        let Self { channels, height, width } = *self;
        match images.dims() {
            [_, c, h, w] if [*c, *h, *w] == [channels, height, width] => Ok(images.flatten_from(1)?),
            got => Err(Error::Shape {
                what: "images",
                expected: format!("[N, {channels}, {height}, {width}]"),
                got: got.to_vec(),
            }),
        }
    }
}

/// Extracts the features of a set of images, at most `batch_size` images at a time.
///
/// # Shapes
/// `images: [N, C, H, W]` -> `[N, D]`.
///
/// # Errors
/// Returns an error if `batch_size` is 0, if there are no images or they cannot be read, or if the extractor fails or returns
/// another shape than `[n, D]`.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::{Pixels, extract_batches};
///
/// let images = Tensor::zeros((5, 1, 2, 2), DType::F32, &Device::Cpu)?;
/// assert_eq!(extract_batches(&Pixels::new(1, 2, 2), &images, 2)?.dims(), [5, 4]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn extract_batches(
    extractor: &dyn FeatureExtractor,
    images: &dyn ImageSource,
    batch_size: usize,
) -> Result<Tensor> {
    let mut features = Vec::new();
    for_each_batch(extractor, images, batch_size, |batch| {
        features.push(batch);
        Ok(())
    })?;
    Ok(Tensor::cat(&features, 0)?)
}

/// Calls `use_features` with the features `[n, D]` of one batch after the other.
pub(crate) fn for_each_batch(
    extractor: &dyn FeatureExtractor,
    images: &dyn ImageSource,
    batch_size: usize,
    mut use_features: impl FnMut(Tensor) -> Result<()>,
) -> Result<()> {
    if batch_size == 0 {
        return Err(Error::config("batch_size", 0, "must be at least 1"));
    }
    let count = images.count();
    if count == 0 {
        return Err(Error::TooFew { what: "images", need: 1, got: 0 });
    }
    for start in (0..count).step_by(batch_size) {
        let len = batch_size.min(count - start);
        let features = if extractor.takes_any_size() {
            extract_sizes(extractor, &images.read_sizes(start, len)?)
        } else {
            extractor.extract(&images.read(start, len)?)
        };
        let features = features.map_err(|e| of_image(e, |row| start + row))?;
        check_shape(&features, len, extractor.dims())?;
        use_features(features)?;
    }
    Ok(())
}

/// An error of an extractor, which counts images from 0 in what it was given.
fn of_image(error: Error, number: impl Fn(usize) -> usize) -> Error {
    match error {
        Error::NonFinite { what: what @ "images", row, column, value } => {
            Error::NonFinite { what, row: number(row), column, value }
        }
        other => other,
    }
}

/// Extracts the features of images of several sizes, one a tensor, those of one size at once, in the order of the images.
fn extract_sizes(extractor: &dyn FeatureExtractor, images: &[Tensor]) -> Result<Tensor> {
    if let [one] = images {
        return extractor.extract(one);
    }
    let mut sizes: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for (i, image) in images.iter().enumerate() {
        sizes.entry(image.dims()).or_default().push(i);
    }
    let mut features = vec![None; images.len()];
    for members in sizes.values() {
        let together: Vec<&Tensor> = members.iter().map(|&i| &images[i]).collect();
        let rows = extractor.extract(&Tensor::cat(&together, 0)?);
        let rows = rows.map_err(|e| of_image(e, |row| members.get(row).copied().unwrap_or(row)))?;
        let mut start = 0;
        for &i in members {
            let len = images[i].dim(0)?;
            features[i] = Some(rows.narrow(0, start, len)?);
            start += len;
        }
    }
    Ok(Tensor::cat(&features.into_iter().flatten().collect::<Vec<_>>(), 0)?)
}

fn check_shape(features: &Tensor, rows: usize, dims: usize) -> Result<()> {
    if features.dims() == [rows, dims] {
        return Ok(());
    }
    let (expected, got) = (format!("[{rows}, {dims}]"), features.dims().to_vec());
    Err(Error::Shape { what: "features of a batch", expected, got })
}
