//! Named tensors from files of PyTorch's and of safetensors, or from memory.

mod pickle;
mod pth;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::safetensors::BufferedSafetensors;
use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};
use pth::Pth;

/// Reads weights by name from a file: a `.pth` file (`torch.save` of a state dict, of any version of PyTorch) or a
/// `.safetensors` file. The content decides which it is, not the name.
///
/// A `.pth` file is a pickle, which in Python is a program. Here it is data: nothing in it is ever called, and an entry that is not a
/// plain tensor can be listed but not read. Values are read when they are asked for, one tensor at a time.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
///
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::WeightFile;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let weight = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// candle_core::safetensors::save(&HashMap::from([("layer.weight", weight)]), &path)?;
/// let file = WeightFile::open(&path)?;
/// assert_eq!(file.names(), ["layer.weight"]);
/// assert_eq!(file.values("layer.weight", &[2, 2])?, [1., 2., 3., 4.]);
/// assert!(file.values("layer.weight", &[4]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WeightFile {
    path: PathBuf,
    source: Source,
}

enum Source {
    Safetensors(BufferedSafetensors),
    Pth(Pth),
    Memory(HashMap<String, Tensor>),
}

impl WeightFile {
    /// Opens a file and reads its names and shapes.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the file cannot be read, if it is neither of the two, or if it holds something
    /// other than a state dict.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(16).read_to_end(&mut start).map_err(Error::io(path))?;
        let source = if Pth::starts(&start) {
            Source::Pth(Pth::open(path).map_err(|e| Error::file(path, "archive", e))?)
        } else {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            let parsed = BufferedSafetensors::new(bytes);
            let explain = |e| Error::file(path, "archive", format!("neither safetensors nor a .pth: {e}"));
            Source::Safetensors(parsed.map_err(explain)?)
        };
        Ok(Self { path: path.to_owned(), source })
    }

    /// Takes tensors that are already in memory; `origin` stands for the file in error messages.
    pub fn from_tensors(origin: impl Into<PathBuf>, tensors: HashMap<String, Tensor>) -> Self {
        Self { path: origin.into(), source: Source::Memory(tensors) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All names in order, those of entries that are no tensors among them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.source {
            Source::Safetensors(file) => file.tensors().into_iter().map(|(name, _)| name).collect(),
            Source::Pth(file) => file.entries.keys().cloned().collect(),
            Source::Memory(tensors) => tensors.keys().cloned().collect(),
        };
        names.sort();
        names
    }

    /// Whether there is an entry of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Safetensors(file) => file.get(name).is_ok(),
            Source::Pth(file) => file.entries.contains_key(name),
            Source::Memory(tensors) => tensors.contains_key(name),
        }
    }

    /// The shape of a tensor, before any of its values are read.
    ///
    /// # Errors
    /// Returns an error, with the file and the name, if there is no such tensor.
    pub fn dims(&self, name: &str) -> Result<Vec<usize>> {
        let dims = match &self.source {
            Source::Safetensors(file) => file.get(name).ok().map(|view| view.shape().to_vec()),
            Source::Pth(file) => match file.entries.get(name) {
                Some(Ok(entry)) => Some(entry.dims.clone()),
                Some(Err(reason)) => return Err(self.error(name, reason)),
                None => None,
            },
            Source::Memory(tensors) => tensors.get(name).map(|tensor| tensor.dims().to_vec()),
        };
        dims.ok_or_else(|| self.error(name, "missing"))
    }

    /// Reads the values of a tensor that must have this shape, row by row; numbers of other types become `f32`.
    ///
    /// # Errors
    /// Returns an error, with the file and the name, if there is no such tensor, if it has another shape, or if its values cannot be
    /// read or are not all finite.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let dims = self.dims(name)?;
        if dims != shape {
            return Err(self.error(name, format!("expected shape {shape:?}, got {dims:?}")));
        }
        let values = self.load(name).map_err(|e| self.error(name, e))?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(self.error(name, format!("holds {value}"))),
            None => Ok(values),
        }
    }

    fn load(&self, name: &str) -> std::result::Result<Vec<f32>, String> {
        let text = |e: candle_core::Error| e.to_string();
        let tensor = match &self.source {
            Source::Safetensors(file) => file.load(name, &Device::Cpu).map_err(text)?,
            Source::Memory(tensors) => tensors.get(name).cloned().ok_or("missing")?,
            Source::Pth(file) => file.tensor(file.entries.get(name).ok_or("missing")?.as_ref()?)?,
        };
        let values =
            tensor.to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1());
        values.map_err(text)
    }

    /// Shape of a tensor of four axes.
    pub(crate) fn rank_4(&self, name: &str) -> Result<[usize; 4]> {
        self.shape(name, "four axes")
    }

    /// Length of a tensor of one axis.
    pub(crate) fn length(&self, name: &str) -> Result<usize> {
        Ok(self.shape::<1>(name, "one axis")?[0])
    }

    fn shape<const RANK: usize>(&self, name: &str, wanted: &str) -> Result<[usize; RANK]> {
        let dims = self.dims(name)?;
        dims.as_slice()
            .try_into()
            .map_err(|_| self.error(name, format!("expected {wanted}, got shape {dims:?}")))
    }

    /// Makes an error that names the file and a tensor in it.
    pub fn error(&self, name: &str, message: impl ToString) -> Error {
        Error::file(&self.path, name, message)
    }
}

impl std::fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightFile").field("path", &self.path).finish_non_exhaustive()
    }
}
