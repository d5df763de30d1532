//! The folder of one run: who may write to it, and which file is what.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use snn_core::write_atomically;

use crate::error::{Error, Result};
use crate::{differences, json, most_readable};

/// A run's folder, locked for as long as this lives.
///
/// Each stage reads only files of the stages before it, and every file appears whole or not at all.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held, never read: the system lets go of the lock when the process ends, however it ends.
    _lock: File,
}

impl RunDir {
    /// Takes a folder for a run of this config, any that serde knows: a new or empty one, or with `resume` the folder of
    /// this very run.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written or another process has it; if it holds a run and `resume` is not
    /// set; and if it holds the run of another config (the message names a field that differs, the easiest to read) or files that are
    /// no run's.
    pub fn open<C: Serialize + DeserializeOwned>(path: &Path, cfg: &C, resume: bool) -> Result<Self> {
        let run = Self { path: path.to_owned(), _lock: claim(path, CONFIG)? };
        if !run.file(CONFIG).exists() {
            run.write_json(CONFIG, cfg)?;
            return Ok(run);
        }
        if !resume {
            let message =
                "already holds a run: add --resume to continue it, or name another folder with --out";
            return Err(Error::run(path, message));
        }
        // Read as a config and written again, so that fields which were added since have their defaults.
        let (stored, wanted) = (tree(&read_config::<C>(path)?)?, tree(cfg)?);
        match most_readable(differences(&stored, &wanted)) {
            None => Ok(run),
            Some((field, [then, now])) => Err(Error::run(
                path,
                format!(
                    "holds another run: `{field}` is {then} there and {now} here; repeat that run's own command with \
                     --resume, or name another folder with --out"
                ),
            )),
        }
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.file(name), value)
    }

    /// Reads a value from JSON.
    ///
    /// # Errors
    /// The file is missing or does not have the form of `T`.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        read_json(&self.file(name))
    }

    /// Seconds spent on each stage so far, over all sessions of the run.
    ///
    /// # Errors
    /// A `timing.json` that cannot be read.
    pub fn seconds(&self) -> Result<BTreeMap<String, f64>> {
        if self.file(TIMING).exists() { self.read_json(TIMING) } else { Ok(BTreeMap::new()) }
    }

    /// Records the seconds spent on a stage so far.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_seconds(&self, stage: &str, seconds: f64) -> Result<()> {
        let mut all = self.seconds()?;
        all.insert(stage.to_owned(), seconds);
        self.write_json(TIMING, &all)
    }
}

/// Kept apart from checkpoints and report inputs, whose bytes depend on the seed alone.
const TIMING: &str = "timing.json";

/// The file that says what a run is.
pub const CONFIG: &str = "config.json";

fn tree(cfg: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(cfg).map_err(|e| Error::config("config", "", e.to_string()))
}

/// [`RunDir::write_json`] where no run is opened.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::run(path, e.to_string()))?;
    json.push(b'\n');
    Ok(write_atomically(path, &json)?)
}

/// [`RunDir::read_json`] where no run is opened.
///
/// # Errors
/// Returns an error if the file is missing or does not have the form of `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&json::read(path)?).map_err(|e| Error::run(path, e.to_string()))
}

/// The config of the run in a folder.
///
/// # Errors
/// Returns an error if there is no `config.json`, or if it is damaged or not of the form of `C`.
pub fn read_config<C: DeserializeOwned>(folder: &Path) -> Result<C> {
    let path = folder.join(CONFIG);
    let value: serde_json::Value = serde_json::from_slice(&json::read(&path)?)
        .map_err(|e| Error::run(&path, format!("is damaged: {e}")))?;
    serde_json::from_value(value).map_err(|e| {
        let version = env!("CARGO_PKG_VERSION");
        let message = format!(
            "{e}: the config of another version of this program, not of {version}; use that version, or start a new run"
        );
        Error::run(&path, message)
    })
}

/// Creates a folder where there is none, and locks it for one process, for as long as the returned file lives.
///
/// # Errors
/// Returns an error if it holds files, but not `manifest`, which says what it is for, and if another process has it.
pub fn claim(folder: &Path, manifest: &str) -> Result<File> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    if !folder.join(manifest).exists() {
        refuse_foreign_files(folder, manifest)?;
    }
    lock(&folder.join(".lock"))
}

/// A folder without its manifest may hold what is written before it, and nothing else.
fn refuse_foreign_files(folder: &Path, manifest: &str) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if name != ".lock" && name != *format!("{manifest}.tmp") {
            let name = name.to_string_lossy();
            return Err(Error::run(folder, format!("is not ours: it holds `{name}` and no {manifest}")));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::run(path.parent().unwrap_or(path), "another process is running in this folder"))
        }
        Err(TryLockError::Error(source)) => Err(Error::io(path)(source)),
    }
}
