//! Checkpoints of a training: the last one and the one before it.

use std::path::{Path, PathBuf};

use candle_core::DType;
use serde::{Deserialize, Serialize};
use snn_core::{AdamW, Checkpoint};

use super::Stage;
use crate::Progress;
use crate::error::{Error, Result};

/// Where a stopped training goes on.
#[derive(Serialize, Deserialize)]
struct TrainingState {
    stage: String,
    step: usize,
}

const STATE_KIND: &str = "training-state";

impl Stage<'_> {
    /// The stage's result is written: its training states are of no more use.
    pub(crate) fn discard_state(&self) -> Result<()> {
        self.states().iter().try_for_each(|path| remove(path))
    }

    /// Files of the last state and the one before it.
    pub(super) fn states(&self) -> [PathBuf; 2] {
        ["state", "previous-state"].map(|kind| self.run.file(&format!("{}.{kind}.safetensors", self.name)))
    }

    pub(super) fn seconds_before(&self, steps: usize) -> Result<f64> {
        Ok(if steps == 0 { 0. } else { self.run.seconds()?.get(self.name).copied().unwrap_or(0.) })
    }

    /// Parameters, moments and position in one file, so that no kill can leave them apart. Never writes parameters or
    /// statistics that are not finite.
    ///
    /// The state before stays beside it: at any moment one of the two is whole.
    pub(super) fn save(&self, optimiser: &AdamW) -> Result<()> {
        for (_, var) in self.params.vars() {
            let sum = var.as_tensor().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            self.finite("sum of a parameter after the update", optimiser.steps() - 1, sum)?;
        }
        let state = TrainingState { stage: self.name.to_owned(), step: optimiser.steps() };
        let mut checkpoint = Checkpoint::new(STATE_KIND, &state)?;
        checkpoint.tensors = self.params.snapshot("model.")?;
        checkpoint.tensors.extend(optimiser.snapshot("adamw."));
        let [last, previous] = self.states();
        if last.exists() {
            std::fs::rename(&last, &previous).map_err(Error::io(&last))?;
        }
        Ok(checkpoint.save(&last)?)
    }

    /// Goes on from the last state; from the one before, and says so, where the last is damaged or missing.
    ///
    /// # Errors
    /// There are states, but none that can be read.
    pub(super) fn restore(&self, optimiser: &mut AdamW, progress: &mut dyn Progress) -> Result<()> {
        let [last, previous] = self.states();
        if !last.exists() && !previous.exists() {
            return Ok(());
        }
        let broken = match self.restore_from(&last, optimiser) {
            Ok(_) => return Ok(()),
            Err(e) => e,
        };
        if !previous.exists() {
            let message = format!(
                "{broken}; there is no earlier checkpoint to fall back to: delete this file to train stage `{}` from \
                 its start",
                self.name
            );
            return Err(Error::run(self.run.path(), message));
        }
        let step = self.restore_from(&previous, optimiser).map_err(|e| {
            let message = format!("{broken}; {e}; delete both to train stage `{}` from its start", self.name);
            Error::run(self.run.path(), message)
        })?;
        progress.message(&format!("{broken}; going on from the checkpoint before it, at step {step}"));
        // Must not take the good state's place at the next save.
        remove(&last)
    }

    fn restore_from(&self, path: &Path, optimiser: &mut AdamW) -> Result<usize> {
        let mut checkpoint = Checkpoint::load(path, STATE_KIND, self.device)?;
        let state: TrainingState = checkpoint.config()?;
        if state.stage != self.name {
            let message = format!("is the state of stage `{}`, not `{}`", state.stage, self.name);
            return Err(Error::run(path, message));
        }
        optimiser.restore(&checkpoint, "adamw.", state.step)?;
        checkpoint.tensors.retain(|name, _| name.starts_with("model."));
        self.params.restore(&checkpoint, "model.")?;
        Ok(state.step)
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}
