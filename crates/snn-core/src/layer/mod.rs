//! Layers: what a spiking layer is, how layers in a row are run, and what is laid out once for many evaluations.

mod config;
mod drive;
mod neurons;
mod norm;
mod prepared;
mod readout;
mod run;
mod spiking;
mod stack;
mod synapse;

pub use config::{LayerConfig, Norm};
pub use drive::Drive;
pub use neurons::NeuronModel;
pub use prepared::PreparedStack;
pub use readout::ReadoutLayer;
pub use spiking::SpikingLayer;
pub use stack::SpikingStack;
