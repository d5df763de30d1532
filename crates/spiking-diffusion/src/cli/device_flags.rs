//! Where a program computes, and how exactly.

use candle_core::Device;
use clap::Args;
use snn_core::Precision;

use crate::error::{Error, Result};

/// The flags that say so.
#[derive(Args, Debug)]
pub(super) struct DeviceFlags {
    /// Where to compute: cpu, cuda:N, or cuda: the first GPU, in an MPI job one for each process of a machine
    #[arg(long, default_value = "cpu")]
    device: String,
    /// How exactly a GPU computes products: f32, tf32 (mantissas of 11 bits) or bf16 (of 8)
    #[arg(long, default_value = "f32")]
    precision: Precision,
}

impl DeviceFlags {
    /// The device, on which products are as exact as wanted. `cuda` alone is the GPU of this number.
    pub(super) fn open(&self, own_gpu: impl FnOnce() -> usize) -> Result<Device> {
        let reject = |reason: String| Error::config("--device", &self.device, reason);
        let number = match self.device.split_once(':') {
            None if self.device == "cpu" => None,
            None if self.device == "cuda" => Some(own_gpu()),
            Some(("cuda", number)) => {
                Some(number.parse().map_err(|_| reject("the number of a GPU must follow `cuda:`".into()))?)
            }
            _ => return Err(reject("must be cpu, cuda or cuda:N".into())),
        };
        let inexact = |reason| Error::config("--precision", self.precision.name(), reason);
        let Some(number) = number else {
            return match self.precision {
                Precision::F32 => Ok(Device::Cpu),
                _ => Err(inexact("products are f32 on a CPU: it is for --device cuda".to_owned())),
            };
        };
        let device = Device::new_cuda(number)
            .map_err(|e| reject(format!("{e} (was this built with --features cuda?)")))?;
        self.precision.use_everywhere().map_err(|e| inexact(e.to_string()))?;
        Ok(device)
    }
}
