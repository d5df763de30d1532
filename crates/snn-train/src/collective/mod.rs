//! Workers of one job: how they speak with each other, whatever carries it.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(any(test, feature = "nccl"))]
mod rendezvous;
mod threads;

use std::fmt::Debug;

#[cfg(feature = "mpi")]
pub use self::mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use threads::in_threads;

use crate::error::Result;

/// Carries messages between the workers of one job, each of which runs the same program: processes of an MPI job or
/// with a GPU each, or [threads](in_threads).
///
/// Messages from one worker to another arrive whole and in order. All that needs an order of sums, such as the gradients of
/// [`Trainer::train_over`](crate::Trainer::train_over), is made of these few, because the sums of a library depend on the
/// number of workers.
///
/// # Examples
/// ```
/// use snn_train::{Alone, Collective};
/// let workers = Alone;
/// assert_eq!((workers.rank(), workers.size()), (0, 1));
/// assert_eq!(workers.broadcast(b"config".to_vec())?, b"config");
/// # Ok::<(), snn_train::Error>(())
/// ```
pub trait Collective: Debug {
    /// The number of this worker, below [`size`](Self::size). Worker 0 is the one that writes files and shows progress.
    fn rank(&self) -> usize;

    /// The number of workers.
    fn size(&self) -> usize;

    /// Sends a message to another worker. It may wait until that one takes it.
    ///
    /// # Errors
    /// Returns an error if the other worker has gone, or if the message is larger than the engine carries.
    fn send(&self, to: usize, message: &[u8]) -> Result<()>;

    /// Waits for the next message of another worker.
    ///
    /// # Errors
    /// Returns an error if the other worker has gone.
    fn receive(&self, from: usize) -> Result<Vec<u8>>;

    /// Sends a message to another worker, which sends one to this one in the same way, and returns that one's. Engines whose
    /// networks carry both at once do so.
    ///
    /// # Errors
    /// Returns the errors of [`send`](Self::send) and of [`receive`](Self::receive).
    fn exchange(&self, with: usize, message: &[u8]) -> Result<Vec<u8>> {
        if self.rank() < with {
            self.send(with, message)?;
            return self.receive(with);
        }
        let received = self.receive(with)?;
        self.send(with, message)?;
        Ok(received)
    }

    /// Gives worker 0's message to all, worker 0 included; what others pass is dropped.
    ///
    /// # Errors
    /// Returns the errors of [`send`](Self::send) and of [`receive`](Self::receive).
    fn broadcast(&self, message: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank() != 0 {
            return self.receive(0);
        }
        (1..self.size()).try_for_each(|to| self.send(to, &message))?;
        Ok(message)
    }

    /// Waits until all workers have come here.
    ///
    /// # Errors
    /// Returns the errors of [`send`](Self::send) and of [`receive`](Self::receive).
    fn barrier(&self) -> Result<()> {
        match self.rank() {
            0 => (1..self.size()).try_for_each(|from| self.receive(from).map(drop))?,
            _ => self.send(0, &[])?,
        }
        self.broadcast(Vec::new()).map(drop)
    }
}

/// The one worker of a job that has no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, to: usize, _: &[u8]) -> Result<()> {
        Err(none(self, to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        Err(none(self, from))
    }
}

/// There is nobody to speak with.
fn none(workers: &dyn Collective, other: usize) -> crate::Error {
    crate::Error::worker(workers, format!("there is no worker {other} to speak with"))
}
