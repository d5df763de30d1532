#![doc = include_str!("../README.md")]

mod chain;
mod config;
mod draws;
mod error;
mod loss;
mod model;

pub use config::{Divergence, FsvaeConfig, ScheduledSampling};
pub use draws::Draws;
pub use error::{Error, Result};
pub use loss::Losses;
pub use model::{Fsvae, Output};
