#![doc = include_str!("../README.md")]

mod classifier;
#[cfg(feature = "cli")]
pub mod cli;
mod config;
pub mod data;
mod distance;
pub mod energy;
pub mod error;
mod evaluate;
mod experiment;
pub mod generation;
mod loss_plot;
pub mod picture;
pub mod plot;
mod preset;
mod report;
mod shell;
mod stages;
mod starter;
pub mod sweep;
mod trained;
mod unmasking;

pub use config::{DataConfig, EvaluationConfig, ExperimentConfig};
pub use distance::{Distance, Features};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, Metrics, evaluate};
pub use experiment::{run_experiment, run_experiment_with};
pub use preset::Preset;
pub use report::{Epochs, Machine, Report};
pub use snn_train::{Progress, RunDir, Silent, TrainingConfig};
pub use stages::{Codes, encode_dataset, generate, train_sdid, train_vqsvae};
pub use trained::Trained;

pub use {absorbing_diffusion, snn_core, snn_train, spiking_diffusion_metrics as metrics, vq_svae};
