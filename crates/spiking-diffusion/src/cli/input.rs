//! Which files a command takes its data set from.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use snn_core::Seed;
use snn_train::most_readable_difference;

use super::flags::{DATA_DIR, path_of, variable};
use crate::data::{Dataset, KnownSet, Partial, synthetic_digits};
use crate::error::{Error, Result};
use crate::{DataConfig, ExperimentConfig, Progress};

// Plain comments here: clap takes a doc comment for what the whole command does.
#[derive(Debug, Default, Args)]
pub(super) struct Input {
    /// Folder with the data set's files, or with a folder of its name [default, mnist only: the small built-in, synthetic set]
    #[arg(long, value_name = "DIR", env = variable(DATA_DIR))]
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

    /// The folder, where a flag names it: the environment does so for every command.
    pub(super) fn folder_of_flag(&self) -> Option<&Path> {
        let of_all = path_of(DATA_DIR);
        self.data_dir.as_deref().filter(|folder| Some(*folder) != of_all.as_deref())
    }

    /// The very data of a run.
    pub(super) fn load_of_run(&self, cfg: &ExperimentConfig, progress: &mut dyn Progress) -> Result<Dataset> {
        if let Some(folder) = self.folder_of_flag().filter(|_| cfg.data.synthetic) {
            let reason = "the run was trained on the built-in digits, which need no folder";
            return Err(Error::config("--data-dir", folder.display(), reason));
        }
        let data = if cfg.data.synthetic { synthetic_digits()? } else { self.real_of_run(cfg, progress)? };
        let data = match cfg.data.held_out {
            0 => data,
            n => data.hold_out(n)?,
        };
        let data = data.limit(cfg.data.train_images)?;
        let (there, here) = (json!({ "data": cfg.data }), json!({ "data": DataConfig::of(&data) }));
        let Some((field, [there, here])) = most_readable_difference(&there, &here) else { return Ok(data) };
        let folder = self.data_dir.as_ref().filter(|_| !data.synthetic);
        let from = folder.map_or_else(|| data.name.clone(), |folder| folder.display().to_string());
        let reason = format!(
            "these are not the images that the run was trained on: `{field}` is {there} there and {here} here"
        );
        Err(Error::config("--data-dir", from, reason))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preset, Silent};

    /// Bytes as an IDX file of these axes has them.
    fn idx(axes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let axes_in_order: Vec<u8> = axes.iter().flat_map(|axis| axis.to_be_bytes()).collect();
        [&[0, 0, 8, axes.len() as u8], &axes_in_order[..], bytes].concat()
    }

    #[test]
    fn images_that_are_not_the_runs_are_named_by_folder_and_field() {
        let folder = tempfile::tempdir().unwrap();
        for (split, n) in [("train", 3u32), ("t10k", 2)] {
            let pixels: Vec<u8> = (0..n * 784).map(|i| (i % 251) as u8).collect();
            let write = |kind: &str, bytes: Vec<u8>| {
                std::fs::write(folder.path().join(format!("{split}-{kind}-ubyte")), bytes).unwrap();
            };
            write("images-idx3", idx(&[n, 28, 28], &pixels));
            write("labels-idx1", idx(&[n], &vec![7; n as usize]));
        }
        let input = Input { data_dir: Some(folder.path().to_owned()), download: false };
        let data = input.load(KnownSet::Mnist, Partial::Allow(Seed(0)), &mut Silent).unwrap();
        let mut cfg = ExperimentConfig::for_data(Preset::Quick, &data).unwrap();
        assert_eq!(input.load_of_run(&cfg, &mut Silent).unwrap().train.len(), 3);
        let held_out = ExperimentConfig::for_data(Preset::Quick, &data.hold_out(2).unwrap()).unwrap();
        let again = input.load_of_run(&held_out, &mut Silent).unwrap();
        assert_eq!((again.train.len(), again.test.len()), (1, 2));
        cfg.data.test_images = 7;
        let refused = input.load_of_run(&cfg, &mut Silent).unwrap_err().to_string();
        let path = folder.path().to_str().unwrap();
        for part in [path, "`data.test_images` is 7 there and 2 here"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
