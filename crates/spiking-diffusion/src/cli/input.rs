//! Which files a command takes its data set from.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Progress;
use crate::data::{DataSet, Dataset, Partial};
use crate::error::Result;

// Plain comments here: clap takes a doc comment for what the whole command does.
#[derive(Debug, Default, Args)]
pub(super) struct Input {
    /// Folder with the data set's files, or with a folder of its name [default, mnist only: the small built-in, synthetic set]
    #[arg(long, value_name = "DIR", env = "SPIKING_DATA_DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Where there is no such folder, or none of the set's files in it: take them from the user's cache, and load what that lacks from
    /// the network (needs a build with --features download)
    #[arg(long)]
    pub(super) download: bool,
}

impl Input {
    pub(super) fn load(
        &self,
        set: DataSet,
        partial: Partial,
        progress: &mut dyn Progress,
    ) -> Result<Dataset> {
        let folder = self.data_dir.as_deref();
        if self.download {
            load_or_download(set, folder, partial, progress)
        } else {
            set.load(folder, partial)
        }
    }

    /// Whether it says where the real files are.
    pub(super) fn is_given(&self) -> bool {
        self.data_dir.is_some() || self.download
    }
}

#[cfg(feature = "download")]
fn load_or_download(
    set: DataSet,
    folder: Option<&Path>,
    partial: Partial,
    progress: &mut dyn Progress,
) -> Result<Dataset> {
    set.load_or_download(folder, partial, progress)
}

#[cfg(not(feature = "download"))]
fn load_or_download(_: DataSet, _: Option<&Path>, _: Partial, _: &mut dyn Progress) -> Result<Dataset> {
    let reason = "this program cannot: build it with --features download";
    Err(crate::Error::config("--download", true, reason))
}
