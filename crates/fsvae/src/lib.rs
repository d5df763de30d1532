#![doc = include_str!("../README.md")]

mod body;
mod chain;
mod config;
mod draws;
mod error;
mod esvae;
mod loss;
mod model;

pub use body::BodyConfig;
pub use config::{Divergence, FsvaeConfig, ScheduledSampling};
pub use draws::Draws;
pub use error::{Error, Result};
pub use esvae::{Esvae, EsvaeConfig, EsvaeDraws, EsvaeOutput};
pub use loss::Losses;
pub use model::{Fsvae, Output};
