//! The workers of a program: itself alone, or the processes of the MPI job in which it was started.

use std::process::ExitCode;

use candle_core::Device;
use snn_train::{Alone, Collective};

use super::device_flags::DeviceFlags;
use super::signals::{Signals, Stoppable};
use super::{failed, say};
use crate::error::{Error, Result};

/// Joined by a program as it starts, left as it ends.
pub(super) struct Team {
    /// Over NCCL, once all have joined it; cut off before the job that they met in.
    #[cfg(feature = "nccl")]
    on_gpus: std::cell::OnceCell<snn_train::Nccl>,
    #[cfg(feature = "mpi")]
    job: Option<snn_train::Mpi>,
    signals: Signals,
}

impl Team {
    pub(super) fn join() -> Self {
        #[cfg(feature = "mpi")]
        let job = snn_train::Mpi::join();
        Self {
            #[cfg(feature = "nccl")]
            on_gpus: std::cell::OnceCell::new(),
            #[cfg(feature = "mpi")]
            job,
            signals: Signals::listen(),
        }
    }

    #[cfg(feature = "mpi")]
    pub(super) fn workers(&self) -> &dyn Collective {
        self.job.as_ref().map_or(&Alone, |job| job)
    }

    #[cfg(not(feature = "mpi"))]
    pub(super) fn workers(&self) -> &dyn Collective {
        &Alone
    }

    /// Where to compute; on `cuda`, by the GPU that is this worker's among those on its machine.
    pub(super) fn device(&self, flags: &DeviceFlags) -> Result<Device> {
        #[cfg(feature = "mpi")]
        let own_gpu = || self.job.as_ref().map_or(0, snn_train::Mpi::place_on_machine);
        #[cfg(not(feature = "mpi"))]
        let own_gpu = || 0;
        flags.open(own_gpu)
    }

    /// The workers of what is computed on this device. With the feature `nccl` those of a job on GPUs, where each calls this, speak over
    /// NCCL.
    pub(super) fn workers_on(&self, device: &Device) -> Result<&dyn Collective> {
        #[cfg(feature = "nccl")]
        if device.is_cuda() && self.workers().size() > 1 {
            let joined = snn_train::Nccl::through(self.workers(), device)?;
            return Ok(self.on_gpus.get_or_init(|| joined));
        }
        let _ = device;
        Ok(self.workers())
    }

    pub(super) fn leads(&self) -> bool {
        self.workers().rank() == 0
    }

    /// What listens: worker 0 shows, all hear signals.
    pub(super) fn progress(&self) -> Stoppable {
        if self.leads() { self.signals.progress() } else { self.signals.silent() }
    }

    /// A line for a person, once.
    pub(super) fn say(&self, text: &str) {
        if self.leads() {
            say(text);
        }
    }

    /// Says what came of it, `advice` where a signal ended it, and ends the other workers where this one failed.
    pub(super) fn end(&self, result: Result<()>, advice: &str) -> ExitCode {
        // NCCL cuts off what is under way when the first one leaves.
        #[cfg(feature = "nccl")]
        let result = match self.on_gpus.get() {
            Some(_) => result.and_then(|()| Ok(self.workers().barrier()?)),
            None => result,
        };
        let Err(e) = result else { return ExitCode::SUCCESS };
        let (rank, size) = (self.workers().rank(), self.workers().size());
        let code = match &e {
            _ if rank == 0 => self.signals.failure(&e, advice),
            // All workers meet these in the same step; worker 0, which has the checkpoints, says it and ends the job.
            Error::Training(snn_train::Error::Stopped { .. } | snn_train::Error::NotFinite { .. }) => {
                return ExitCode::FAILURE;
            }
            Error::Training(snn_train::Error::Worker { .. }) => self.signals.failure(&e, advice),
            _ => failed(&format!("worker {rank} of {size}: {e}")),
        };
        #[cfg(feature = "mpi")]
        if let Some(job) = self.job.as_ref().filter(|_| size > 1) {
            job.abort(1);
        }
        code
    }
}
