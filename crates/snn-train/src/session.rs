//! The training loop: batches in seeded order, steps, checkpoints, exact resume.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Tensor, Var};
use snn_core::{AdamW, Average, Muon, clip_gradients};

use crate::csv::Csv;
use crate::error::{Error, Result};
use crate::state::{Moving, Origin};
use crate::trainer::{Batch, StepLoss, Trainer};
use crate::{Progress, epoch_order};

/// A training in progress.
pub(crate) struct Session<'a> {
    trainer: &'a Trainer<'a>,
    pub(crate) moving: Moving<'a>,
    csv: Option<Csv>,
    steps_per_epoch: usize,
    pub(crate) total: usize,
    /// The items of this epoch.
    order: Vec<u32>,
    clock: Instant,
    /// Seconds that earlier sessions took.
    before: f64,
}

impl<'a> Session<'a> {
    pub(crate) fn open(trainer: &'a Trainer<'a>, progress: &mut dyn Progress) -> Result<Self> {
        let (cfg, name) = (trainer.cfg, trainer.name);
        cfg.validate()?;
        if trainer.items > u32::MAX as usize {
            return Err(Error::config(
                "items",
                trainer.items,
                "must be below 2^32, to be numbered in 32 bits",
            ));
        }
        let (steps_per_epoch, total) = (cfg.steps_per_epoch(trainer.items)?, cfg.steps(trainer.items)?);
        let (muon, rest) = optimised_by_muon(trainer, progress)?;
        let moves = |prefix: &String| rest.iter().any(|(name, _)| name.starts_with(prefix));
        if let Some(prefix) = cfg.rates.keys().find(|prefix| !moves(prefix)) {
            let reason = "no parameter that AdamW moves has a name that begins so";
            return Err(Error::config("rates", prefix, reason));
        }
        let optimiser = AdamW::new(rest, cfg.adamw)?.with_rates(&cfg.rates);
        let average = cfg.average.map(|average| Average::new(trainer.params, average)).transpose()?;
        let origin = Origin { items: trainer.items, seed: trainer.seed };
        let mut moving = Moving { params: trainer.params, optimiser, muon, average, origin };
        let (mut csv, mut before) = (None, 0.);
        if let Some(states) = trainer.states() {
            states.restore(&mut moving, progress)?;
            let (done, run) = (moving.optimiser.steps(), states.run);
            csv = Some(Csv::open(run.file(&format!("{name}.csv")), &trainer.columns, done)?);
            before = if done == 0 { 0. } else { run.seconds()?.get(name).copied().unwrap_or(0.) };
        }
        let (order, clock) = (Vec::new(), Instant::now());
        Ok(Self { trainer, moving, csv, steps_per_epoch, total, order, clock, before })
    }

    pub(crate) fn done(&self) -> usize {
        self.moving.optimiser.steps()
    }

    /// The next batch, unless all steps are done.
    pub(crate) fn next(&mut self) -> Option<Batch<'_>> {
        let Trainer { name, cfg, items, seed, .. } = *self.trainer;
        let step = self.done();
        if step >= self.total {
            return None;
        }
        let (epoch, at) = (step / self.steps_per_epoch, step % self.steps_per_epoch * cfg.batch_size);
        if at == 0 || self.order.is_empty() {
            self.order = epoch_order(seed, name, epoch, items);
        }
        let size = cfg.batch_size;
        Some(Batch { items: &self.order[at..at + size], first: 0, whole: size, step, epoch })
    }

    /// Takes the next step, unless all are done, and returns its loss.
    pub(crate) fn step<E: From<Error>>(
        &mut self,
        step: &mut impl FnMut(Batch<'_>) -> Result<StepLoss, E>,
    ) -> Result<Option<f64>, E> {
        let Some(batch) = self.next() else { return Ok(None) };
        let lot = step(batch)?;
        let (trainer, now) = (self.trainer, self.done());
        // Before its numbers are waited for, a GPU is given the backward pass.
        let gradients = lot.loss.backward().and_then(|grads| trainer.params.gradients(&grads));
        let gradients = gradients.map_err(Error::from)?;
        let numbers = lot.numbers()?;
        let value = trainer.finite("loss", now, numbers[0])?;
        self.descend(value, &numbers[1..], gradients)?;
        Ok(Some(value))
    }

    /// Takes one step of the optimiser down these gradients, by name.
    pub(crate) fn descend(
        &mut self,
        value: f64,
        columns: &[f64],
        mut grads: BTreeMap<String, Tensor>,
    ) -> Result<()> {
        let (trainer, cfg, now) = (self.trainer, self.trainer.cfg, self.done());
        if columns.len() != trainer.columns.len() {
            let reason = format!("a step returns them, and the table has {:?}", trainer.columns);
            return Err(Error::config("columns", columns.len(), reason));
        }
        let norm = trainer.finite("gradient norm", now, clip_gradients(&mut grads, cfg.clip)?)?;
        let factor = cfg.rate(now, self.total);
        self.moving.optimiser.step(&grads, factor)?;
        if let Some(muon) = &mut self.moving.muon {
            muon.step(&grads, factor)?;
        }
        if let Some(average) = &mut self.moving.average {
            average.update(trainer.params, now + 1)?;
        }
        if let Some(csv) = &mut self.csv {
            let values = [&[cfg.adamw.lr * factor, value], columns, &[norm]].concat();
            csv.row(now, now / self.steps_per_epoch, &values)?;
        }
        Ok(())
    }

    /// Writes a checkpoint where one is due, and stops where that was asked for.
    pub(crate) fn keep(&mut self, stop: bool) -> Result<()> {
        let (trainer, done, total) = (self.trainer, self.done(), self.total);
        let due = done.is_multiple_of(trainer.cfg.checkpoint_every) || done == total;
        if !due && !stop {
            return Ok(());
        }
        for (_, var) in trainer.params.vars() {
            let sum = var.as_tensor().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            trainer.finite("sum of a parameter after the update", done - 1, sum)?;
        }
        if let (Some(csv), Some(states)) = (&mut self.csv, trainer.states()) {
            csv.flush()?;
            states.save(&self.moving)?;
            states.run.record_seconds(trainer.name, self.before + self.clock.elapsed().as_secs_f64())?;
        }
        if stop {
            return Err(Error::Stopped { stage: trainer.name.to_owned(), done, total });
        }
        Ok(())
    }

    /// Leaves the parameters as the training is to end.
    pub(crate) fn end(&self, progress: &mut dyn Progress) -> Result<()> {
        if let Some(average) = &self.moving.average {
            average.apply(self.trainer.params)?;
        }
        progress.end();
        Ok(())
    }
}

type Parameters = Vec<(String, Var)>;

/// Shares the trainable parameters out between Muon, where the config wants it, and AdamW. A network of the user's own may have none for
/// Muon.
fn optimised_by_muon(
    trainer: &Trainer<'_>,
    progress: &mut dyn Progress,
) -> Result<(Option<Muon>, Parameters)> {
    let all = trainer.params.trainable();
    let Some(cfg) = &trainer.cfg.muon else { return Ok((None, all)) };
    let (hidden, rest): (Parameters, Parameters) =
        all.into_iter().partition(|(name, var)| cfg.moves(name, var));
    if hidden.is_empty() {
        let (name, prefixes) = (trainer.name, &cfg.parameters);
        progress.message(&format!(
            "{name}: AdamW moves all parameters; Muon none, for none with two dimensions begins with one of {prefixes:?}"
        ));
        return Ok((None, rest));
    }
    Ok((Some(Muon::new(hidden, cfg)?), rest))
}
