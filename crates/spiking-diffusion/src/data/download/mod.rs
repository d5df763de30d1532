//! The official files from the network, into the user's cache.

mod remote;
#[cfg(test)]
mod tests;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use snn_train::{Lock, flow};
use spiking_diffusion_metrics::Error as MetricsError;
use spiking_diffusion_metrics::download::{Limits, cache_dir, fetch_within};

use super::dataset::Dataset;
use super::known::KnownSet;
use super::partial::Partial;
use crate::Progress;
use crate::error::{Error, Result};
use remote::{Remote, RemoteFile};
use unpack::unpack;

impl KnownSet {
    /// Returns a folder in the user's cache that has the official files. Those that it lacks are loaded from the network.
    ///
    /// What was cut off, or [stopped](Progress::stop_requested), goes on where it was the next time. A file is there
    /// under its name once its SHA-256 is right; of an archive only what is needed is kept. Two processes may ask for the
    /// same set: one waits for the other. In a build with the feature `huggingface`, MNIST, Fashion-MNIST and CIFAR-10 are
    /// taken from the Hugging Face hub where their server does not answer, if their unpacked bytes have the official checksums.
    ///
    /// # Errors
    /// Returns an error if the network or the server fails or its file has another checksum ([`Error::Download`] says what to do instead),
    /// if a file cannot be written, or if the progress asks to stop.
    ///
    /// # Examples
    /// ```no_run
    /// use spiking_diffusion::{Silent, data::{KnownSet, Partial}};
    ///
    /// let folder = KnownSet::Kmnist.download(&mut Silent)?;
    /// let data = KnownSet::Kmnist.load(Some(&folder), Partial::Reject)?;
    /// # Ok::<(), spiking_diffusion::Error>(())
    /// ```
    pub fn download(self, progress: &mut dyn Progress) -> Result<PathBuf> {
        let folder = cache_dir()?.join("data").join(self.name());
        let store = Store { remote: Remote::official(self), folder, limits: Limits::default() };
        match store.fill(progress) {
            Err(error @ Error::Metrics(MetricsError::Download { .. })) => {
                self.fall_back(&store.folder, self.explain(error), progress)?;
            }
            other => other?,
        }
        Ok(store.folder)
    }

    /// Loads the set from a folder that has at least one of its files ([`KnownSet::load`]), else by [`KnownSet::download`].
    ///
    /// # Errors
    /// Returns the errors of the one or the other. A folder with one of the files is final: what else is wrong there is an error.
    pub fn load_or_download(
        self,
        folder: Option<&Path>,
        partial: Partial,
        progress: &mut dyn Progress,
    ) -> Result<Dataset> {
        self.load_or(folder, partial, || self.download(progress))
    }

    fn load_or(
        self,
        folder: Option<&Path>,
        partial: Partial,
        download: impl FnOnce() -> Result<PathBuf>,
    ) -> Result<Dataset> {
        match folder.filter(|folder| self.place(folder).is_some()) {
            Some(folder) => self.load(Some(folder), partial),
            None => self.load(Some(&download()?), partial),
        }
    }

    /// Asks the Hugging Face hub, where it has the set; else the error stays.
    #[cfg(feature = "huggingface")]
    fn fall_back(self, folder: &Path, error: Error, progress: &mut dyn Progress) -> Result<()> {
        use super::huggingface;

        let Some(load) = huggingface::loader(self) else { return Err(error) };
        progress.message(&format!("{error}; asking the Hugging Face hub"));
        let _held = wait(folder)?;
        huggingface::fill(self, folder, load).map_err(|hub| match error {
            Error::Download { set, source, advice } => {
                let advice = format!("{advice} (nor did the Hugging Face hub help: {hub})");
                Error::Download { set, source, advice }
            }
            other => other,
        })
    }

    #[cfg(not(feature = "huggingface"))]
    fn fall_back(self, _: &Path, error: Error, _: &mut dyn Progress) -> Result<()> {
        Err(error)
    }

    /// Says what to do where there is no network.
    fn explain(self, error: Error) -> Error {
        match error {
            Error::Metrics(source @ MetricsError::Download { .. }) => {
                let advice = self.advice("a folder");
                Error::Download { set: self.name(), source: Box::new(source), advice }
            }
            other => other,
        }
    }
}

/// Waits until no other process fills the folder.
fn wait(folder: &Path) -> Result<Lock> {
    let path = folder.join(".lock");
    Lock::wait(&path).map_err(Error::io(&path))
}

/// A data set on the network, and the folder that keeps it.
struct Store {
    remote: Remote,
    folder: PathBuf,
    limits: Limits,
}

impl Store {
    /// Brings what the folder lacks.
    fn fill(&self, progress: &mut dyn Progress) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let held = wait(&self.folder)?;
        let members = &self.remote.members;
        if members.is_empty() {
            // The hub gives them unpacked.
            let is_lacking =
                |file: &&RemoteFile| !self.folder.join(file.name.trim_end_matches(".gz")).is_file();
            for file in self.remote.files.iter().filter(is_lacking) {
                self.fetch(file, progress)?;
            }
        } else if !members.iter().all(|name| self.folder.join(name).is_file()) {
            for file in &self.remote.files {
                let archive = self.fetch(file, progress)?;
                unpack(&archive, members, &self.folder)?;
                fs::remove_file(&archive).map_err(Error::io(&archive))?;
            }
        }
        drop(held);
        Ok(())
    }

    fn fetch(&self, file: &RemoteFile, progress: &mut dyn Progress) -> Result<PathBuf> {
        let url = format!("{}{}", self.remote.folder, file.name);
        load_file(&self.limits, &url, (file.bytes, &file.sha256), &self.folder.join(&file.name), progress)
    }
}

/// Gets the file of this length and SHA-256 from where it lies, or loads it there from `url`, and shows how far it is.
pub(crate) fn load_file(
    limits: &Limits,
    url: &str,
    (bytes, sha256): (u64, &str),
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf> {
    if !path.exists() {
        let (megabytes, folder) = (bytes as f64 / 1e6, path.parent().unwrap_or(path));
        progress.message(&format!("loading {url} ({megabytes:.1} MB) to {}", folder.display()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stage, total) = (format!("{name}, kB"), kilobytes(bytes));
    let mut latest = None;
    let fetched = fetch_within(limits, url, sha256, path, &mut |got, _| {
        let done = kilobytes(got);
        if latest.replace(done).is_none() {
            progress.begin(&stage, total, done);
        }
        progress.advance(done, None);
        flow(progress)
    });
    if latest.is_some() {
        progress.end();
    }
    match fetched {
        Err(MetricsError::Stopped { .. }) => {
            Err(snn_train::Error::Stopped { stage, done: latest.unwrap_or(0), total }.into())
        }
        other => Ok(other?),
    }
}

fn kilobytes(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(1000)).unwrap_or(usize::MAX)
}
