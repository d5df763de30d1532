//! The folder of one run: who may write to it, and which file is what.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use snn_core::write_atomically;

use crate::ExperimentConfig;
use crate::error::{Error, Result};

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
    /// Takes a folder for a run of this config: a new or empty one, or with `resume` the folder of this very run.
    ///
    /// # Errors
    /// The folder cannot be written; another process has it; it holds a run and `resume` is not set; it holds the run
    /// of another config (the message names a field that differs, one that was chosen before one that follows from the data)
    /// or files that are no run's.
    pub fn open(path: &Path, cfg: &ExperimentConfig, resume: bool) -> Result<Self> {
        let run = Self { path: path.to_owned(), _lock: take(path, CONFIG)? };
        if !run.file(CONFIG).exists() {
            run.write_json(CONFIG, cfg)?;
            return Ok(run);
        }
        if !resume {
            let message =
                "already holds a run: add --resume to continue it, or name another folder with --out";
            return Err(Error::run(path, message));
        }
        let stored = read_config(path)?;
        match stored.first_difference(cfg)? {
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
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
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

/// What a run is.
const CONFIG: &str = "config.json";

/// [`RunDir::write_json`] where no run is opened.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::run(path, e.to_string()))?;
    json.push(b'\n');
    Ok(write_atomically(path, &json)?)
}

/// [`RunDir::read_json`] where no run is opened.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|e| Error::run(path, e.to_string()))
}

/// The config of the run in a folder.
pub(crate) fn read_config(folder: &Path) -> Result<ExperimentConfig> {
    let path = folder.join(CONFIG);
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| Error::run(&path, format!("is damaged: {e}")))?;
    serde_json::from_value(value).map_err(|e| {
        let version = env!("CARGO_PKG_VERSION");
        let message = format!(
            "{e}: the config of another version of this program, not of {version}; use that version, or start a new run"
        );
        Error::run(&path, message)
    })
}

/// Creates a folder where there is none, and locks it for one process.
///
/// # Errors
/// It holds files, but not `manifest`, which says what it is for; another process has it.
pub(crate) fn take(folder: &Path, manifest: &str) -> Result<File> {
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
