//! The training loop that both networks share: batches, steps, checkpoints, exact resume.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_core::{AdamW, Checkpoint, ParamStore, Seed, clip_gradients, write_atomically};

use crate::config::TrainingConfig;
use crate::data::epoch_order;
use crate::error::{Error, Result};
use crate::{Progress, RunDir};

/// What one step of a stage computes.
pub(crate) struct StepLoss {
    /// The scalar to go down.
    pub(crate) loss: Tensor,
    /// The stage's own columns of its CSV.
    pub(crate) columns: Vec<f64>,
}

/// One network's training inside a run.
pub(crate) struct Stage<'a> {
    /// `vqsvae` or `sdid`: names its files and its random streams.
    pub(crate) name: &'a str,
    pub(crate) columns: &'a [&'a str],
    pub(crate) cfg: &'a TrainingConfig,
    pub(crate) seed: Seed,
    pub(crate) items: usize,
    pub(crate) params: &'a ParamStore,
    pub(crate) run: &'a RunDir,
    pub(crate) device: &'a Device,
}

/// Where a stopped training goes on.
#[derive(Serialize, Deserialize)]
struct TrainingState {
    stage: String,
    step: usize,
}

const STATE_KIND: &str = "training-state";

impl Stage<'_> {
    /// Trains from the stage's checkpoint, or from the start, to the end. `step` gets the items of a batch and the
    /// step's number, counted from 0 over all epochs.
    ///
    /// # Errors
    /// Too few items for one batch; a loss or gradient that is not finite (the last checkpoint stays); anything that
    /// cannot be written.
    pub(crate) fn train(
        &self,
        progress: &mut dyn Progress,
        mut step: impl FnMut(&[u32], usize) -> Result<StepLoss>,
    ) -> Result<()> {
        let steps_per_epoch = self.cfg.steps_per_epoch(self.name, self.items)?;
        let total = steps_per_epoch * self.cfg.epochs;
        let mut optimiser = AdamW::new(self.params.trainable(), self.cfg.adamw)?;
        self.restore(&mut optimiser)?;
        let mut csv =
            Csv::open(self.run.file(&format!("{}.csv", self.name)), self.columns, optimiser.steps())?;
        let (clock, before) = (Instant::now(), self.seconds_before(optimiser.steps())?);
        let mut order = Vec::new();
        progress.begin(self.name, total, optimiser.steps());
        while optimiser.steps() < total {
            let now = optimiser.steps();
            let (epoch, at) = (now / steps_per_epoch, now % steps_per_epoch * self.cfg.batch_size);
            if at == 0 || order.is_empty() {
                order = epoch_order(self.seed, self.name, epoch, self.items);
            }
            let StepLoss { loss, columns } = step(&order[at..at + self.cfg.batch_size], now)?;
            let value = self.finite("loss", now, loss.to_dtype(DType::F64)?.to_scalar::<f64>()?)?;
            let mut grads = self.params.gradients(&loss.backward()?)?;
            let norm = self.finite("gradient norm", now, clip_gradients(&mut grads, self.cfg.clip)?)?;
            let factor = self.cfg.schedule.factor(now, total);
            optimiser.step(&grads, factor)?;
            csv.row(
                now,
                epoch,
                &[&[self.cfg.adamw.lr * factor, value], columns.as_slice(), &[norm]].concat(),
            )?;
            progress.advance(now + 1, Some(value));
            if (now + 1) % self.cfg.checkpoint_every == 0 || now + 1 == total {
                csv.flush()?;
                self.save(&optimiser)?;
                self.run.record_seconds(self.name, before + clock.elapsed().as_secs_f64())?;
            }
        }
        progress.end();
        Ok(())
    }

    /// The stage's result is written: its training state is of no more use.
    pub(crate) fn discard_state(&self) -> Result<()> {
        let path = self.state_path();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
            _ => Ok(()),
        }
    }

    fn state_path(&self) -> PathBuf {
        self.run.file(&format!("{}.state.safetensors", self.name))
    }

    fn seconds_before(&self, steps: usize) -> Result<f64> {
        Ok(if steps == 0 { 0. } else { self.run.seconds()?.get(self.name).copied().unwrap_or(0.) })
    }

    /// Parameters, moments and position in one file, so that no kill can leave them apart. Never writes parameters or
    /// statistics that are not finite.
    fn save(&self, optimiser: &AdamW) -> Result<()> {
        for (_, var) in self.params.vars() {
            let sum = var.as_tensor().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            self.finite("sum of a parameter after the update", optimiser.steps() - 1, sum)?;
        }
        let state = TrainingState { stage: self.name.to_owned(), step: optimiser.steps() };
        let mut checkpoint = Checkpoint::new(STATE_KIND, &state)?;
        checkpoint.tensors = self.params.snapshot("model.")?;
        checkpoint.tensors.extend(optimiser.snapshot("adamw."));
        Ok(checkpoint.save(&self.state_path())?)
    }

    fn restore(&self, optimiser: &mut AdamW) -> Result<()> {
        let path = self.state_path();
        if !path.exists() {
            return Ok(());
        }
        let mut checkpoint = Checkpoint::load(&path, STATE_KIND, self.device)?;
        let state: TrainingState = checkpoint.config()?;
        if state.stage != self.name {
            return Err(Error::run(
                &path,
                format!("is the state of stage `{}`, not `{}`", state.stage, self.name),
            ));
        }
        optimiser.restore(&checkpoint, "adamw.", state.step)?;
        checkpoint.tensors.retain(|name, _| name.starts_with("model."));
        Ok(self.params.restore(&checkpoint, "model.")?)
    }

    fn finite(&self, what: &'static str, step: usize, value: f64) -> Result<f64> {
        if value.is_finite() {
            return Ok(value);
        }
        let kept = Some(self.state_path()).filter(|path| path.exists());
        Err(Error::NotFinite { stage: self.name.to_owned(), what, step, value, kept })
    }
}

/// A CSV with a row a step, cut back to the checkpoint on resume.
struct Csv {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Csv {
    fn open(path: PathBuf, columns: &[&str], rows: usize) -> Result<Self> {
        let lines = if rows == 0 {
            vec![[&["step", "epoch", "lr", "loss"], columns, &["grad_norm"]].concat().join(",")]
        } else {
            head(&path, rows + 1).map_err(Error::io(&path))?
        };
        if lines.len() != rows + 1 {
            let found = lines.len().saturating_sub(1);
            return Err(Error::run(
                &path,
                format!("has {found} rows, its stage's checkpoint is at step {rows}"),
            ));
        }
        write_atomically(&path, (lines.join("\n") + "\n").as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, out: BufWriter::new(file) })
    }

    fn row(&mut self, step: usize, epoch: usize, values: &[f64]) -> Result<()> {
        let values: Vec<String> = values.iter().map(|v| format!("{v:.6e}")).collect();
        writeln!(self.out, "{step},{epoch},{}", values.join(",")).map_err(Error::io(&self.path))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().and_then(|()| self.out.get_ref().sync_data()).map_err(Error::io(&self.path))
    }
}

fn head(path: &std::path::Path, lines: usize) -> std::io::Result<Vec<String>> {
    BufReader::new(File::open(path)?).lines().take(lines).collect()
}
