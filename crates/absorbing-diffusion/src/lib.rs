#![doc = include_str!("../README.md")]

mod canvas;
mod categorical;
mod classes;
mod denoiser;
mod elbo;
mod error;
mod gibbs;
mod halton;
mod host;
mod input;
mod loss;
mod masked;
mod order;
mod prepared;
mod process;
mod reveal;
mod sample;
mod schedule;
mod sdid;
mod sdid_config;

pub use classes::{Conditioned, drop_labels};
pub use denoiser::{Denoiser, FromFn, LogitsAt, NoisyCodes, from_fn};
pub use elbo::{BitsPerToken, ElboConfig, bits_per_token};
pub use error::{Error, Result};
pub use loss::{Weighting, draw_noise, loss};
pub use order::Order;
pub use process::AbsorbingProcess;
pub use rand::RngCore;
pub use reveal::{Draft, Drawn, RevealOrder, Settled};
pub use sample::{Sampler, SamplingConfig};
pub use schedule::Schedule;
pub use sdid::Sdid;
pub use sdid_config::{HeadReads, SdidConfig, TokenInput};
