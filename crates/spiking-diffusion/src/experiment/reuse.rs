//! The first half of a run, taken from another run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::json;
use snn_core::{Checkpoint, Model, write_atomically};
use snn_train::{RunDir, most_readable_difference, read_config, read_json};
use vq_svae::VqSvae;

use super::config::ExperimentConfig;
use super::stages::{CODES, CODES_KIND};
use crate::error::{Error, Result};

const VQSVAE: &str = "vqsvae.safetensors";

/// The autoencoder and the codes of a run, which are those of every run whose first stages have the same settings.
pub(super) struct FirstStages(PathBuf);

impl FirstStages {
    /// Those of the run in this folder, if its first stages are done and are those of this config.
    pub(super) fn of(run: &Path, cfg: &ExperimentConfig) -> Result<Self> {
        let refuse = |reason: String| Error::config("codes_from", run.display(), reason);
        if cfg.vae.is_some() {
            return Err(refuse(format!("the model `{}` has no codes", cfg.model.name())));
        }
        let theirs: ExperimentConfig = read_config(run)?;
        if let Some((field, [there, here])) = most_readable_difference(&settings(&theirs), &settings(cfg)) {
            let reason =
                format!("its codes are not those of this run: `{field}` is {there} there and {here} here");
            return Err(refuse(reason));
        }
        Checkpoint::load(&run.join(VQSVAE), VqSvae::KIND, &Device::Cpu)?;
        Checkpoint::load(&run.join(CODES), CODES_KIND, &Device::Cpu)?;
        Ok(Self(run.to_owned()))
    }

    /// Puts them into the folder of a run, unless they are there, with the time that they took.
    pub(super) fn put_into(&self, run: &RunDir) -> Result<()> {
        if [VQSVAE, CODES].iter().all(|name| run.file(name).exists()) {
            return Ok(());
        }
        for name in ["vqsvae.csv", VQSVAE, CODES] {
            let path = self.0.join(name);
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            write_atomically(&run.file(name), &bytes)?;
        }
        let seconds: BTreeMap<String, f64> = read_json(&self.0.join("timing.json"))?;
        let of_stage = |stage| seconds.get(stage).map(|seconds| (stage, *seconds));
        ["vqsvae", "encode"]
            .into_iter()
            .filter_map(of_stage)
            .try_for_each(|(stage, seconds)| run.record_seconds(stage, seconds))?;
        Ok(())
    }
}

/// All that an autoencoder and its codes depend on.
fn settings(cfg: &ExperimentConfig) -> serde_json::Value {
    let ExperimentConfig { data, seed, vqsvae, vqsvae_training, .. } = cfg;
    json!({ "data": data, "seed": seed, "vqsvae": vqsvae, "vqsvae_training": vqsvae_training })
}
