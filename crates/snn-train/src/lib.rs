#![doc = include_str!("../README.md")]

mod collective;
mod config;
mod csv;
mod difference;
mod error;
mod json;
mod lock;
mod over;
mod pieces;
mod progress;
mod run;
mod session;
mod shards;
mod shuffle;
mod state;
mod trainer;
mod tree;
mod workers;

#[cfg(feature = "mpi")]
pub use collective::Mpi;
#[cfg(feature = "nccl")]
pub use collective::Nccl;
pub use collective::{Alone, Collective, in_threads};
pub use config::TrainingConfig;
pub use difference::{differences, most_readable_difference};
pub use error::{Error, Result};
pub use lock::Lock;
pub use progress::{Progress, Silent, flow, go_on};
pub use run::{RunDir, claim, read_config, read_json, write_json};
pub use shuffle::epoch_order;
pub use trainer::{Batch, StepLoss, Trainer};
pub use workers::{agree, deal, share_tensor};
