//! The flag that names what FAD is measured by.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::{FadFiles, Progress};

// Plain comments here: clap takes a doc comment for what the whole command does.
#[derive(Debug, Default, Args)]
pub(super) struct Fad {
    /// Measure FAD of the samples too: by the files in this folder that FSVAE's authors publish (mnist_64.pth and mnist_test_64.npz,
    /// fashion_64.pth and fashion_test_64.npz), or by the network in this file; without a path the published ones are loaded (needs a
    /// build with --features download)
    #[arg(long, value_name = "PATH")]
    fad: Option<Option<PathBuf>>,
}

impl Fad {
    pub(super) fn is_given(&self) -> bool {
        self.fad.is_some()
    }

    /// What was asked for, if it was.
    pub(super) fn files(&self, dataset: &str, progress: &mut dyn Progress) -> Result<Option<FadFiles>> {
        let files = match &self.fad {
            None => return Ok(None),
            Some(Some(path)) => FadFiles::at(path, dataset),
            Some(None) => download(dataset, progress),
        };
        files.map(Some)
    }
}

#[cfg(feature = "download")]
fn download(dataset: &str, progress: &mut dyn Progress) -> Result<FadFiles> {
    FadFiles::download(dataset, progress)
}

#[cfg(not(feature = "download"))]
fn download(_: &str, _: &mut dyn Progress) -> Result<FadFiles> {
    let reason = "needs a folder or a file: this program was built without --features download";
    Err(crate::Error::config("--fad", "", reason))
}
