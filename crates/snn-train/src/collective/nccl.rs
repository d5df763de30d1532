//! Workers that are processes with a GPU each.

#[cfg(test)]
mod tests;

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id};

use super::rendezvous::{find, leave};
use super::{Collective, none};
use crate::error::{Error, Result};

/// The workers of a job of processes with a GPU each, which speak by NVIDIA's NCCL: over NVLink, PCIe or the network.
///
/// Messages lie in the GPU's memory on their way, and wait for what the GPU has been given to do before them. Where a
/// worker dies the others wait for it, so whoever starts the processes must end them all. Dropping it cuts off what is under way:
/// let the workers meet before, by what started them.
pub struct Nccl {
    comm: Comm,
}

impl Nccl {
    /// Joins a job whose workers have met already, those of an MPI job say, each of which calls this with its own GPU.
    ///
    /// # Errors
    /// Returns an error if the device is not a GPU, if NCCL cannot join, or if another worker has gone.
    /// # Examples
    /// ```no_run
    /// use candle_core::Device;
    /// use snn_train::{Alone, Nccl};
    /// let workers = Alone; // or an `Mpi`
    /// let workers = Nccl::through(&workers, &Device::new_cuda(0)?)?;
    /// # Ok::<(), snn_train::Error>(())
    /// ```
    pub fn through(workers: &dyn Collective, device: &Device) -> Result<Self> {
        let place = Place { rank: workers.rank(), size: workers.size() };
        let stream = place.stream(device)?;
        let own = if place.rank == 0 { place.id()?.to_vec() } else { Vec::new() };
        let id = workers.broadcast(own)?.try_into();
        place.join(stream, id.map_err(|_| place.error("worker 0 has sent something else than an NCCL id"))?)
    }

    /// Joins a job of `size` workers as number `rank`, by a file that all can reach and that is not there before. Worker 0
    /// writes it, and removes it when all have joined; the others wait for it, `limit` at most.
    ///
    /// # Errors
    /// Returns an error if there is no such rank, if the file cannot be written, is there already or does not come, if the device is
    /// not a GPU, or if NCCL cannot join.
    pub fn by_file(device: &Device, rank: usize, size: usize, file: &Path, limit: Duration) -> Result<Self> {
        let place = Place { rank, size };
        if rank >= size {
            return Err(place.error("there is no such worker: ranks count from 0"));
        }
        let stream = place.stream(device)?;
        if rank != 0 {
            return place.join(stream, find(file, limit).map_err(|e| place.error(e))?);
        }
        let id = place.id()?;
        leave(file, &id).map_err(|e| place.error(e))?;
        let joined = place.join(stream, id);
        std::fs::remove_file(file).map_err(|e| place.error(Error::io(file)(e)))?;
        joined
    }

    fn other(&self, rank: usize) -> Result<i32> {
        // No rank is larger than NCCL's, which are these numbers.
        if rank < self.size() && rank != self.rank() { Ok(rank as i32) } else { Err(none(self, rank)) }
    }

    fn failed(&self, what: &str, reason: impl ToString) -> Error {
        Error::worker(self, format!("cannot {what}: {}", reason.to_string()))
    }

    /// Bytes in the GPU's memory: at least one, since the driver refuses to allocate nothing.
    fn staged(&self, bytes: &[u8]) -> Result<CudaSlice<u8>> {
        let what = || format!("keep a message of {} bytes on the GPU", bytes.len());
        self.comm.stream().clone_htod(bytes).map_err(|e| self.failed(&what(), e))
    }

    /// Bytes from the GPU's memory, when they are there.
    fn fetched(&self, staged: &CudaSlice<u8>) -> Result<Vec<u8>> {
        let stream = self.comm.stream();
        let bytes = stream.clone_dtoh(staged).and_then(|bytes| stream.synchronize().map(|()| bytes));
        bytes.map_err(|e| self.failed("read a message", e))
    }

    /// A message that another worker's `fill` brings: its length, and then it.
    fn filled(&self, fill: impl Fn(&mut CudaSlice<u8>) -> Result<()>) -> Result<Vec<u8>> {
        let piece = |length: usize| {
            let mut staged = self.comm.stream().alloc_zeros(length).map_err(|e| {
                self.failed(&format!("make room for a message of {length} bytes on the GPU"), e)
            })?;
            fill(&mut staged)?;
            self.fetched(&staged)
        };
        match piece(size_of::<u64>())?.try_into().map(u64::from_le_bytes) {
            Ok(0) | Err(_) => Ok(Vec::new()),
            Ok(length) => piece(length as usize),
        }
    }
}

/// Which worker this is, before it can speak.
struct Place {
    rank: usize,
    size: usize,
}

impl Place {
    fn error(&self, message: impl ToString) -> Error {
        Error::Worker { rank: self.rank, size: self.size, message: message.to_string() }
    }

    fn id(&self) -> Result<[u8; 128]> {
        let id = Id::new().map_err(|e| self.error(format!("NCCL makes no id: {}", said(e))))?;
        Ok(id.internal().map(|byte| byte.to_ne_bytes()[0]))
    }

    fn stream(&self, device: &Device) -> Result<Arc<CudaStream>> {
        match device {
            // Candle's stream is another one in each thread, which NCCL need not take.
            Device::Cuda(device) => Ok(device.cuda_stream().context().default_stream()),
            other => Err(self.error(format!("NCCL speaks between GPUs, not from {:?}", other.location()))),
        }
    }

    fn join(&self, stream: Arc<CudaStream>, id: [u8; 128]) -> Result<Nccl> {
        i32::try_from(self.size).map_err(|_| self.error("NCCL counts workers to 2^31 - 1"))?;
        let id = Id::uninit(id.map(|byte| c_char::from_ne_bytes([byte])));
        let failed = |reason: String| self.error(format!("cannot join by NCCL: {reason}"));
        // NCCL takes the thread's GPU.
        stream.context().bind_to_thread().map_err(|e| failed(e.to_string()))?;
        let comm = Comm::from_rank(stream, self.rank, self.size, id).map_err(|e| failed(said(e)))?;
        Ok(Nccl { comm })
    }
}

/// What NCCL says.
fn said(e: NcclError) -> String {
    format!("{:?} (NCCL_DEBUG=INFO says more)", e.0)
}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} of {} over NCCL, on GPU {}", self.rank(), self.size(), self.comm.ordinal())
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn size(&self) -> usize {
        self.comm.world_size()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        let other = self.other(to)?;
        let failed = |e: String| self.failed(&format!("send {} bytes to worker {to}", message.len()), e);
        for piece in [&(message.len() as u64).to_le_bytes(), message] {
            if !piece.is_empty() {
                self.comm.send(&self.staged(piece)?, other).map_err(|e| failed(said(e)))?;
            }
        }
        self.comm.stream().synchronize().map_err(|e| failed(e.to_string()))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let other = self.other(from)?;
        let failed = |e| self.failed(&format!("receive from worker {from}"), said(e));
        self.filled(|staged| self.comm.recv(staged, other).map(drop).map_err(failed))
    }

    fn broadcast(&self, message: Vec<u8>) -> Result<Vec<u8>> {
        let failed = |e: String| self.failed("take part in a broadcast", e);
        let share = |staged: &mut CudaSlice<u8>| {
            self.comm.broadcast_in_place(staged, 0).map(drop).map_err(|e| failed(said(e)))
        };
        if self.rank() != 0 {
            return self.filled(share);
        }
        for piece in [&(message.len() as u64).to_le_bytes(), message.as_slice()] {
            if !piece.is_empty() {
                share(&mut self.staged(piece)?)?;
            }
        }
        self.comm.stream().synchronize().map_err(|e| failed(e.to_string()))?;
        Ok(message)
    }
}
