//! One split of MNIST or of a set in its format: a file of 28x28 images and a file of labels.

use std::path::Path;

use super::idx;
use super::known::KnownSet;
use super::partial::Notes;
use super::split::Split;
use crate::error::{Error, Result};

/// The split, or nothing where its images are missing. Letters are transposed in the file, their labels 1..=26.
pub(super) fn read(
    set: KnownSet,
    folder: &Path,
    prefix: &str,
    count: usize,
    notes: &mut Notes,
) -> Result<Option<Split>> {
    let Ok(images_path) = idx::find(folder, &format!("{prefix}-images-idx3-ubyte")) else { return Ok(None) };
    let name = format!("{prefix}-labels-idx1-ubyte");
    let labels_path = idx::find(folder, &name).map_err(|_| {
        let near = set.but_near(folder);
        Error::data(folder, format!("holds neither `{name}` nor `{name}.gz`{near}"))
    })?;
    let letters = set == KnownSet::Letters;
    let (mut images, mut labels) = (idx::read(&images_path, 3)?, idx::read(&labels_path, 1)?);
    if images.dims[1..] != [28, 28] {
        let message = format!("holds images of {:?}, expected [28, 28]", &images.dims[1..]);
        return Err(Error::data(&images_path, message));
    }
    let n = images.dims[0];
    if n == 0 {
        return Err(Error::data(&images_path, "holds no images"));
    }
    notes.count(&images_path, n, count)?;
    if labels.bytes.len() == count && n < count {
        notes.add(format!("labels are the first {n} of {count}"));
        labels.bytes.truncate(n);
    }
    if labels.bytes.len() != n {
        let counts = format!("{} labels for {n} images", labels.bytes.len());
        return Err(Error::data(&labels_path, format!("holds {counts} in {}", images_path.display())));
    }
    let range = if letters { 1..=26 } else { 0..=9 };
    if let Some(i) = labels.bytes.iter().position(|label| !range.contains(label)) {
        let value = format!("label {i} is {}, expected a value in {range:?}", labels.bytes[i]);
        return Err(Error::data(&labels_path, value));
    }
    if letters {
        labels.bytes.iter_mut().for_each(|label| *label -= 1);
        images.bytes.chunks_exact_mut(784).for_each(transpose);
    }
    Split::new(images.bytes, labels.bytes, (1, 28, 28)).map(Some)
}

fn transpose(image: &mut [u8]) {
    for y in 0..28 {
        (0..y).for_each(|x| image.swap(y * 28 + x, x * 28 + y));
    }
}
