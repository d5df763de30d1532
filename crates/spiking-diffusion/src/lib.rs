#![doc = include_str!("../README.md")]

#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod error;
mod experiment;
pub mod pytorch;
mod report;

pub use error::{Error, Result};
pub use experiment::{
    Autoencoder, Classes, ClassesFrom, Codes, Condition, DataConfig, Evaluation, EvaluationConfig,
    Experiment, ExperimentConfig, FadFiles, Features, Inpainted, ModelName, Networks, Preset,
    SpikingDenoiser, Trained, TrainedVae, VaeConfig, VaeNetwork, encode_dataset, evaluate, find_classes,
    generate, generation, inpaint, judge, neighbours, pack, sweep, train_autoencoder, train_denoiser,
    train_sdid, train_vqsvae,
};
pub use report::metrics::{Distance, Metrics};
pub use report::{Epochs, Machine, Neighbours, Report, energy};
#[cfg(feature = "report")]
pub use report::{picture, plot};
pub use snn_train::{Progress, RunDir, Silent, TrainingConfig};

pub use {absorbing_diffusion, fsvae, snn_core, snn_train, spiking_diffusion_metrics as metrics, vq_svae};
