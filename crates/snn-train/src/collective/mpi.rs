//! Workers that are processes of an MPI job.

use mpi::Threading;
use mpi::environment::Universe;
use mpi::request::WaitGuard;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, Root, Source};

use super::{Collective, none};
use crate::error::{Error, Result};

/// The workers of an MPI job, such as `mpirun -n 4 program`: one for each process. MPI ends when it is dropped.
pub struct Mpi {
    world: SimpleCommunicator,
    _universe: Universe,
}

impl Mpi {
    /// Joins the job in which this process was started. None where it was started by itself, or has joined before.
    #[must_use]
    pub fn join() -> Option<Self> {
        // Without a launcher MPI would look for one, which takes time and fails on some machines.
        let launched = LAUNCHERS.iter().any(|name| std::env::var_os(name).is_some());
        // The trainer speaks from one thread at a time.
        let (universe, _) = launched.then(|| mpi::initialize_with_threading(Threading::Serialized))??;
        Some(Self { world: universe.world(), _universe: universe })
    }

    /// Ends all workers of the job at once, with this exit code: the way out for one that cannot go on, while others wait for
    /// it.
    pub fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }

    /// Returns the place of this worker among those on its machine, counted from 0: which of the machine's GPUs is its own. All workers
    /// of the job call this together.
    #[must_use]
    pub fn place_on_machine(&self) -> usize {
        self.world.split_shared(self.world.rank()).rank().try_into().unwrap_or(0)
    }

    fn counted(&self, message: &[u8]) -> Result<()> {
        i32::try_from(message.len()).map(drop).map_err(|_| {
            Error::worker(self, format!("a message of {} bytes: MPI counts to 2^31 - 1", message.len()))
        })
    }

    fn other(&self, rank: usize) -> Result<i32> {
        if rank < self.size() && rank != self.rank() { Ok(rank as i32) } else { Err(none(self, rank)) }
    }
}

/// What OpenMPI, MPICH and Slurm tell the processes that they start.
const LAUNCHERS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"];

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} of {} of an MPI job", self.rank(), self.size())
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank().try_into().unwrap_or(0)
    }

    fn size(&self) -> usize {
        self.world.size().try_into().unwrap_or(1)
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        self.counted(message)?;
        self.world.process_at_rank(self.other(to)?).send(message);
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        Ok(self.world.process_at_rank(self.other(from)?).receive_vec::<u8>().0)
    }

    fn exchange(&self, with: usize, message: &[u8]) -> Result<Vec<u8>> {
        self.counted(message)?;
        let other = self.world.process_at_rank(self.other(with)?);
        Ok(mpi::request::scope(|scope| {
            let _sent = WaitGuard::from(other.immediate_send(scope, message));
            other.receive_vec::<u8>().0
        }))
    }

    fn broadcast(&self, mut message: Vec<u8>) -> Result<Vec<u8>> {
        let root = self.world.process_at_rank(0);
        let mut length = message.len() as u64;
        root.broadcast_into(&mut length);
        message.resize(length as usize, 0);
        message.chunks_mut(PIECE).for_each(|piece| root.broadcast_into(piece));
        Ok(message)
    }

    fn barrier(&self) -> Result<()> {
        mpi::traits::CommunicatorCollectives::barrier(&self.world);
        Ok(())
    }
}

/// Bytes that MPI can count.
const PIECE: usize = 1 << 30;
