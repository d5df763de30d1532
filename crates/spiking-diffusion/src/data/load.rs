//! Data sets from their official files.

use std::path::Path;

use snn_core::Seed;

use super::dataset::Dataset;
use super::known::{CIFAR_TEST, CIFAR_TRAIN, KnownSet};
use super::partial::{Notes, Partial};
use super::split::Split;
use super::synthetic::synthetic_digits;
use super::{cifar, idx_split};
use crate::error::{Error, Result};

/// The other way to the files.
const BY_NETWORK: &str = if cfg!(feature = "download") {
    "or --download loads them"
} else {
    "or build with --features download, and --download loads them"
};

impl KnownSet {
    /// Loads the set from the folder that holds its files (IDX plain or gzipped), or has a folder of its [name](Self::name) that does, or
    /// those that torchvision (`MNIST/raw`) or the official archive (`cifar-10-batches-bin`) make. Without a folder MNIST is the
    /// [built-in digits](synthetic_digits). The network is never asked: that is what `load_or_download` does (feature `download`).
    ///
    /// # Errors
    /// Returns an error if there is no folder (but for MNIST), or if a file is missing (the message names what comes near it there),
    /// damaged or, unless that is allowed, partial.
    pub fn load(self, folder: Option<&Path>, partial: Partial) -> Result<Dataset> {
        let Some(folder) = folder else {
            return if self == Self::Mnist { synthetic_digits() } else { Err(self.unnamed()) };
        };
        let folder = self.place(folder).ok_or_else(|| self.absent(folder))?;
        let mut notes = Notes::new(partial);
        let [train, test] = self.splits().map(|split| self.split(&folder, split, &mut notes));
        let (train, test) = match (train?, test?, partial) {
            (Some(train), Some(test), _) => (train, test),
            (Some(only), None, Partial::Allow(seed)) => cut(&only, "training", seed, &mut notes)?,
            (None, Some(only), Partial::Allow(seed)) => cut(&only, "test", seed, &mut notes)?,
            (Some(_), None, _) => return Err(self.absent_split(&folder, "test")),
            (None, Some(_), _) => return Err(self.absent_split(&folder, "training")),
            (None, None, _) => return Err(self.absent(&folder)),
        };
        Ok(Dataset { partial: notes.joined(), ..Dataset::new(self.name(), train, test)? })
    }

    fn split(
        self,
        folder: &Path,
        (prefix, count): (&str, usize),
        notes: &mut Notes,
    ) -> Result<Option<Split>> {
        match self {
            Self::Cifar10 if prefix == "train" => cifar::read(folder, &CIFAR_TRAIN, notes),
            Self::Cifar10 => cifar::read(folder, &CIFAR_TEST, notes),
            _ => idx_split::read(self, folder, prefix, count, notes),
        }
    }

    fn unnamed(self) -> Error {
        let reason = format!("{} is not built in: {}; {BY_NETWORK}", self.name(), self.advice("a folder"));
        Error::config("--data-dir", "none", reason)
    }

    fn absent(self, folder: &Path) -> Error {
        let what = match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => "is empty",
            Ok(false) => "holds none of the set's files",
            Err(_) if folder.is_file() => "is a file, not a folder",
            Err(_) if !folder.exists() => "there is no such folder",
            Err(e) => return Error::io(folder)(e),
        };
        let (near, advice) = (self.but_near(folder), self.advice("this folder"));
        Error::data(folder, format!("{what}{near}: {advice}; {BY_NETWORK}"))
    }

    fn absent_split(self, folder: &Path, which: &str) -> Error {
        let (files, near) = (self.files().join(", "), self.but_near(folder));
        let message = format!(
            "has no {which} images{near} (the files are {files}); `Partial::Allow` (--allow-partial) cuts the other split in two"
        );
        Error::data(folder, message)
    }

    /// What to put where.
    pub(super) fn advice(self, folder: &str) -> String {
        let (name, files, source) = (self.name(), self.files(), self.source());
        let gz = if self == Self::Cifar10 { "" } else { ", each plain or .gz" };
        let from = if source.ends_with('/') {
            format!("they are at {source}{}.gz and so on", files[0])
        } else {
            format!("they are in {source}")
        };
        let files = files.join(", ");
        format!(
            "put {files}{gz}, into {folder} or a folder `{name}` in it and name it with --data-dir (or \
             SPIKING_DATA_DIR); {from}"
        )
    }
}

fn cut(only: &Split, which: &str, seed: Seed, notes: &mut Notes) -> Result<(Split, Split)> {
    notes
        .add(format!("only the {which} split is there, cut 90/10 into training and test by seed {}", seed.0));
    let order = snn_train::epoch_order(seed, "data/cut", 0, only.len());
    let (train, test) = order.split_at(only.len() * 9 / 10);
    Ok((only.select(train)?, only.select(test)?))
}
