//! An experiment: its config, its stages, what is measured, and what is done with the networks of a finished run.

pub(crate) mod classifier;
mod command;
mod config;
mod distance;
mod energy;
mod evaluation;
pub mod generation;
mod limits;
mod preset;
mod run;
mod shell;
mod stages;
mod starter;
mod summary;
pub mod sweep;
mod trained;
mod validation;

pub use config::{DataConfig, EvaluationConfig, ExperimentConfig, Preset};
pub use distance::Features;
pub use evaluation::{Evaluation, evaluate};
pub use run::{run_experiment, run_experiment_with};
pub use stages::{Codes, Networks, encode_dataset, generate, train_sdid, train_vqsvae};
pub use trained::Trained;

#[cfg(feature = "cli")]
pub(crate) use {
    distance::{in_8_bits, inception},
    run::run_started,
    shell::quoted,
    starter::Starter,
};
