//! Layers: what a spiking layer is, how layers in a row are run, what is laid out once for many evaluations, and whole networks.

mod analog;
mod check;
mod config;
mod describe;
mod drive;
mod lookup;
mod module;
mod network;
mod neurons;
mod norm;
mod pool;
mod prepared;
mod readout;
mod residual;
mod run;
mod spiking;
mod stack;
mod state;
mod synapse;

pub use analog::Analog;
pub use config::{LayerConfig, Norm};
pub use describe::{DescribeLayers, LayerDescription};
pub use drive::Drive;
pub use lookup::{PreparedTokenStack, TokenEmbedding};
pub use network::{NetworkBuilder, PreparedNetwork, SpikingNetwork};
pub use neurons::NeuronModel;
pub use pool::Pool;
pub use prepared::PreparedStack;
pub use readout::ReadoutLayer;
pub use residual::SewFunction;
pub use spiking::SpikingLayer;
pub use stack::SpikingStack;
pub use state::SpikingState;
