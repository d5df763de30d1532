//! Checkpoints of a training: the last one and the one before it.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use snn_core::{AdamW, Average, Checkpoint, Muon, ParamStore, Seed};

use crate::error::{Error, Result};
use crate::{Collective, Progress, RunDir};

/// Where a training that was stopped goes on.
#[derive(Serialize, Deserialize)]
struct TrainingState {
    stage: String,
    step: usize,
    /// Older states do not say.
    #[serde(default)]
    origin: Option<Origin>,
}

/// What the order of a training's batches follows from.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) items: usize,
    pub(crate) seed: Seed,
}

const STATE_KIND: &str = "training-state";

/// What moves while a network is trained.
pub(crate) struct Moving<'a> {
    pub(crate) params: &'a ParamStore,
    pub(crate) optimiser: AdamW,
    /// Of what the config gives it, where it does.
    pub(crate) muon: Option<Muon>,
    /// Of the parameters, where the config wants one.
    pub(crate) average: Option<Average>,
    pub(crate) origin: Origin,
}

/// Saves and restores the checkpoints of one stage in a run's folder.
#[derive(Clone, Copy)]
pub(crate) struct States<'a> {
    pub(crate) run: &'a RunDir,
    pub(crate) stage: &'a str,
}

impl States<'_> {
    /// The files of the last state and of the one before it.
    pub(crate) fn files(&self) -> [PathBuf; 2] {
        ["state", "previous-state"].map(|kind| self.run.file(&format!("{}.{kind}.safetensors", self.stage)))
    }

    /// Removes the states, which are of no more use when the stage's result is written.
    pub(crate) fn discard(&self) -> Result<()> {
        self.files().iter().try_for_each(|path| remove(path))
    }

    /// Writes parameters, moments, averages and position to one file, so that no kill can leave them apart.
    ///
    /// The state before it is kept, so that at any moment one of the two is whole.
    pub(crate) fn save(&self, moving: &Moving<'_>) -> Result<()> {
        let checkpoint = moving.checkpoint(self.stage)?;
        let [last, previous] = self.files();
        if last.exists() {
            std::fs::rename(&last, &previous).map_err(Error::io(&last))?;
        }
        Ok(checkpoint.save(&last)?)
    }

    /// Goes on from the last state or, if that is damaged or missing, from the one before it, and then says so.
    ///
    /// # Errors
    /// Returns an error if there are states, but none that can be read.
    pub(crate) fn restore(&self, moving: &mut Moving<'_>, progress: &mut dyn Progress) -> Result<()> {
        let [last, previous] = self.files();
        if !last.exists() && !previous.exists() {
            return Ok(());
        }
        let broken = match self.restore_from(&last, moving) {
            Ok(_) => return Ok(()),
            Err(e) => e,
        };
        // The state of another training is no damaged one, behind which an older state could stand.
        if let Ok(whole) = Checkpoint::load(&last, STATE_KIND, &Device::Cpu) {
            moving.check_origin(&whole.config()?, &last)?;
        }
        if !previous.exists() {
            let message = format!(
                "{broken}; there is no earlier checkpoint to fall back to: delete this file to train stage `{}` from \
                 its start",
                self.stage
            );
            return Err(Error::run(self.run.path(), message));
        }
        let step = self.restore_from(&previous, moving).map_err(|e| {
            let message =
                format!("{broken}; {e}; delete both to train stage `{}` from its start", self.stage);
            Error::run(self.run.path(), message)
        })?;
        progress.message(&format!("{broken}; going on from the checkpoint before it, at step {step}"));
        // Must not take the good state's place at the next save.
        remove(&last)
    }

    fn restore_from(&self, path: &Path, moving: &mut Moving<'_>) -> Result<usize> {
        // Values are copied to where their variables live.
        let checkpoint = Checkpoint::load(path, STATE_KIND, &Device::Cpu)?;
        moving.restore(self.stage, checkpoint, path)
    }
}

impl Moving<'_> {
    fn checkpoint(&self, stage: &str) -> Result<Checkpoint> {
        let (step, origin) = (self.optimiser.steps(), Some(self.origin));
        let state = TrainingState { stage: stage.to_owned(), step, origin };
        let mut checkpoint = Checkpoint::new(STATE_KIND, &state)?;
        checkpoint.tensors = self.params.snapshot("model.")?;
        checkpoint.tensors.extend(self.optimiser.snapshot("adamw.")?);
        if let Some(muon) = &self.muon {
            checkpoint.tensors.extend(muon.snapshot("muon."));
        }
        if let Some(average) = &self.average {
            checkpoint.tensors.extend(average.snapshot("average."));
        }
        Ok(checkpoint)
    }

    fn restore(&mut self, stage: &str, mut checkpoint: Checkpoint, path: &Path) -> Result<usize> {
        let state: TrainingState = checkpoint.config()?;
        if state.stage != stage {
            let message = format!("is the state of stage `{}`, not `{stage}`", state.stage);
            return Err(Error::run(path, message));
        }
        self.check_origin(&state, path)?;
        self.optimiser.restore(&checkpoint, "adamw.", state.step)?;
        if let Some(muon) = &mut self.muon {
            muon.restore(&checkpoint, "muon.")?;
        }
        if let Some(average) = &mut self.average {
            average.restore(&checkpoint, "average.")?;
        }
        checkpoint.tensors.retain(|name, _| name.starts_with("model."));
        self.params.restore(&checkpoint, "model.")?;
        Ok(state.step)
    }

    fn check_origin(&self, state: &TrainingState, path: &Path) -> Result<()> {
        let Some(then) = state.origin.filter(|&then| then != self.origin) else { return Ok(()) };
        let said = |Origin { items, seed: Seed(seed) }| format!("{items} items in the order of seed {seed}");
        Err(Error::run(path, format!("is of a training on {}, not on {}", said(then), said(self.origin))))
    }

    /// Gives the state of worker 0, which has the files, to all.
    pub(crate) fn share(&mut self, stage: &str, workers: &dyn Collective) -> Result<()> {
        if workers.size() == 1 {
            return Ok(());
        }
        let own = if workers.rank() == 0 { self.checkpoint(stage)?.to_bytes()? } else { Vec::new() };
        let shared = workers.broadcast(own)?;
        if workers.rank() != 0 {
            let path = Path::new("(what worker 0 has sent)");
            let checkpoint = Checkpoint::from_bytes(&shared, path, STATE_KIND, &Device::Cpu)?;
            self.restore(stage, checkpoint, path)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}
