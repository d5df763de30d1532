//! MNIST from its four official files, or the built-in digits.

use std::path::{Path, PathBuf};

use super::{Dataset, Split, idx, synthetic_digits};
use crate::error::{Error, Result};

/// MNIST from a folder that holds its four files (plain or `.gz`), or that has a folder `mnist` which does; without a
/// folder, the [built-in digits](synthetic_digits).
///
/// # Errors
/// A folder was named and is wrong in any way: it never falls back.
pub fn mnist(folder: Option<&Path>) -> Result<Dataset> {
    match folder {
        Some(folder) => load(&own_folder(folder, "mnist"), "mnist", 10),
        None => synthetic_digits(),
    }
}

/// `folder/name` where there is such a folder, else `folder` itself.
fn own_folder(folder: &Path, name: &str) -> PathBuf {
    let inner = folder.join(name);
    if inner.is_dir() { inner } else { folder.to_owned() }
}

/// The four files of MNIST or of a set in its format, 28x28 with labels in `0..classes`.
fn load(folder: &Path, name: &str, classes: u8) -> Result<Dataset> {
    Dataset::new(name, split(folder, "train", classes)?, split(folder, "t10k", classes)?)
}

fn split(folder: &Path, prefix: &str, classes: u8) -> Result<Split> {
    let images_path = idx::find(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels_path = idx::find(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let (images, labels) = (idx::read(&images_path, 3)?, idx::read(&labels_path, 1)?);
    if images.dims[1..] != [28, 28] {
        return Err(Error::data(
            &images_path,
            format!("holds images of {:?}, expected [28, 28]", &images.dims[1..]),
        ));
    }
    if images.dims[0] == 0 {
        return Err(Error::data(&images_path, "holds no images"));
    }
    if images.dims[0] != labels.dims[0] {
        let counts = format!("{} labels for {} images", labels.dims[0], images.dims[0]);
        return Err(Error::data(&labels_path, format!("holds {counts} in {}", images_path.display())));
    }
    if let Some(i) = labels.bytes.iter().position(|&label| label >= classes) {
        let value = format!("label {i} is {}, expected a value below {classes}", labels.bytes[i]);
        return Err(Error::data(&labels_path, value));
    }
    Split::new(images.bytes, labels.bytes, (1, 28, 28))
}
