#![doc = include_str!("../README.md")]

mod codebook;
mod config;
mod decoder;
mod encoder;
mod error;
mod generator;
mod loss;
mod model;

pub use codebook::CodeUsage;
pub use config::{
    Activation, DenseTerm, ImageSpec, Reconstruction, Reduction, Revival, StraightThrough, VqSvaeConfig,
};
pub use error::{Error, Result};
pub use loss::Losses;
pub use model::{Output, VqSvae};
