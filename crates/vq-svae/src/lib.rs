#![doc = include_str!("../README.md")]

mod choices;
mod codebook;
mod config;
mod decoder;
mod encoder;
mod error;
mod generator;
mod loss;
mod model;

pub use choices::{Activation, DenseTerm, Reconstruction, Reduction, StraightThrough, WithoutSpikes};
pub use codebook::CodeUsage;
pub use config::{ImageSpec, Revival, VqSvaeConfig};
pub use error::{Error, Result};
pub use loss::Losses;
pub use model::{Output, VqSvae};
