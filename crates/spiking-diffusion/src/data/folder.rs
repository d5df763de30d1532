//! Where in a folder the files of a data set are, and what there is in their place.

use std::path::{Path, PathBuf};

use super::idx;
use super::known::KnownSet;

/// Ends of the names of archives.
const ARCHIVES: [&str; 8] = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar"];
/// Parts of the names of what may have been meant.
const RELATED: [&str; 9] = ["idx", "ubyte", "t10k", "images", "labels", "mnist", "cifar", "batch", "gzip"];
/// So many of them are named.
const MOST: usize = 5;

impl KnownSet {
    /// The folder that has files of the set: this one, that of the set's [name](Self::name) in it, or one of those that
    /// torchvision or the official archive make there.
    pub(super) fn place(self, folder: &Path) -> Option<PathBuf> {
        self.places(folder).into_iter().find(|place| self.names().any(|name| place.join(name).is_file()))
    }

    /// What in a folder comes near the set's files without being one of them, as a part of a sentence; nothing for nothing.
    pub(super) fn but_near(self, folder: &Path) -> String {
        if let Some(other) = self.other_of_this_name(folder) {
            return format!(", for by its name it is that of {}", other.name());
        }
        let near = self.near(folder);
        let named = near.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
        match near.len() {
            0 => String::new(),
            count if count > MOST => format!(", but {named} and {} more", count - MOST),
            _ => format!(", but {named}"),
        }
    }

    /// What the set's folder is called: by us, and by torchvision.
    fn folders(self) -> [&'static str; 2] {
        let torchvision = match self {
            Self::Mnist => "MNIST",
            Self::FashionMnist => "FashionMNIST",
            Self::Kmnist => "KMNIST",
            Self::Letters => "EMNIST",
            Self::Cifar10 => "CIFAR10",
        };
        [self.name(), torchvision]
    }

    /// Where its files may be, in the order of preference.
    fn places(self, folder: &Path) -> Vec<PathBuf> {
        let [own, torchvision] = self.folders();
        let inner = [folder.join(own), folder.join(torchvision), folder.join(own).join(torchvision)];
        // The files of several sets have the same names: those at the top may be of any, unless the folder is called after another one.
        let top = self.other_of_this_name(folder).is_none().then(|| folder.to_owned());
        inner.into_iter().chain(top).flat_map(|base| self.within(base)).collect()
    }

    /// The other set after which a folder is called, or the one around it where it is torchvision's `raw`.
    fn other_of_this_name(self, folder: &Path) -> Option<Self> {
        let named = if folder.ends_with("raw") { folder.parent()? } else { folder };
        let name = named.file_name()?.to_str()?;
        Self::ALL.into_iter().find(|set| *set != self && set.folders().contains(&name))
    }

    /// A folder, and those in it that hold no other set: `raw` may hold any, so its parent must be named after this one.
    fn within(self, base: PathBuf) -> Vec<PathBuf> {
        let is_own = base.file_name().is_some_and(|name| self.folders().iter().any(|own| name == *own));
        let inner = match self {
            Self::Cifar10 => Some("cifar-10-batches-bin"),
            Self::Letters => Some("gzip"),
            Self::Mnist | Self::FashionMnist | Self::Kmnist => None,
        };
        let raw = is_own.then_some("raw");
        let inner = inner.into_iter().chain(raw).map(|name| base.join(name)).collect::<Vec<_>>();
        [vec![base], inner].concat()
    }

    /// The names under which its files are looked for.
    fn names(self) -> impl Iterator<Item = String> {
        let gzipped = self != Self::Cifar10;
        self.files()
            .into_iter()
            .flat_map(move |file| if gzipped { idx::names(&file).into() } else { vec![file] })
    }

    /// What comes near its files, each with what it is.
    fn near(self, folder: &Path) -> Vec<String> {
        let known: Vec<String> = self.names().collect();
        let entries = |place: &PathBuf| std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut near = Vec::new();
        for place in self.places(folder) {
            for entry in entries(&place) {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if known.contains(&name) && path.is_file() {
                    continue;
                }
                if let Some(what) = self.remark(&name.to_lowercase(), path.is_dir()) {
                    let shown = path.strip_prefix(folder).unwrap_or(&path).display();
                    near.push(format!("`{shown}` ({what})"));
                }
            }
        }
        near.sort();
        near
    }

    /// What a file or folder is that is none of those looked for, if it may have been meant.
    fn remark(self, name: &str, is_folder: bool) -> Option<&'static str> {
        let is_archive = ARCHIVES.iter().any(|end| name.ends_with(end));
        let is_batch = name.starts_with("data_batch") || name.starts_with("test_batch");
        let is_binary = name.contains(".bin") || name.contains("-bin");
        if name.starts_with('.') {
            None
        } else if self == Self::Cifar10
            && !is_binary
            && (is_batch || name.contains("python") || name.contains("-py"))
        {
            Some("not of the binary version, whose files end in .bin")
        } else if is_archive {
            Some("an archive, which wants unpacking")
        } else if !RELATED.iter().any(|part| name.contains(part)) {
            None
        } else {
            Some(if is_folder { "a folder" } else { "another name" })
        }
    }
}
