//! Workers that are threads of this process, for tests.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Collective, none};
use crate::error::{Error, Result};

/// Runs a job on so many threads of this process, each of which is a worker, and returns what each makes: to try on one machine,
/// without MPI, what many processes would do. A worker that ends early, by an error say, fails whoever waits for it.
///
/// # Panics
/// Panics if a worker does.
/// # Examples
/// ```
/// use snn_train::{Collective, in_threads};
/// let heard = in_threads(3, |workers| workers.broadcast(vec![workers.rank() as u8]).unwrap());
/// assert_eq!(heard, [[0], [0], [0]]);
/// ```
pub fn in_threads<T: Send>(workers: usize, job: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    let job = &job;
    std::thread::scope(|scope| {
        let start = |worker: Worker| {
            scope.spawn(move || {
                // Owned here, so that others hear of it when this worker ends.
                let worker = worker;
                job(&worker)
            })
        };
        let threads: Vec<_> = all(workers).into_iter().map(start).collect();
        let found = threads.into_iter().map(|thread| thread.join());
        found.map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[derive(Debug)]
struct Worker {
    rank: usize,
    /// By the worker at the other end.
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

fn all(size: usize) -> Vec<Worker> {
    let mut workers: Vec<_> =
        (0..size).map(|rank| Worker { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = channel();
            workers[from].to.push(sender);
            workers[to].from.push(receiver);
        }
    }
    workers
}

impl Worker {
    fn gone(&self, other: usize) -> Error {
        Error::worker(self, format!("worker {other} has ended before its time"))
    }
}

impl Collective for Worker {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        let sender = self.to.get(to).ok_or_else(|| none(self, to))?;
        sender.send(message.to_vec()).map_err(|_| self.gone(to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let receiver = self.from.get(from).ok_or_else(|| none(self, from))?;
        receiver.recv().map_err(|_| self.gone(from))
    }
}
