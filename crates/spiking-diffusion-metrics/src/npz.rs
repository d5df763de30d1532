//! Feature statistics as `.npz` files, the exchange format of pytorch-fid.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::npy::NpzTensors;
use candle_core::{DType, Device, Tensor};

use crate::stats::{check_covariance, check_mean};
use crate::{Error, FeatureStats, Result};

const MEAN: &str = "mu";
const COVARIANCE: &str = "sigma";
const COUNT: &str = "count";

impl FeatureStats {
    /// Writes `mu [D]`, `sigma [D, D]` (both `f64`) and, if it is known, `count` (`i64`): a file that numpy and
    /// pytorch-fid read, the latter without `count`.
    ///
    /// The file is written under a temporary name in the same folder, read back, and renamed: there is never
    /// half a file under `path`.
    ///
    /// # Errors
    /// If the file cannot be written, read back or renamed.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::FeatureStats;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("test.npz");
    /// let stats = FeatureStats::new(vec![0.0], vec![1.0], Some(1280))?;
    /// stats.write_npz(&path)?;
    /// assert_eq!(FeatureStats::read_npz(&path)?, stats);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let temporary = temporary_beside(path)?;
        let written = self.write_checked(&temporary, path);
        if written.is_err() {
            // What matters is the first error; a file that was never made cannot be removed either.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// Reads a file with `mu [D]` and `sigma [D, D]`, as `f32` or `f64`, and perhaps `count`.
    ///
    /// Those of `np.savez_compressed` too.
    ///
    /// # Errors
    /// If the file is not such an archive, or a field is missing, has another shape or type, or holds values
    /// that [`FeatureStats::new`] rejects. The message names the file and the field.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::FeatureStats;
    ///
    /// let error = FeatureStats::read_npz("no/such/file.npz").unwrap_err();
    /// assert!(error.to_string().starts_with("no/such/file.npz: "));
    /// ```
    pub fn read_npz(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        std::fs::File::open(path).map_err(Error::io(path))?;
        let npz = NpzTensors::new(path).map_err(|e| Error::file(path, "archive", e))?;
        let mean: Vec<f64> = read_floats(&npz, path, MEAN, 1)?;
        check_mean(&mean).map_err(|e| Error::file(path, MEAN, e))?;
        let covariance: Vec<f64> = read_floats(&npz, path, COVARIANCE, 2)?;
        check_covariance(&covariance, mean.len()).map_err(|e| Error::file(path, COVARIANCE, e))?;
        Self::new(mean, covariance, read_count(&npz, path)?)
    }

    fn write_checked(&self, temporary: &Path, path: &Path) -> Result<()> {
        let tensors = self.tensors()?;
        Tensor::write_npz(&tensors, temporary).map_err(|e| Error::file(path, "archive", e))?;
        // Candle's writer cannot report that the end of the archive was not written, so look.
        if Self::read_npz(temporary)? != *self {
            return Err(Error::file(path, "archive", "reads back with other values"));
        }
        let file = std::fs::File::open(temporary).map_err(Error::io(temporary))?;
        file.sync_all().map_err(Error::io(temporary))?;
        std::fs::rename(temporary, path).map_err(Error::io(path))
    }

    fn tensors(&self) -> Result<Vec<(&'static str, Tensor)>> {
        let dims = self.dims();
        let mut tensors = vec![
            (MEAN, Tensor::from_slice(self.mean(), dims, &Device::Cpu)?),
            (COVARIANCE, Tensor::from_slice(self.covariance(), (dims, dims), &Device::Cpu)?),
        ];
        if let Some(count) = self.count() {
            tensors.push((COUNT, Tensor::new(count as i64, &Device::Cpu)?));
        }
        Ok(tensors)
    }
}

/// A name that no other writer of this machine uses, in the folder of `path`.
pub(crate) fn temporary_beside(path: &Path) -> Result<PathBuf> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::file(path, "archive", "the path has no file name"))?;
    let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    Ok(path.with_file_name(format!(".{}.{process}.{write}.tmp", name.to_string_lossy())))
}

/// A field of `rank` equal axes, as `f64`.
fn read_floats(npz: &NpzTensors, path: &Path, field: &str, rank: usize) -> Result<Vec<f64>> {
    let Some(tensor) = npz.get(field).map_err(|e| Error::file(path, field, e))? else {
        let mut names = npz.names();
        names.sort();
        return Err(Error::file(path, field, format!("missing; the file holds {names:?}")));
    };
    let dims = tensor.dims();
    if dims.len() != rank || dims.iter().any(|d| *d != dims[0]) {
        let expected = if rank == 1 { "[D]" } else { "[D, D]" };
        return Err(Error::file(path, field, format!("expected shape {expected}, got {dims:?}")));
    }
    if !tensor.dtype().is_float() {
        return Err(Error::file(path, field, format!("expected f32 or f64, got {:?}", tensor.dtype())));
    }
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn read_count(npz: &NpzTensors, path: &Path) -> Result<Option<u64>> {
    let Some(tensor) = npz.get(COUNT).map_err(|e| Error::file(path, COUNT, e))? else { return Ok(None) };
    let values: Vec<i64> = tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
    match values[..] {
        [count] if count >= 2 => Ok(Some(count as u64)),
        _ => Err(Error::file(path, COUNT, format!("expected one integer of at least 2, got {values:?}"))),
    }
}
