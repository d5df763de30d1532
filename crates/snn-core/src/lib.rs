#![doc = include_str!("../README.md")]

mod checkpoint;
mod connections;
mod error;
mod init;
mod layer;
mod model;
mod monitor;
mod norm;
mod ops;
mod optim;
mod params;
mod prepared;
mod rng;
mod stack;
mod statistic;
mod surrogate;
mod synapse;
mod time;
mod trace;

pub use candle_nn::VarBuilder;
pub use checkpoint::{Checkpoint, write_atomically};
pub use connections::{Connections, spikes_by_position};
pub use error::{Error, Result};
pub use init::fan_in_bound;
pub use layer::{ReadoutLayer, SpikingLayer};
pub use model::Model;
pub use monitor::{FiringRates, Observer};
pub use ops::batch_norm::{BatchNormed, batch_norm, batch_norm_reference};
pub use ops::conv::{
    ConvConfig, conv_transpose2d, conv_transpose2d_reference, conv2d, conv2d_at, conv2d_reference,
};
pub use ops::lerp::{lerp, lerp_reference};
pub use ops::lif::{LifConfig, Reset, lif, lif_constant, lif_reference, lif_step};
pub use ops::nearest::{nearest, nearest_reference};
pub use optim::{AdamW, AdamWConfig, LrSchedule, clip_gradients};
pub use params::ParamStore;
pub use prepared::PreparedStack;
pub use rng::Seed;
pub use stack::{Drive, SpikingStack};
pub use statistic::statistic;
pub use surrogate::Surrogate;
pub use time::direct_encode;
pub use trace::{
    Readout, firing_rate, psp, psp_distance, psp_distances, psp_distances_reference, rate, straight_through,
};
