//! Which files a command takes its data set from.

use std::path::{Path, PathBuf};

use clap::Args;
use snn_core::Seed;

use super::flags::variable;
use crate::data::{Dataset, KnownSet, Partial, synthetic_digits};
use crate::error::{Error, Result};
use crate::{DataConfig, ExperimentConfig, Progress};

// Plain comments here: clap takes a doc comment for what the whole command does.
#[derive(Debug, Default, Args)]
pub(super) struct Input {
    /// Folder with the data set's files, or with a folder of its name [default, mnist only: the small built-in, synthetic set]
    #[arg(long, value_name = "DIR", env = variable("SPIKING_DATA_DIR"))]
    pub(super) data_dir: Option<PathBuf>,
    /// Where there is no such folder, or none of the set's files in it: take them from the user's cache, and load what that lacks from
    /// the network (needs a build with --features download)
    #[arg(long)]
    pub(super) download: bool,
}

impl Partial {
    /// For a switch that allows it.
    pub(super) fn when(allowed: bool, seed: Seed) -> Self {
        if allowed { Self::Allow(seed) } else { Self::Reject }
    }
}

impl Input {
    pub(super) fn load(
        &self,
        set: KnownSet,
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

    /// The very data of a run.
    pub(super) fn load_of_run(&self, cfg: &ExperimentConfig, progress: &mut dyn Progress) -> Result<Dataset> {
        let data = if cfg.data.synthetic { synthetic_digits()? } else { self.real_of_run(cfg, progress)? };
        let data = data.limit(cfg.data.train_images)?;
        if DataConfig::of(&data) != cfg.data {
            let reason = "these are not the images that the run was trained on";
            return Err(Error::config("--data-dir", &data.name, reason));
        }
        Ok(data)
    }

    fn real_of_run(&self, cfg: &ExperimentConfig, progress: &mut dyn Progress) -> Result<Dataset> {
        let name = &cfg.data.name;
        let unknown = || {
            Error::config(
                "data.name",
                name,
                "no data set of that name is known; from code, `judge::Judge::new` and `score_samples` take any",
            )
        };
        let set = KnownSet::named(name).ok_or_else(unknown)?;
        if self.data_dir.is_none() && !self.download {
            let reason = format!(
                "must name the folder with {name}, which the run was trained on; or --download loads it"
            );
            return Err(Error::config("--data-dir", "", reason));
        }
        let partial = Partial::when(cfg.data.partial.is_some(), cfg.seed);
        self.load(set, partial, progress)
    }
}

#[cfg(feature = "download")]
fn load_or_download(
    set: KnownSet,
    folder: Option<&Path>,
    partial: Partial,
    progress: &mut dyn Progress,
) -> Result<Dataset> {
    set.load_or_download(folder, partial, progress)
}

#[cfg(not(feature = "download"))]
fn load_or_download(_: KnownSet, _: Option<&Path>, _: Partial, _: &mut dyn Progress) -> Result<Dataset> {
    Err(no_downloads())
}

#[cfg(not(feature = "download"))]
pub(super) fn no_downloads() -> Error {
    let reason = "this program cannot: build it with --features download";
    Error::config("--download", true, reason)
}
