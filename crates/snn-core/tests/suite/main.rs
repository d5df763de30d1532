//! Golden files, layers and stacks as a user sees them, parameters, checkpoints, configs.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod checkpoint;
mod common;
mod config;
mod golden_adamw;
mod golden_batch_norm;
mod golden_conv;
mod golden_layers;
mod golden_lif;
mod golden_muon;
mod golden_network;
mod golden_neurons;
mod golden_surrogate;
mod golden_trace;
mod layer;
mod network;
mod params;
mod positions;
mod stack;
mod statistics;
mod step;
mod trace;
