//! An experiment: its config, its stages, what is measured, and what is done with the networks of a finished run.

mod baselines;
mod batches;
mod budget;
#[cfg(feature = "report")]
mod classes;
pub(crate) mod classifier;
mod clusters;
mod command;
mod config;
mod device;
mod distance;
mod drawing;
mod energy;
mod evaluation;
mod fad;
mod finish;
pub mod generation;
mod inpaint;
pub mod judge;
mod limits;
mod model;
pub mod neighbours;
mod networks;
mod preset;
mod reuse;
mod run;
mod saved;
mod sharing;
mod shell;
mod stages;
mod starter;
mod summary;
pub mod sweep;
mod trained;
mod vae;
mod vae_config;
mod validation;

pub use config::{ClassesFrom, DataConfig, EvaluationConfig, ExperimentConfig, Preset};
pub use distance::Features;
pub use drawing::generate;
pub use evaluation::{Evaluation, evaluate};
pub use fad::FadFiles;
pub use inpaint::{Inpainted, inpaint};
pub use model::ModelName;
pub use networks::{Autoencoder, Networks, SpikingDenoiser};
pub use run::Experiment;
pub use saved::pack;
pub use stages::{
    Classes, Codes, encode_dataset, find_classes, train_autoencoder, train_denoiser, train_sdid, train_vqsvae,
};
pub use trained::{Condition, Trained};
pub use vae::TrainedVae;
pub use vae_config::{VaeConfig, VaeNetwork};

#[cfg(feature = "cli")]
pub(crate) use {
    distance::{in_8_bits, inception},
    preset::GIBBS,
    shell::quoted,
    starter::Starter,
};
