//! The folder of one run: who may write to it, and which file is what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use snn_core::write_atomically;

use crate::error::{Error, Result};
use crate::{Lock, json, most_readable_difference};

/// Keeps everything that a run writes in one folder, which is locked against other runs while this value lives.
///
/// Each stage reads only files of the stages before it, and every file appears whole or not at all.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// It is held and never read.
    _lock: Lock,
}

impl RunDir {
    /// Takes a folder for the run of a config, which can be of any type that serde knows: a new or empty folder or, with
    /// `resume`, the folder in which the same run was begun.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written or another process has it, if it holds a run and `resume` is not set, if
    /// it holds the run of another config (the error names one field that differs), or if it holds files that belong to no run.
    pub fn open<C: Serialize + DeserializeOwned>(path: &Path, cfg: &C, resume: bool) -> Result<Self> {
        let run = Self { path: path.to_owned(), _lock: claim(path, CONFIG)? };
        if !run.file(CONFIG).exists() {
            run.write_json(CONFIG, cfg)?;
            return Ok(run);
        }
        if !resume {
            let message =
                "already holds a run: resume it (`resume`, or --resume in a program), or name another folder";
            return Err(Error::run(path, message));
        }
        // Read as a config and written again, so that fields which were added since have their defaults.
        let (stored, wanted) = (tree(&read_config::<C>(path)?)?, tree(cfg)?);
        match most_readable_difference(&stored, &wanted) {
            None => Ok(run),
            Some((field, [then, now])) => {
                let field = named(&field);
                let message = format!(
                    "holds another run: {field} is {then} there and {now} here; resume it with its own settings, or name \
                     another folder"
                );
                Err(Error::run(path, message))
            }
        }
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value to a file of the folder, as JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.file(name), value)
    }

    /// The seconds spent on each stage so far, over all sessions of the run.
    ///
    /// # Errors
    /// Returns an error if `timing.json` cannot be read.
    pub fn seconds(&self) -> Result<BTreeMap<String, f64>> {
        if self.file(TIMING).exists() { read_json(&self.file(TIMING)) } else { Ok(BTreeMap::new()) }
    }

    /// Records the seconds spent on a stage so far, over all sessions of the run.
    ///
    /// # Errors
    /// Returns an error if `timing.json` cannot be read or written.
    pub fn record_seconds(&self, stage: &str, seconds: f64) -> Result<()> {
        let mut all = self.seconds()?;
        all.insert(stage.to_owned(), seconds);
        self.write_json(TIMING, &all)
    }
}

/// Kept apart from checkpoints and report inputs, whose bytes depend on the seed alone.
const TIMING: &str = "timing.json";

const CONFIG: &str = "config.json";

/// A field of a config in a message; the config itself has no name.
pub(crate) fn named(field: &str) -> String {
    if field.is_empty() { "the config".to_owned() } else { format!("`{field}`") }
}

fn tree(cfg: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(cfg).map_err(|e| Error::config("config", "", e.to_string()))
}

/// Writes a value to a file as JSON, as [`RunDir::write_json`] does where a run is open.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::run(path, e.to_string()))?;
    json.push(b'\n');
    Ok(write_atomically(path, &json)?)
}

/// Reads a value from a JSON file.
///
/// # Errors
/// Returns an error if the file is missing or does not have the form of `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&json::read(path)?).map_err(|e| Error::run(path, e.to_string()))
}

/// Reads the config of the run in a folder, without opening the run.
///
/// # Errors
/// Returns an error if there is no `config.json`, if it is damaged, or if it does not have the form of `C`.
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

/// Takes a folder for one process, for as long as the returned lock lives: creates it if there is none, and locks it.
/// `manifest` is the file that says what the folder is for.
///
/// # Errors
/// Returns an error if the folder holds files but no `manifest`, if another process has it, or if it cannot be written.
pub fn claim(folder: &Path, manifest: &str) -> Result<Lock> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    if !folder.join(manifest).exists() {
        refuse_foreign_files(folder, manifest)?;
    }
    let path = folder.join(".lock");
    let lock = Lock::at_once(&path).map_err(Error::io(&path))?;
    lock.ok_or_else(|| Error::run(folder, "another process is running in this folder"))
}

/// Refuses a folder without its manifest that holds anything but what is written before the manifest.
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
