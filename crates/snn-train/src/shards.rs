//! The shards of one batch, each on a thread of its own, and the thread that speaks for them with other workers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use snn_core::{Exchange, Merge, exchanging};

use crate::error::{Error, Result};
use crate::tree::{Part, Tree, from_bytes, to_bytes};

/// What a shard's thread says to the one that speaks for it.
enum Said {
    /// Numbers, to be merged with those of all shards.
    Give(Vec<f64>, Merge),
    /// It gives nothing more.
    Done,
}

/// One shard's end of the line.
#[derive(Debug)]
struct Line {
    to: Sender<Said>,
    from: Mutex<Receiver<Vec<f64>>>,
    leads: bool,
}

impl Exchange for Line {
    fn merge(&self, own: Vec<f64>, merge: Merge) -> candle_core::Result<Vec<f64>> {
        let gone = || candle_core::Error::msg("another shard of the batch has failed");
        self.to.send(Said::Give(own, merge)).map_err(|_| gone())?;
        self.from.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(|_| gone())
    }

    fn leads(&self) -> bool {
        self.leads
    }
}

/// Says that a thread has ended, whichever way.
struct Ending(Sender<Said>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens any more where a shard has failed.
        let _ = self.0.send(Said::Done);
    }
}

/// The other end.
struct Shard {
    from: Receiver<Said>,
    to: Sender<Vec<f64>>,
}

/// Numbers, and how they are merged.
#[derive(Clone)]
struct Numbers(Vec<f64>, Merge);

impl Part for Numbers {
    fn plus(mut self, next: &Self) -> Result<Self> {
        (self.1)(&mut self.0, &next.0);
        Ok(self)
    }

    fn pack(&self) -> Result<Vec<u8>> {
        Ok(to_bytes(&self.0, f64::to_le_bytes))
    }

    fn unpack(&self, message: &[u8]) -> Result<Self> {
        let numbers = from_bytes(message);
        if numbers.len() != self.0.len() {
            let message = format!("shards exchange {} and {} numbers at once", self.0.len(), numbers.len());
            return Err(candle_core::Error::msg(message).into());
        }
        Ok(Self(numbers, self.1))
    }
}

impl Tree<'_> {
    /// Computes each shard of this worker by `step`, on a thread of its own; what their layers exchange goes through this thread,
    /// the only one that speaks with other workers.
    pub(crate) fn run<T: Send, E: From<Error> + Send>(
        &self,
        step: impl Fn(usize) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let step = &step;
        std::thread::scope(|scope| {
            let (mut shards, mut threads) = (Vec::new(), Vec::new());
            for shard in self.own() {
                let ((up, from), (to, down)) = (channel(), channel());
                let line = Line { to: up.clone(), from: Mutex::new(down), leads: shard == self.own().start };
                let work = move || {
                    let _ending = Ending(up);
                    exchanging(Arc::new(line), || step(shard))
                };
                // As much room as a program's first thread has.
                let builder = std::thread::Builder::new().stack_size(8 << 20);
                let thread = builder.spawn_scoped(scope, work).map_err(candle_core::Error::wrap);
                threads.push(thread.map_err(Error::from)?);
                shards.push(Shard { from, to });
            }
            let spoken = self.speak_for(shards);
            let found = threads.into_iter().map(|thread| thread.join());
            let found: Vec<_> =
                found.map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            match spoken {
                Ok(()) => found.into_iter().collect(),
                // The shard that ended first knows why.
                Err((first, error)) => {
                    Err(found.into_iter().nth(first).and_then(Result::err).unwrap_or(error.into()))
                }
            }
        })
    }

    /// Carries numbers until all shards are done; else says which shard ended, or which lot failed.
    fn speak_for(&self, shards: Vec<Shard>) -> Result<(), (usize, Error)> {
        loop {
            let (mut given, mut done) = (Vec::new(), None);
            for (i, shard) in shards.iter().enumerate() {
                match shard.from.recv() {
                    Ok(Said::Give(numbers, merge)) => given.push(Numbers(numbers, merge)),
                    Ok(Said::Done) | Err(_) => done = done.or(Some(i)),
                }
            }
            if let Some(first) = done {
                let error = || candle_core::Error::msg("shards of a batch exchange different numbers").into();
                return if given.is_empty() { Ok(()) } else { Err((first, error())) };
            }
            if let Some(other) = given.iter().position(|numbers| numbers.0.len() != given[0].0.len()) {
                let lengths = (given[0].0.len(), given[other].0.len());
                let error = candle_core::Error::msg(format!("shards exchange {lengths:?} numbers at once"));
                return Err((usize::MAX, error.into()));
            }
            let all = self.sum(given).map_err(|e| (usize::MAX, e))?;
            for shard in &shards {
                // One that has gone says so in the next round.
                let _ = shard.to.send(all.0.clone());
            }
        }
    }
}
