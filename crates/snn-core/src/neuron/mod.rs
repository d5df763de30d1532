//! What a neuron is: its equations as data. `ops/lif` computes them.

mod lif;
mod surrogate;

pub(crate) use lif::is_false;
pub use lif::{LifConfig, Reset};
pub use surrogate::Surrogate;
pub(crate) use surrogate::by_surrogate;
