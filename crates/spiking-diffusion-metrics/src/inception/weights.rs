//! Named weights from a file or from memory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use candle_core::safetensors::BufferedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::{Inception, InceptionConfig, legacy};
use crate::{Error, Result};

/// Holds the weights from which an [`Inception`](crate::Inception) is built, under the names of pytorch-fid and torchvision,
/// which are the same:
/// `<convolution>.conv.weight`, `<convolution>.bn.{weight, bias, running_mean, running_var}`, `fc.{weight, bias}`.
///
/// There may be further tensors, and those that the layer in use does not need may be missing.
pub struct InceptionWeights {
    path: PathBuf,
    source: Source,
}

enum Source {
    Safetensors(BufferedSafetensors),
    Pth(PthTensors),
    Memory(HashMap<String, Tensor>),
}

/// pytorch-fid's release, its file, and the SHA-256 that several public projects record for it; the file's name has the
/// first eight digits.
#[cfg(feature = "download")]
const PUBLISHED: [&str; 3] = [
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
];

/// A `.pth` file of PyTorch 1.6 or later is a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

impl InceptionWeights {
    /// Opens a file of weights: `.safetensors`, or `.pth` (`torch.save` of a state dict, of any version of PyTorch). The
    /// content decides which it is, not the name.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is neither of the two.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::InceptionWeights;
    ///
    /// let error = InceptionWeights::open("no/such.pth").err().ok_or("an error was due")?;
    /// assert!(error.to_string().starts_with("no/such.pth: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(16).read_to_end(&mut start).map_err(Error::io(path))?;
        let source = if start.starts_with(ZIP) {
            Source::Pth(guarded(path, || PthTensors::new(path, None))?)
        } else if legacy::is_legacy(&start) {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            Source::Memory(guarded(path, || legacy::read(&bytes))?)
        } else {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            let parsed = BufferedSafetensors::new(bytes);
            let explain = |e| Error::file(path, "archive", format!("neither safetensors nor a .pth: {e}"));
            Source::Safetensors(parsed.map_err(explain)?)
        };
        Ok(Self { path: path.to_owned(), source })
    }

    /// Gets the published weights of the FID network from the user's cache, into which they are first loaded from pytorch-fid's
    /// release (96 MB).
    ///
    /// # Errors
    /// Returns the errors of [`fetch`](crate::download::fetch) and of [`InceptionWeights::open`].
    ///
    /// # Examples
    /// ```no_run
    /// use std::ops::ControlFlow;
    ///
    /// use spiking_diffusion_metrics::InceptionWeights;
    ///
    /// let weights = InceptionWeights::download(&mut |got, _| {
    ///     eprintln!("{got} bytes");
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    #[cfg(feature = "download")]
    pub fn download(progress: crate::download::Progress<'_>) -> Result<Self> {
        let [folder, name, sha256] = PUBLISHED;
        let destination = Path::new("inception").join(name);
        Self::open(crate::download::fetch(&format!("{folder}/{name}"), sha256, &destination, progress)?)
    }

    /// Takes weights that are already in memory; `origin` stands for the file in error messages.
    pub fn from_tensors(origin: impl Into<PathBuf>, tensors: HashMap<String, Tensor>) -> Self {
        Self { path: origin.into(), source: Source::Memory(tensors) }
    }

    /// Whether every tensor that the layer of `config` needs is there, whatever its shape.
    #[must_use]
    pub fn serves(&self, config: &InceptionConfig) -> bool {
        let there = |(name, _): (String, _)| matches!(self.dims(&name), Ok(Some(_)));
        Inception::parameters(config).into_iter().all(there)
    }

    /// Values of a tensor that must have this shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let dims = self
            .dims(name)?
            .ok_or_else(|| Error::file(&self.path, name, "missing, and the chosen layer needs it"))?;
        if dims != shape {
            return Err(Error::file(&self.path, name, format!("expected shape {shape:?}, got {dims:?}")));
        }
        let tensor = self.load(name)?;
        let values =
            tensor.to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1());
        let values: Vec<f32> = values.map_err(|e| Error::file(&self.path, name, e))?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::file(&self.path, name, format!("holds {value}"))),
            None => Ok(values),
        }
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
        let dims = self.dims(name)?.ok_or_else(|| Error::file(&self.path, name, "missing"))?;
        dims.as_slice()
            .try_into()
            .map_err(|_| Error::file(&self.path, name, format!("expected {wanted}, got shape {dims:?}")))
    }

    /// Shape of a tensor, before any of its values are read.
    fn dims(&self, name: &str) -> Result<Option<Vec<usize>>> {
        Ok(match &self.source {
            Source::Safetensors(file) => file.get(name).ok().map(|view| view.shape().to_vec()),
            Source::Pth(file) => file.tensor_infos().get(name).map(|info| info.layout.dims().to_vec()),
            Source::Memory(tensors) => tensors.get(name).map(|tensor| tensor.dims().to_vec()),
        })
    }

    fn load(&self, name: &str) -> Result<Tensor> {
        let missing = || candle_core::Error::Msg(format!("no tensor `{name}`"));
        let loaded = match &self.source {
            Source::Safetensors(file) => file.load(name, &Device::Cpu),
            Source::Memory(tensors) => tensors.get(name).cloned().ok_or_else(missing),
            Source::Pth(file) => return guarded(&self.path, || file.get(name)?.ok_or_else(missing)),
        };
        loaded.map_err(|e| Error::file(&self.path, name, e))
    }
}

impl std::fmt::Debug for InceptionWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InceptionWeights").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Candle's pickle reader indexes without a check on some malformed files: a panic becomes an error.
fn guarded<T>(path: &Path, read: impl FnOnce() -> candle_core::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| Error::file(path, "archive", e)),
        Err(_) => Err(Error::file(path, "archive", "malformed pickle")),
    }
}
