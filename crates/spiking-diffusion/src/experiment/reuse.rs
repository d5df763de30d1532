//! The first half of a run, taken from another run.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use serde_json::json;
use snn_core::{Checkpoint, Model, write_atomically};
use snn_train::{RunDir, most_readable_difference, read_config, read_json};
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use super::device::Kind;
use super::stages::{CODES, CODES_KIND};
use crate::error::{Error, Result};

const LOSSES: &str = "vqsvae.csv";
const VQSVAE: &str = "vqsvae.safetensors";

/// The autoencoder and the codes of a run, which are those of every run whose first stages have the same settings.
pub(super) struct FirstStages {
    /// The names and the bytes of their files, the codes last.
    files: [(&'static str, Vec<u8>); 3],
    /// The time that each stage of the run took.
    seconds: BTreeMap<String, f64>,
}

impl FirstStages {
    /// Those of the run in this folder, if its first stages are done and are those of this config on a device of this kind.
    pub(super) fn of(run: &Path, cfg: &ExperimentConfig, kind: Kind) -> Result<Self> {
        let refuse = |reason: String| Error::config("codes_from", run.display(), reason);
        let other = |difference: String| refuse(format!("its codes are not those of this run: {difference}"));
        if cfg.vae.is_some() {
            return Err(refuse(format!("the model `{}` has no codes", cfg.model.name())));
        }
        let theirs: ExperimentConfig = read_config(run)?;
        if let Some((field, [there, here])) = most_readable_difference(&settings(&theirs), &settings(cfg)) {
            return Err(other(format!("`{field}` is {there} there and {here} here")));
        }
        if let Some(difference) = kind.difference(run)? {
            return Err(other(difference));
        }
        let file = |name: &'static str| -> Result<(&'static str, Vec<u8>)> {
            let path = run.join(name);
            Ok((name, std::fs::read(&path).map_err(Error::io(&path))?))
        };
        let files = [file(LOSSES)?, file(VQSVAE)?, file(CODES)?];
        for ((name, bytes), kind) in files[1..].iter().zip([VqSvae::KIND, CODES_KIND]) {
            Checkpoint::from_bytes(bytes, &run.join(name), kind, &Device::Cpu)?;
        }
        Ok(Self { files, seconds: read_json(&run.join("timing.json"))? })
    }

    /// Whether a folder has them.
    pub(super) fn are_in(run: &Path) -> bool {
        [VQSVAE, CODES].iter().all(|name| run.join(name).exists())
    }

    /// Puts them into the folder of a run, unless they are there, with the time that they took.
    pub(super) fn put_into(&self, run: &RunDir) -> Result<()> {
        if Self::are_in(run.path()) {
            return Ok(());
        }
        for stage in ["vqsvae", "encode"] {
            self.seconds.get(stage).map_or(Ok(()), |&seconds| run.record_seconds(stage, seconds))?;
        }
        for (name, bytes) in &self.files {
            write_atomically(&run.file(name), bytes)?;
        }
        Ok(())
    }
}

/// All that an autoencoder and its codes depend on.
fn settings(cfg: &ExperimentConfig) -> serde_json::Value {
    let ExperimentConfig { data, seed, vqsvae, vqsvae_training, .. } = cfg;
    json!({ "data": data, "seed": seed, "vqsvae": vqsvae, "vqsvae_training": vqsvae_training })
}
