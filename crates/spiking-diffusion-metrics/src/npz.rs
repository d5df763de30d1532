//! Feature statistics as `.npz` files, the exchange format of pytorch-fid.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Device, Tensor};
use zip::ZipArchive;

use crate::npy::Npy;
use crate::stats::{check_covariance, check_mean};
use crate::{Error, FeatureStats, Result};

const MEAN: &str = "mu";
const COVARIANCE: &str = "sigma";
const COUNT: &str = "count";

impl FeatureStats {
    /// Writes the statistics to a file that numpy and pytorch-fid can read: `mu [D]`, `sigma [D, D]` (both `f64`) and, if it is
    /// known, `count` (`i64`), which pytorch-fid ignores.
    ///
    /// The file is written under a temporary name in the same folder, read back, and then renamed, so that there is never
    /// half a file under `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, read back or renamed.
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

    /// Reads statistics from a file of numpy's or pytorch-fid's: `mu [D]` and `sigma [D, D]`, floating-point of at most 64 bits,
    /// and `count` if it is there.
    ///
    /// It reads whatever numpy writes of these: either byte order, C or Fortran order, `np.savez` or `np.savez_compressed`.
    ///
    /// # Errors
    /// Returns an error, with the file and the field, if the file is not such an archive, or if a field is missing, has another
    /// shape or type, or holds values that [`FeatureStats::new`] rejects.
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
        let mut npz = Npz::open(path)?;
        let mean = npz.floats(MEAN, 1)?;
        check_mean(&mean).map_err(|e| Error::file(path, MEAN, e))?;
        let covariance = npz.floats(COVARIANCE, 2)?;
        check_covariance(&covariance, mean.len()).map_err(|e| Error::file(path, COVARIANCE, e))?;
        Self::new(mean, covariance, npz.count()?)
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

/// Makes a name in the folder of `path` that no other writer of this machine uses.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::file(path, "archive", "the path has no file name"))?;
    let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    Ok(path.with_file_name(format!(".{}.{process}.{write}.tmp", name.to_string_lossy())))
}

/// An archive of arrays.
struct Npz<'a> {
    path: &'a Path,
    archive: ZipArchive<BufReader<File>>,
}

impl<'a> Npz<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        let archive = ZipArchive::new(file).map_err(|e| Error::file(path, "archive", e))?;
        Ok(Self { path, archive })
    }

    fn fail(&self, field: &str, message: impl ToString) -> Error {
        Error::file(self.path, field, message)
    }

    /// A field, if it is there.
    fn get(&mut self, field: &str) -> Result<Option<Npy>> {
        let index = |name: &str| self.archive.index_for_name(name);
        let Some(index) = index(&format!("{field}.npy")).or_else(|| index(field)) else { return Ok(None) };
        let array = match self.archive.by_index(index) {
            Ok(mut member) => Npy::read(&mut member),
            Err(e) => Err(e.to_string()),
        };
        array.map(Some).map_err(|message| self.fail(field, message))
    }

    /// A field of `rank` equal axes, as `f64`.
    fn floats(&mut self, field: &str, rank: usize) -> Result<Vec<f64>> {
        let Some(array) = self.get(field)? else {
            let names = self.archive.file_names().filter_map(|name| name.ok());
            let mut names: Vec<String> = names.map(|name| name.trim_end_matches(".npy").to_owned()).collect();
            names.sort();
            return Err(self.fail(field, format!("missing; the file holds {names:?}")));
        };
        let dims = array.dims();
        if dims.len() != rank || dims.iter().any(|d| *d != dims[0]) {
            let expected = if rank == 1 { "[D]" } else { "[D, D]" };
            return Err(self.fail(field, format!("expected shape {expected}, got {dims:?}")));
        }
        array.floats().map_err(|message| self.fail(field, message))
    }

    fn count(&mut self) -> Result<Option<u64>> {
        let Some(array) = self.get(COUNT)? else { return Ok(None) };
        let values = array.integers().map_err(|message| self.fail(COUNT, message))?;
        let count = if let [value] = values[..] { u64::try_from(value).ok() } else { None };
        match count.filter(|count| *count >= 2) {
            Some(count) => Ok(Some(count)),
            None => Err(self.fail(COUNT, format!("expected one integer of at least 2, got {values:?}"))),
        }
    }
}
