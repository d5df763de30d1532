#![doc = include_str!("../README.md")]

mod error;
mod exchange;
mod geometry;
mod layer;
mod monitor;
mod neuron;
mod ops;
mod room;
mod time;
mod trace;
mod train;

pub use candle_nn::VarBuilder;
pub use error::{Error, Result};
pub use exchange::{Exchange, Merge, exchanging};
pub use geometry::{Connections, ConvConfig, spikes_by_position};
pub use layer::{
    Analog, DescribeLayers, Drive, LayerConfig, LayerDescription, NetworkBuilder, NeuronModel, Norm, Pool,
    PreparedNetwork, PreparedStack, PreparedTokenStack, ReadoutLayer, SewFunction, SpikingLayer,
    SpikingNetwork, SpikingStack, SpikingState, TokenEmbedding,
};
pub use monitor::{FiringRates, Observer};
pub use neuron::{LifConfig, Reset, Surrogate};
pub use ops::batch_norm::{BatchNormed, batch_norm, batch_norm_reference};
pub use ops::conv::{
    conv_transpose2d, conv_transpose2d_reference, conv2d, conv2d_at, conv2d_reference, pick_positions,
};
pub use ops::cross_entropy::{cross_entropy, cross_entropy_reference, softmax_weights};
pub use ops::lerp::{lerp, lerp_reference};
pub use ops::lif::{lif, lif_constant, lif_reference, lif_step, plif_step};
pub use ops::nearest::{nearest, nearest_reference};
pub use ops::precision::Precision;
pub use ops::rows::embedding;
pub use ops::{on_workers, threads};
pub use time::direct_encode;
pub use trace::{
    Readout, firing_rate, psp, psp_distance, psp_distances, psp_distances_reference, rate, straight_through,
};
pub use train::{
    AdamW, AdamWConfig, Average, AveragingConfig, Checkpoint, LrSchedule, Model, Muon, MuonConfig,
    ParamStore, Seed, clip_gradients, fan_in_bound, standard_normal, statistic, write_atomically,
};
