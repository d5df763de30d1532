//! An experiment: its config, its stages, what is measured, and what is done with the networks of a finished run.

#[cfg(feature = "report")]
mod classes;
pub(crate) mod classifier;
mod command;
mod config;
mod distance;
mod drawing;
mod energy;
mod evaluation;
mod fad;
pub mod generation;
mod inpaint;
mod limits;
pub mod neighbours;
mod networks;
mod preset;
mod run;
mod saved;
mod shell;
mod stages;
mod starter;
pub mod steps;
mod summary;
pub mod sweep;
mod trained;
mod validation;

pub use config::{DataConfig, EvaluationConfig, ExperimentConfig, Preset};
pub use distance::Features;
pub use evaluation::{Evaluation, evaluate};
pub use fad::FadFiles;
pub use inpaint::{Inpainted, inpaint};
pub use networks::{Networks, SpikingDenoiser};
pub use run::Experiment;
pub use saved::pack;
pub use stages::{Codes, encode_dataset, generate, train_denoiser, train_sdid, train_vqsvae};
pub use trained::{Condition, Trained};

#[cfg(feature = "cli")]
pub(crate) use {
    distance::{in_8_bits, inception},
    shell::quoted,
    starter::Starter,
};
