//! The five data sets of the paper's Table 1, from their official files.

use std::path::Path;

use snn_core::Seed;

use super::{Dataset, Split, cifar, idx_split, synthetic_digits};
use crate::error::{Error, Result};

/// A data set with official files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// MNIST: digits, 28x28.
    Mnist,
    /// Fashion-MNIST: clothes, 28x28.
    FashionMnist,
    /// KMNIST: cursive Japanese, 28x28.
    Kmnist,
    /// EMNIST Letters, upright, 28x28; label 0 is A (1 in the files), 25 is Z.
    Letters,
    /// CIFAR-10, RGB, 32x32.
    Cifar10,
}

/// The other way to the files.
const BY_NETWORK: &str = if cfg!(feature = "download") {
    "or --download loads them"
} else {
    "or build with --features download, and --download loads them"
};

/// What to do with files that hold less than the official ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// It is an error.
    Reject,
    /// Take what is there and say so in [`Dataset::partial`]; a lone split is cut 90/10 by this seed.
    Allow(Seed),
}

impl DataSet {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mnist, Self::FashionMnist, Self::Kmnist, Self::Letters, Self::Cifar10];

    /// Its official numbers of training and test images.
    pub fn counts(self) -> (usize, usize) {
        let [(_, train), (_, test)] = self.splits();
        (train, test)
    }

    /// Its name in reports, and of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Kmnist => "kmnist",
            Self::Letters => "emnist-letters",
            Self::Cifar10 => "cifar-10",
        }
    }

    /// The one of this [name](Self::name).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// URL of its official files: of the archive that holds them, or, with a slash at its end, of their folder. MNIST's is a
    /// mirror, because its own server no longer serves everybody. The feature `download` takes them from there.
    pub fn source(self) -> &'static str {
        match self {
            Self::Mnist => "https://storage.googleapis.com/cvdf-datasets/mnist/",
            Self::FashionMnist => "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            Self::Kmnist => "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            Self::Letters => "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            Self::Cifar10 => "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        }
    }

    /// Its official files, without `.gz`.
    pub fn files(self) -> Vec<String> {
        if self == Self::Cifar10 {
            return cifar::TRAIN.iter().chain(&cifar::TEST).map(|&name| name.to_owned()).collect();
        }
        let kinds = ["images-idx3-ubyte", "labels-idx1-ubyte"];
        let prefixes = self.splits().into_iter();
        prefixes.flat_map(|(prefix, _)| kinds.map(|kind| format!("{prefix}-{kind}"))).collect()
    }

    /// From the folder that holds its files (IDX plain or gzipped), or has a folder of its [name](Self::name) that does, or
    /// those that torchvision (`MNIST/raw`) or the official archive (`cifar-10-batches-bin`) make. Without a folder MNIST is the [built-in digits](synthetic_digits). The network is never asked: that is what
    /// `load_or_download` does (feature `download`).
    ///
    /// # Errors
    /// No folder (but for MNIST); a file that is missing (the message names what comes near it there), damaged or, unless
    /// allowed, partial.
    pub fn load(self, folder: Option<&Path>, partial: Partial) -> Result<Dataset> {
        let Some(folder) = folder else {
            return if self == Self::Mnist { synthetic_digits() } else { Err(self.unnamed()) };
        };
        let folder = self.place(folder).ok_or_else(|| self.absent(folder))?;
        let mut notes = Vec::new();
        let [train, test] = self.splits().map(|split| self.split(&folder, split, partial, &mut notes));
        let (train, test) = match (train?, test?, partial) {
            (Some(train), Some(test), _) => (train, test),
            (Some(only), None, Partial::Allow(seed)) => cut(&only, "training", seed, &mut notes)?,
            (None, Some(only), Partial::Allow(seed)) => cut(&only, "test", seed, &mut notes)?,
            (Some(_), None, _) => return Err(self.absent_split(&folder, "test")),
            (None, Some(_), _) => return Err(self.absent_split(&folder, "training")),
            (None, None, _) => return Err(self.absent(&folder)),
        };
        let partial = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Dataset { partial, ..Dataset::new(self.name(), train, test)? })
    }

    /// Prefix (or name) and official number of images of the training and the test split.
    fn splits(self) -> [(&'static str, usize); 2] {
        match self {
            Self::Letters => [("emnist-letters-train", 124_800), ("emnist-letters-test", 20_800)],
            Self::Cifar10 => [("train", 50_000), ("test", 10_000)],
            Self::Mnist | Self::FashionMnist | Self::Kmnist => [("train", 60_000), ("t10k", 10_000)],
        }
    }

    fn split(
        self,
        folder: &Path,
        (prefix, count): (&str, usize),
        partial: Partial,
        notes: &mut Vec<String>,
    ) -> Result<Option<Split>> {
        let allow = partial != Partial::Reject;
        match self {
            Self::Cifar10 if prefix == "train" => cifar::read(folder, &cifar::TRAIN, allow, notes),
            Self::Cifar10 => cifar::read(folder, &cifar::TEST, allow, notes),
            _ => idx_split::read(self, folder, prefix, count, allow, notes),
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

/// Notes that a count is not the official one, or refuses it.
pub(super) fn count(
    path: &Path,
    found: usize,
    expected: usize,
    allow: bool,
    notes: &mut Vec<String>,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    if !allow {
        let message = format!(
            "holds {found} images, expected {expected}; `Partial::Allow` (--allow-partial) takes what is there"
        );
        return Err(Error::data(path, message));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    notes.push(format!("{name} has {found} of {expected} images"));
    Ok(())
}

fn cut(only: &Split, which: &str, seed: Seed, notes: &mut Vec<String>) -> Result<(Split, Split)> {
    notes.push(format!(
        "only the {which} split is there, cut 90/10 into training and test by seed {}",
        seed.0
    ));
    let order = snn_train::epoch_order(seed, "data/cut", 0, only.len());
    let (train, test) = order.split_at(only.len() * 9 / 10);
    Ok((only.select(train)?, only.select(test)?))
}
