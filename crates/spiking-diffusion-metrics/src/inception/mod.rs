//! Inception v3 as a feature extractor.

mod config;
mod conv;
mod graph;
mod map;
mod network;
mod pool;
mod weights;

pub use config::{InceptionConfig, InceptionLayer, InceptionVariant, PixelScaling};
pub use network::Inception;
pub use weights::InceptionWeights;
