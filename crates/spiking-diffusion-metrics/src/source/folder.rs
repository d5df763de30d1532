//! Image files.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::{ImageReader, RgbImage};

use super::ImageSource;
use crate::{Error, Result};

/// Extensions of the files that count, in any case.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Reads images from the PNG and JPEG files of a folder (not of folders in it), sorted by name: `[N, 3, H, W]` in `[0, 1]`.
///
/// Only the files of a batch are in memory. Grey images get three channels, and transparency is dropped. Files whose names
/// begin with a dot are left out (macOS writes `._0.png` beside `0.png`). Images of several sizes can be read by extractors
/// that [resize each](crate::FeatureExtractor::takes_any_size), and are an error for others.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{ImageFolder, ImageSource};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// image::RgbImage::from_pixel(4, 2, image::Rgb([255, 0, 0])).save(path.join("red.png"))?;
/// let folder = ImageFolder::open(path)?;
/// assert_eq!(folder.count(), 1);
/// assert_eq!(folder.read(0, 1)?.dims(), [1, 3, 2, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageFolder {
    files: Vec<PathBuf>,
    /// Width and height of the first.
    size: (u32, u32),
}

impl ImageFolder {
    /// Opens a folder: lists its files and reads the size of the first.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or holds no such file, or if the first file is not an image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(Error::io(path))? {
            let file = entry.map_err(Error::io(path))?.path();
            if is_image(&file) {
                files.push(file);
            }
        }
        files.sort();
        let Some(first) = files.first() else {
            return Err(Error::file(path, "folder", "no PNG or JPEG file in it"));
        };
        let size = reader(first)?.into_dimensions().map_err(|e| Error::file(first, "image", e))?;
        Ok(Self { files, size })
    }

    /// The files, in the order of the images.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn range(&self, start: usize, count: usize) -> Result<&[PathBuf]> {
        let end = start.saturating_add(count);
        self.files.get(start..end).ok_or_else(|| {
            Error::config("images", format!("{start}..{end}"), format!("the folder has {}", self.files.len()))
        })
    }
}

impl ImageSource for ImageFolder {
    fn count(&self) -> usize {
        self.files.len()
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor> {
        let mut values = Vec::new();
        for file in self.range(start, count)? {
            let image = decode(file)?;
            if image.dimensions() != self.size {
                let ((w, h), (width, height)) = (image.dimensions(), self.size);
                let message =
                    format!("{w} x {h} pixels, but the first file of the folder has {width} x {height}");
                return Err(Error::file(file, "size", message));
            }
            values.extend_from_slice(image.as_raw());
        }
        tensor(&values, count, self.size)
    }

    fn read_sizes(&self, start: usize, count: usize) -> Result<Vec<Tensor>> {
        let one = |file: &PathBuf| {
            let image = decode(file)?;
            tensor(image.as_raw(), 1, image.dimensions())
        };
        self.range(start, count)?.iter().map(one).collect()
    }
}

/// Whether a file counts, by its name.
fn is_image(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
    !hidden && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && !file.is_dir()
}

/// The content decides what a file is, not its name.
fn reader(file: &Path) -> Result<ImageReader<BufReader<File>>> {
    ImageReader::open(file).and_then(ImageReader::with_guessed_format).map_err(Error::io(file))
}

fn decode(file: &Path) -> Result<RgbImage> {
    Ok(reader(file)?.decode().map_err(|e| Error::file(file, "image", e))?.to_rgb8())
}

/// `[count, 3, H, W]` in `[0, 1]`, of red, green and blue of each pixel.
fn tensor(bytes: &[u8], count: usize, (width, height): (u32, u32)) -> Result<Tensor> {
    let values: Vec<f32> = bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let shape = (count, height as usize, width as usize, 3);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?)
}
