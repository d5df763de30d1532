//! The training loop that both networks share: batches, steps, checkpoints, exact resume.

mod csv;
mod state;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use snn_core::{AdamW, ParamStore, Seed, clip_gradients};

use crate::config::TrainingConfig;
use crate::data::epoch_order;
use crate::error::{Error, Result};
use crate::progress::go_on;
use crate::{Progress, RunDir};
use csv::Csv;

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
        self.restore(&mut optimiser, progress)?;
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
            let stop = progress.stop_requested();
            if stop || (now + 1) % self.cfg.checkpoint_every == 0 || now + 1 == total {
                csv.flush()?;
                self.save(&optimiser)?;
                self.run.record_seconds(self.name, before + clock.elapsed().as_secs_f64())?;
                go_on(progress, self.name, now + 1, total)?;
            }
        }
        progress.end();
        Ok(())
    }

    fn finite(&self, what: &'static str, step: usize, value: f64) -> Result<f64> {
        if value.is_finite() {
            return Ok(value);
        }
        let kept = self.states().into_iter().find(|path| path.exists());
        Err(Error::NotFinite { stage: self.name.to_owned(), what, step, value, kept })
    }
}
