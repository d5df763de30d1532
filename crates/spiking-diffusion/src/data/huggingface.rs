//! Data sets of `candle-datasets` as ours, and the official files out of them.

mod official;
#[cfg(test)]
mod tests;

use std::panic::{UnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::{DType, Tensor};
use candle_datasets::vision;
use snn_core::write_atomically;

use super::{Dataset, KnownSet, Split};
use crate::error::{Error, Result};

/// What loads a data set from the hub.
pub(super) type Loader = fn() -> candle_core::Result<vision::Dataset>;

/// The loader of a set, if `candle-datasets` has one.
pub(super) fn loader(set: KnownSet) -> Option<Loader> {
    match set {
        KnownSet::Mnist => Some(vision::mnist::load),
        KnownSet::FashionMnist => Some(vision::fashion_mnist::load),
        KnownSet::Cifar10 => Some(vision::cifar::load),
        KnownSet::Kmnist | KnownSet::Letters => None,
    }
}

/// Writes the official files of the set, unpacked, from what `load` gives: each with its official checksum, or none at all.
///
/// # Errors
/// Returns the errors of `load`, its panics among them, and an error if pixels or labels are not the official ones or a file cannot be
/// written.
pub(super) fn fill(
    set: KnownSet,
    folder: &Path,
    load: impl FnOnce() -> candle_core::Result<vision::Dataset> + UnwindSafe,
) -> Result<()> {
    let failed = |e: String| Error::data(folder, format!("candle-datasets: {e}"));
    let loaded = catch_unwind(load).map_err(|panic| failed(said(&*panic)))?;
    let data = Dataset::try_from(loaded.map_err(|e| failed(e.to_string()))?)?;
    for (name, bytes) in official::files(set, &data, folder)? {
        write_atomically(&folder.join(name), &bytes)?;
    }
    Ok(())
}

/// The message of a panic.
fn said(panic: &dyn std::any::Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

/// From images in `[0, 1]`, `[N, side * side]` or `[N, C, H, W]`, to bytes (`byte / 255`), with a label a byte.
///
/// `vision::cifar::load` hands its images out with width before height, `vision::cifar::load_dir` does not: where the test
/// images are CIFAR-10's their checksum tells the two apart, and other images of four axes are taken to be as `load` gives
/// them. The data set is named after the official one whose test images it has, otherwise `candle-datasets`.
///
/// # Errors
/// Returns an error if a shape is another one, a value is not in `[0, 1]`, or a label is not below `labels`.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_datasets::vision;
/// use spiking_diffusion::data::Dataset;
///
/// # fn main() -> spiking_diffusion::Result<()> {
/// let images = Tensor::ones((2, 28 * 28), DType::F32, &Device::Cpu)?; // as `vision::mnist::load` gives them
/// let labels = Tensor::new(&[3u8, 1], &Device::Cpu)?;
/// let data = Dataset::try_from(vision::Dataset {
///     train_images: images.clone(),
///     train_labels: labels.clone(),
///     test_images: images,
///     test_labels: labels,
///     labels: 10,
/// })?;
/// assert_eq!((data.image(), data.train.labels()), ((1, 28, 28), &[3, 1][..]));
/// assert_eq!(data.train.bytes(0)?[0], 255);
/// # Ok(()) }
/// ```
impl TryFrom<vision::Dataset> for Dataset {
    type Error = Error;

    fn try_from(data: vision::Dataset) -> Result<Self> {
        let split = |which: &str, images: &Tensor, labels: &Tensor| {
            let labels = bytes_of_labels(&format!("{which}_labels"), labels, data.labels)?;
            split(&format!("{which}_images"), images, labels)
        };
        let test = split("test", &data.test_images, &data.test_labels)?;
        let train = |images: &Tensor| split("train", images, &data.train_labels);
        if let Some(set) = official::of_test(&test)? {
            return Self::new(set.name(), train(&data.train_images)?, test);
        }
        if data.test_images.rank() != 4 || data.train_images.rank() != 4 {
            return Self::new("candle-datasets", train(&data.train_images)?, test);
        }
        let test = split("test", &data.test_images.transpose(2, 3)?, &data.test_labels)?;
        let name = official::of_test(&test)?.map_or("candle-datasets", KnownSet::name);
        Self::new(name, train(&data.train_images.transpose(2, 3)?)?, test)
    }
}

fn split(name: &str, images: &Tensor, labels: Vec<u8>) -> Result<Split> {
    let image = match *images.dims() {
        [_, pixels] if pixels.isqrt().pow(2) == pixels => (1, pixels.isqrt(), pixels.isqrt()),
        [_, channels, height, width] => (channels, height, width),
        _ => {
            let reason = "must have the shape [N, side * side] or [N, C, H, W]";
            return Err(Error::config(name, format!("{:?}", images.dims()), reason));
        }
    };
    Split::new(pixels(name, images)?, labels, image)
}

fn pixels(name: &str, images: &Tensor) -> Result<Vec<u8>> {
    let values = images.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let size = values.len() / images.dim(0)?.max(1);
    let byte = |(at, &value): (usize, &f32)| match (0. ..=1.).contains(&value) {
        true => Ok((255. * value).round() as u8),
        false => Err(Error::config(name, value, format!("must be in [0, 1], in image {}", at / size.max(1)))),
    };
    values.iter().enumerate().map(byte).collect()
}

fn bytes_of_labels(name: &str, labels: &Tensor, classes: usize) -> Result<Vec<u8>> {
    let values = labels.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let byte = |value: i64| {
        let known = usize::try_from(value).is_ok_and(|value| value < classes);
        let byte = u8::try_from(value).ok().filter(|_| known);
        byte.ok_or_else(|| Error::config(name, value, format!("must be a label below {classes} and 256")))
    };
    values.into_iter().map(byte).collect()
}
