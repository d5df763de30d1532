//! Checkpoints: a safetensors file whose metadata says what it is and how it was configured.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The one metadata key of our files (one, because safetensors writes several in no fixed order).
const METADATA: &str = "spiking-diffusion";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    config: serde_json::Value,
    /// Of kind, config and tensors; older files have none.
    #[serde(default)]
    sha256: Option<String>,
}

impl Header {
    /// SHA-256 over this header and the file's part behind its own.
    fn digest(&self, tensors: &[u8]) -> String {
        let config = self.config.to_string();
        let mut hash = Sha256::new();
        for part in [self.kind.as_bytes(), config.as_bytes(), tensors] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        format!("{:x}", hash.finalize())
    }
}

/// What follows the eight bytes of the header's length and the header.
fn behind_header(bytes: &[u8], header: usize) -> &[u8] {
    bytes.get(header + 8..).unwrap_or_default()
}

/// Keeps a model, or the state of a training, in a file that says what it is: named tensors, their kind, and the config that
/// they belong to.
///
/// The file is a safetensors file whose metadata holds the kind, the config and a SHA-256 of both and of the tensors.
///
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// let mut checkpoint = snn_core::Checkpoint::new("my-model", &42)?;
/// checkpoint.tensors.insert("w".into(), Tensor::new(&[1f32, 2.], &Device::Cpu)?);
/// checkpoint.save(&path)?;
/// let loaded = snn_core::Checkpoint::load(&path, "my-model", &Device::Cpu)?;
/// assert_eq!(loaded.config::<u32>()?, 42);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What kind of thing is stored, such as `vq-svae`.
    pub kind: String,
    config: serde_json::Value,
    /// The tensors, by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The file it came from, for messages.
    path: std::path::PathBuf,
}

impl Checkpoint {
    /// Starts a checkpoint without tensors, to be filled and [saved](Self::save).
    ///
    /// # Errors
    /// Returns an error if the config cannot be written as JSON.
    pub fn new(kind: &str, config: &impl Serialize) -> Result<Self> {
        let config =
            serde_json::to_value(config).map_err(|e| Error::config("config", kind, e.to_string()))?;
        Ok(Self { kind: kind.into(), config, tensors: BTreeMap::new(), path: "(in memory)".into() })
    }

    /// Writes the checkpoint under a temporary name and renames it, so that a reader never sees half of one.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.bytes_for(path)?)
    }

    /// The bytes of its file, from which [`from_bytes`](Self::from_bytes) makes it again, such as in another process.
    ///
    /// # Errors
    /// Returns an error if the tensors cannot be written as a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.bytes_for(&self.path)
    }

    fn bytes_for(&self, path: &Path) -> Result<Vec<u8>> {
        let mut header = Header { kind: self.kind.clone(), config: self.config.clone(), sha256: None };
        let bare = safetensors::serialize(&self.tensors, None).map_err(|e| Error::checkpoint(path, e))?;
        let (length, _) = SafeTensors::read_metadata(&bare).map_err(|e| Error::checkpoint(path, e))?;
        header.sha256 = Some(header.digest(behind_header(&bare, length)));
        let header = serde_json::to_string(&header).map_err(|e| Error::checkpoint(path, e))?;
        let metadata = HashMap::from([(METADATA.to_owned(), header)]);
        safetensors::serialize(&self.tensors, Some(metadata)).map_err(|e| Error::checkpoint(path, e))
    }

    /// Reads a checkpoint of this kind, its tensors onto `device`.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the file is missing or damaged, if this project did not write it, or if it is
    /// of another kind.
    pub fn load(path: &Path, kind: &str, device: &Device) -> Result<Self> {
        Self::from_bytes(&std::fs::read(path).map_err(Error::io(path))?, path, kind, device)
    }

    /// Reads a checkpoint of this kind from the bytes of its file, such as one that a program carries in itself; `path` is what
    /// errors call it.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), but for those of reading the file.
    pub fn from_bytes(bytes: &[u8], path: &Path, kind: &str, device: &Device) -> Result<Self> {
        let damaged = |e: &dyn std::fmt::Display| {
            Error::checkpoint(path, format!("not a readable safetensors file: {e}"))
        };
        let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(METADATA));
        let header = header.ok_or_else(|| {
            Error::checkpoint(
                path,
                format!("has no `{METADATA}` metadata, so it was not written by this project"),
            )
        })?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(&e))?;
        if header.kind != kind {
            return Err(Error::checkpoint(path, format!("holds a `{}`, not a `{kind}`", header.kind)));
        }
        let found = header.digest(behind_header(bytes, length));
        if header.sha256.as_ref().is_some_and(|written| *written != found) {
            return Err(Error::checkpoint(path, "is damaged: its content does not fit its SHA-256"));
        }
        let tensors = candle_core::safetensors::load_buffer(bytes, device).map_err(|e| damaged(&e))?;
        Ok(Self {
            kind: header.kind,
            config: header.config,
            tensors: tensors.into_iter().collect(),
            path: path.to_owned(),
        })
    }

    /// The config that was stored with the tensors.
    ///
    /// # Errors
    /// Returns an error if the stored config does not have the form of `C`.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C> {
        C::deserialize(&self.config).map_err(|e| Error::checkpoint(&self.path, format!("config: {e}")))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// Returns an error, with the file's and the tensor's name, if it is missing.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.error(format!("tensor `{name}` is missing")))
    }

    /// The tensor of this name, which must have the shape of `like`, in the element type and on the device of `like`.
    pub(super) fn tensor_like(&self, name: &str, like: &Tensor) -> Result<Tensor> {
        let found = self.tensor(name)?;
        if found.dims() != like.dims() {
            let (found, wanted) = (found.dims(), like.dims());
            return Err(self.error(format!("tensor `{name}` has shape {found:?}, expected {wanted:?}")));
        }
        Ok(found.to_dtype(like.dtype())?.to_device(like.device())?)
    }

    /// Makes an error that names this checkpoint's file, for a caller that finds something wrong with its content.
    pub fn error(&self, message: impl ToString) -> Error {
        Error::checkpoint(&self.path, message)
    }
}

/// Writes a file so that readers see all of it or what was there before, even after a crash: under a temporary name in the
/// same folder (`<name>.tmp`, over whatever has it), flushed to the disk and then renamed. Two may not write one file at once.
///
/// # Errors
/// Returns an error, with the file's name, if the file cannot be written, flushed or renamed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::io(path)(source)
    })
}
