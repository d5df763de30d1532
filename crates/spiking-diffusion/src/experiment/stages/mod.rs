//! The stages of a run up to its samples: train the VQ-SVAE, encode, train the denoiser.
//!
//! Each reads only what the stages before it have written into the run's folder, and does nothing where its own
//! result is already there. With many workers, all run the same stages; worker 0 has the folder.

mod autoencoder;
mod classes;
mod codes;
mod denoiser;

use candle_core::Device;
use snn_train::{Alone, Collective, RunDir, Trainer};

use crate::error::Result;

pub(super) use autoencoder::train_vqsvae_in;
pub use autoencoder::{train_autoencoder, train_vqsvae};
pub use classes::{Classes, find_classes};
pub(super) use classes::{find_classes_in, seconds_to_find};
pub(super) use codes::{CODES, CODES_KIND, encode, encode_with};
pub use codes::{Codes, encode_dataset};
pub(super) use denoiser::train_sdid_in;
pub use denoiser::{train_denoiser, train_sdid};

/// Where a stage runs: with these workers, the first of which has the run's folder, on this device.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) workers: &'a dyn Collective,
    pub(super) run: Option<&'a RunDir>,
    pub(super) device: &'a Device,
}

impl<'a> Place<'a> {
    fn alone(run: &'a RunDir, device: &'a Device) -> Self {
        Self { workers: &Alone, run: Some(run), device }
    }

    fn trainer<'b>(self, trainer: Trainer<'b>) -> Trainer<'b>
    where
        'a: 'b,
    {
        match self.run {
            Some(run) => trainer.in_run(run),
            None => trainer,
        }
    }

    /// What worker 0 says of its folder, to all.
    fn there(self, file: &str) -> Result<bool> {
        let there = self.run.is_some_and(|run| run.file(file).exists());
        Ok(self.workers.broadcast(vec![there.into()])? == [u8::from(true)])
    }
}
