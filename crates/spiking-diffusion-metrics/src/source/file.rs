//! Rows of a tensor in a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;

use super::ImageSource;
use crate::{Error, Result};

/// Reads images from a `.safetensors` file with one tensor, of which only the rows that are asked for come into memory.
///
/// Integers become `f32`, and bytes are not divided by 255: [`InceptionConfig::range`](crate::InceptionConfig::range) says
/// which values are black and white.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor, safetensors};
/// use spiking_diffusion_metrics::{ImageSource, TensorFile};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("images.safetensors");
/// let images = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((6, 1, 2, 2))?;
/// safetensors::save(&[("images", images)].into(), &path)?;
///
/// let file = TensorFile::open(&path)?;
/// assert_eq!(file.shape(), [6, 1, 2, 2]);
/// assert_eq!(file.read(2, 1)?.flatten_all()?.to_vec1::<f32>()?, [8.0, 9.0, 10.0, 11.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TensorFile {
    path: PathBuf,
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    /// Where its first byte is.
    start: u64,
}

impl TensorFile {
    /// Opens a file, of which only the header is read.
    ///
    /// # Errors
    /// Returns an error if the file is not a `.safetensors` file, is cut off, does not hold exactly one tensor, or holds a
    /// tensor without axes or of a type that Candle does not have.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let broken = |message: &str| Error::file(path, "header", message);
        let mut file = File::open(path).map_err(Error::io(path))?;
        let available = file.metadata().map_err(Error::io(path))?.len();
        let (mut len, mut header) = ([0; 8], Vec::new());
        file.read_exact(&mut len).map_err(|_| broken("shorter than 8 bytes"))?;
        let len = u64::from_le_bytes(len);
        if len > available - 8 {
            return Err(broken("longer than the file: not safetensors, or cut off"));
        }
        file.take(len).read_to_end(&mut header).map_err(Error::io(path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| Error::file(path, "header", e))?;
        let tensors = metadata.tensors();
        let mut names: Vec<_> = tensors.keys().cloned().collect();
        names.sort();
        let [name] = &names[..] else {
            return Err(Error::file(path, "header", format!("expected one tensor, got {names:?}")));
        };
        let info = tensors[name];
        let dtype = DType::try_from(info.dtype).map_err(|e| Error::file(path, name, e))?;
        let size = info.shape.iter().try_fold(dtype.size_in_bytes(), |size, axis| size.checked_mul(*axis));
        let (start, end) = info.data_offsets;
        if info.shape.contains(&0) {
            return Err(Error::file(path, name, format!("without elements: its shape is {:?}", info.shape)));
        }
        if info.shape.is_empty() || size != end.checked_sub(start) || end as u64 > available - 8 - len {
            return Err(Error::file(path, name, "without axes, or cut off"));
        }
        Ok(Self {
            dtype,
            shape: info.shape.clone(),
            start: 8 + len + start as u64,
            path: path.to_owned(),
            name: name.clone(),
        })
    }

    /// The shape of the whole tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl ImageSource for TensorFile {
    fn count(&self) -> usize {
        self.shape[0]
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor> {
        if start.checked_add(count).is_none_or(|end| end > self.shape[0]) {
            let range = format!("{start} .. {start} + {count}");
            return Err(Error::config("rows", range, format!("the file has {}", self.shape[0])));
        }
        let row = self.shape[1..].iter().product::<usize>() * self.dtype.size_in_bytes();
        let mut bytes = vec![0; count * row];
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.start + (start * row) as u64)).map_err(Error::io(&self.path))?;
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        let shape = [&[count], &self.shape[1..]].concat();
        let tensor = Tensor::from_raw_buffer(&bytes, self.dtype, &shape, &Device::Cpu);
        let float = tensor.and_then(|t| if t.dtype().is_float() { Ok(t) } else { t.to_dtype(DType::F32) });
        float.map_err(|e| Error::file(&self.path, &self.name, e))
    }
}
