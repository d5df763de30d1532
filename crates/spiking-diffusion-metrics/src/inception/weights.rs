//! The weights of Inception: which names, and where they are published.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::{Inception, InceptionConfig};
use crate::{Result, WeightFile};

/// Holds the weights from which an [`Inception`](crate::Inception) is built, under the names of pytorch-fid and torchvision,
/// which are the same:
/// `<convolution>.conv.weight`, `<convolution>.bn.{weight, bias, running_mean, running_var}`, `fc.{weight, bias}`.
///
/// There may be further tensors, and those that the layer in use does not need may be missing.
#[derive(Debug)]
pub struct InceptionWeights {
    file: WeightFile,
}

/// pytorch-fid's release, its file, and the SHA-256 that several public projects record for it; the file's name has the
/// first eight digits.
#[cfg(feature = "download")]
const PUBLISHED: [&str; 3] = [
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
];

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
        Ok(Self { file: WeightFile::open(path)? })
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
        Self { file: WeightFile::from_tensors(origin, tensors) }
    }

    /// Whether every tensor that the layer of `config` needs is there, whatever its shape.
    #[must_use]
    pub fn serves(&self, config: &InceptionConfig) -> bool {
        let there = |(name, _): (String, _)| self.file.dims(&name).is_ok();
        Inception::parameters(config).into_iter().all(there)
    }

    /// Values of a tensor that must have this shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if !self.file.has(name) {
            return Err(self.file.error(name, "missing, and the chosen layer needs it"));
        }
        self.file.values(name, shape)
    }
}
