//! What training takes: parameters and where they come from, the optimiser, checkpoints, seeded streams.

mod average;
mod checkpoint;
pub(crate) mod init;
mod model;
mod muon;
mod optim;
mod params;
mod seed;
mod statistic;

pub use average::{Average, AveragingConfig};
pub use checkpoint::{Checkpoint, write_atomically};
pub use init::fan_in_bound;
pub use model::Model;
pub use muon::{Muon, MuonConfig};
pub use optim::{AdamW, AdamWConfig, LrSchedule, clip_gradients};
pub use params::ParamStore;
pub use seed::{Seed, standard_normal};
pub use statistic::statistic;
