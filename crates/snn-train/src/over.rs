//! Training over many workers: shards of each batch, and gradients summed in a fixed tree.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use snn_core::{Model, ParamStore};

use crate::error::{Error, Result};
use crate::pieces::Pieces;
use crate::session::Session;
use crate::tree::{Part, Tree, from_bytes, to_bytes};
use crate::workers::share;
use crate::{Batch, Collective, Progress, StepLoss, Trainer};

impl Trainer<'_> {
    /// [`train`](Self::train), with the [shards](crate::TrainingConfig::shards) of each batch shared out among workers, all of which
    /// call this with the same values. Any number of them, up to one a shard, leaves the same bytes in all of them.
    ///
    /// `step` gets one shard, and returns the mean over its items; gradients, losses and columns are then those of the whole batch, and
    /// so are the statistics of spiking layers with batch norm ([`snn_core::exchanging`]). Norms of Candle's own see their shard only.
    /// Several shards of one worker are computed at once, on threads, and so `step` must not write what they share: what changes
    /// parameters by other ways than gradients belongs into `before`, which runs before each step, once in each worker, and is given
    /// the number of the step.
    ///
    /// Worker 0 is the one [in a run's folder](Self::in_run): it writes and resumes, and its state is sent to all. A stop that any
    /// worker's `progress` asks for stops all, after the step in which it was asked.
    ///
    /// # Errors
    /// Returns the errors of [`train`](Self::train) and of `before`, and an error if there are more workers than shards, or if another worker has
    /// gone.
    pub fn train_over<E: From<Error> + Send>(
        &self,
        workers: &dyn Collective,
        progress: &mut dyn Progress,
        mut before: impl FnMut(usize) -> Result<(), E> + Send,
        step: impl Fn(Batch<'_>) -> Result<StepLoss, E> + Sync,
    ) -> Result<(), E> {
        let shards = self.cfg.shards.unwrap_or(1);
        if workers.size() > shards {
            let reason = format!("each of the {} workers needs one of a batch's shards", workers.size());
            return Err(Error::config("shards", shards, reason).into());
        }
        if shards == 1 {
            return self.train(progress, |batch| {
                before(batch.step)?;
                step(batch)
            });
        }
        let (params, tree) = (self.params, Tree { workers, shards });
        let mut session = Session::open(self, progress)?;
        session.moving.share(self.name, workers)?;
        progress.begin(self.name, session.total, session.done());
        let device = params.device();
        while let Some(batch) = session.next() {
            before(batch.step)?;
            // On a GPU each thread has a stream of its own: what one has written is there when another reads.
            device.synchronize().map_err(Error::from)?;
            let size = batch.items.len() / shards;
            let of_shard = |shard: usize| -> Result<Lot, E> {
                let first = shard * size;
                let items = &batch.items[first..first + size];
                let made = step(Batch { items, first, ..batch })?;
                let lot = Lot::of(params, &made)?;
                device.synchronize().map_err(Error::from)?;
                Ok(lot)
            };
            let mut own = tree.run(of_shard)?;
            if let Some(lot) = own.first_mut().filter(|_| progress.stop_requested()) {
                lot.numbers[STOP] = 1.;
            }
            let sum = tree.sum_pieces(own)?;
            let mean: Vec<f64> = sum.numbers.iter().map(|number| number / shards as f64).collect();
            let value = self.finite("loss", session.done(), mean[LOSS])?;
            session.descend(value, &mean[COLUMNS..], sum.gradients(params, shards)?)?;
            progress.advance(session.done(), Some(value));
            session.keep(mean[STOP] > 0.)?;
        }
        Ok(session.end(progress)?)
    }

    /// [`train_model`](Self::train_model) over many workers, as [`train_over`](Self::train_over). Worker 0 alone needs a run's folder;
    /// if the trained model is there already, all get its parameters.
    ///
    /// # Errors
    /// Returns the errors of [`train_over`](Self::train_over) and of [`train_model`](Self::train_model).
    pub fn train_model_over<M: Model, E: From<Error> + Send>(
        &self,
        workers: &dyn Collective,
        model: &M,
        progress: &mut dyn Progress,
        before: impl FnMut(usize) -> Result<(), E> + Send,
        step: impl Fn(Batch<'_>) -> Result<StepLoss, E> + Sync,
    ) -> Result<(), E> {
        let result = (workers.rank() == 0).then(|| self.result()).transpose()?;
        let there = result.as_ref().is_some_and(|path| path.exists());
        if workers.broadcast(vec![there.into()])? == [u8::from(true)] {
            result.map_or(Ok(()), |path| self.read(model.kind(), &path))?;
            share(workers, self.params)?;
        } else {
            self.train_over(workers, progress, before, step)?;
            result.map_or(Ok(()), |path| self.write(model, &path))?;
        }
        self.states().map_or(Ok(()), |states| states.discard())?;
        Ok(())
    }
}

/// Where what lies in [`Lot::numbers`].
const STOP: usize = 0;
const LOSS: usize = 1;
const COLUMNS: usize = 2;

/// What comes of a shard, or of several.
#[derive(Clone)]
struct Lot {
    /// Whether a stop is asked for, the loss, the columns. Of pieces of a lot, the first has them.
    numbers: Vec<f64>,
    /// Of all parameters, in the order of their names: one after the other, as long as their types are the same.
    gradients: Vec<Tensor>,
}

impl Lot {
    fn of(params: &ParamStore, step: &StepLoss) -> Result<Self> {
        let flat = params.gradients(&step.loss.backward()?)?.into_values().map(|g| g.flatten_all());
        let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
        let joined = flat.chunk_by(|a, b| a.dtype() == b.dtype()).map(|same| Tensor::cat(same, 0));
        let gradients = joined.collect::<candle_core::Result<_>>()?;
        Ok(Self { numbers: [vec![0.], step.numbers()?].concat(), gradients })
    }

    /// The mean of the gradients of so many shards, by parameter.
    fn gradients(&self, params: &ParamStore, shards: usize) -> Result<BTreeMap<String, Tensor>> {
        let mut trainable = params.trainable();
        trainable.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut means = BTreeMap::new();
        for (same, joined) in trainable.chunk_by(|(_, a), (_, b)| a.dtype() == b.dtype()).zip(&self.gradients)
        {
            let mut from = 0;
            for (name, var) in same {
                let sum = joined.narrow(0, from, var.elem_count())?.reshape(var.shape())?;
                means.insert(name.clone(), sum.affine(1. / shards as f64, 0.)?);
                from += var.elem_count();
            }
        }
        Ok(means)
    }
}

impl Part for Lot {
    fn plus(mut self, next: &Self) -> Result<Self> {
        if self.numbers.len() != next.numbers.len() {
            let reason = format!("as many in each shard, and one returns {}", next.numbers.len());
            return Err(Error::config("columns", self.numbers.len(), reason));
        }
        self.numbers.iter_mut().zip(&next.numbers).for_each(|(sum, next)| *sum += next);
        for (sum, next) in self.gradients.iter_mut().zip(&next.gradients) {
            *sum = (&*sum + next)?;
        }
        Ok(self)
    }

    fn pack(&self) -> Result<Vec<u8>> {
        let mut message = to_bytes(&self.numbers, f64::to_le_bytes);
        for gradient in &self.gradients {
            match gradient.dtype() {
                DType::F32 => message.extend(to_bytes(&gradient.to_vec1()?, f32::to_le_bytes)),
                _ => gradient.write_bytes(&mut message)?,
            }
        }
        Ok(message)
    }

    fn unpack(&self, message: &[u8]) -> Result<Self> {
        let numbers = 8 * self.numbers.len();
        if message.len() != numbers + self.bytes() {
            let message = format!("gradients of {} bytes from a worker with other parameters", message.len());
            return Err(candle_core::Error::msg(message).into());
        }
        let (numbers, mut rest) = message.split_at(numbers);
        let read = |like: &Tensor| {
            let (own, behind) = rest.split_at(bytes(like));
            rest = behind;
            Tensor::from_raw_buffer(own, like.dtype(), like.dims(), &Device::Cpu)?.to_device(like.device())
        };
        let gradients = self.gradients.iter().map(read).collect::<candle_core::Result<_>>()?;
        Ok(Self { numbers: from_bytes(numbers), gradients })
    }
}

impl Pieces for Lot {
    fn bytes(&self) -> usize {
        self.gradients.iter().map(bytes).sum()
    }

    fn cut(&self, pieces: usize) -> Result<Vec<Self>> {
        let piece = |i: usize| {
            let own = |flat: &Tensor| {
                let from = |i: usize| i * flat.elem_count() / pieces;
                flat.narrow(0, from(i), from(i + 1) - from(i))
            };
            let gradients = self.gradients.iter().map(own).collect::<candle_core::Result<_>>()?;
            Ok(Self { numbers: if i == 0 { self.numbers.clone() } else { Vec::new() }, gradients })
        };
        (0..pieces).map(piece).collect()
    }

    fn joined(pieces: &[Self]) -> Result<Self> {
        let flat =
            |i: usize| Tensor::cat(&pieces.iter().map(|piece| &piece.gradients[i]).collect::<Vec<_>>(), 0);
        let gradients = (0..pieces[0].gradients.len()).map(flat).collect::<candle_core::Result<_>>()?;
        Ok(Self { numbers: pieces[0].numbers.clone(), gradients })
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
