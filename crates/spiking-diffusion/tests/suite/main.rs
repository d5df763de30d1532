//! Data, configs, whole runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod autotraits;
mod classes;
mod config;
mod generation;
mod idx;
mod interrupted;
mod limits;
mod minutes;
mod mnist;
mod models;
mod own;
mod own_autoencoder;
mod pack;
#[cfg(feature = "cli")]
mod program;
mod programs;
mod pytorch;
mod pytorch_fsvae;
mod reuse;
mod robust;
mod run;
mod sets;
mod workers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use spiking_diffusion::absorbing_diffusion::{Order, SamplingConfig};
use spiking_diffusion::data::{Dataset, Split, synthetic_digits};
use spiking_diffusion::vq_svae::Revival;
use spiking_diffusion::{ClassesFrom, ExperimentConfig, Preset};

/// Asserts that this is an error, with each of these parts in its message.
#[track_caller]
fn rejects<T, E: std::fmt::Display>(result: Result<T, E>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, wanted {parts:?}"));
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}

/// An example, where cargo has built it: `cargo test` does, `cargo test --test suite` does not.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn example(name: &str) -> Option<Command> {
    let deps = std::env::current_exe().unwrap();
    let path: PathBuf = deps.parent().unwrap().with_file_name("examples").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not built", path.display());
        return None;
    }
    let mut command = Command::new(path);
    command.env_remove("SPIKING_DATA_DIR").env_remove("SPIKING_INCEPTION");
    Some(command)
}

/// The first of the built-in digits: 160 to train on, 24 to test on.
fn few_digits() -> Dataset {
    static DIGITS: LazyLock<Dataset> = LazyLock::new(draw_few_digits);
    DIGITS.clone()
}

fn draw_few_digits() -> Dataset {
    let all = synthetic_digits().unwrap();
    let first = |split: &Split, n: usize| {
        let pixels = (0..n).flat_map(|i| split.bytes(i).unwrap().to_vec()).collect();
        Split::new(pixels, split.labels()[..n].to_vec(), split.image()).unwrap()
    };
    let data = Dataset::new("few-digits", first(&all.train, 160), first(&all.test, 24)).unwrap();
    Dataset { synthetic: true, ..data }
}

/// A run of ten steps a stage and a checkpoint every third, without clusters: the images are few.
fn tiny(data: &Dataset) -> ExperimentConfig {
    let mut cfg = ExperimentConfig::for_data(Preset::Quick, data).unwrap();
    cfg.vqsvae.time_steps = 2;
    cfg.vqsvae.encoder_channels = [8, 8];
    cfg.vqsvae.decoder_channels = [8, 8];
    cfg.vqsvae.revival = Some(Revival { every: 2, until: 1. });
    cfg.sdid.time_steps = 2;
    cfg.sdid.channels = vec![8; 5];
    (cfg.sdid.classes, cfg.classes_from) = (None, ClassesFrom::Labels);
    for training in [&mut cfg.vqsvae_training, &mut cfg.sdid_training] {
        training.epochs = 2;
        training.checkpoint_every = 3;
    }
    cfg.sampling = SamplingConfig { order: Order::ExactK, temperature: 0.75.into(), ..Default::default() };
    cfg.samples = 5;
    cfg.evaluation.bound_images = 16;
    cfg
}

/// What must be equal between equal runs: every file whose bytes follow from the seed.
const REPRODUCIBLE: [&str; 13] = [
    "config.json",
    "vqsvae.safetensors",
    "codes.safetensors",
    "sdid.safetensors",
    "vqsvae.csv",
    "sdid.csv",
    "reconstructions.png",
    "samples.png",
    "neighbours.png",
    "loss.png",
    "unmasking.gif",
    "codebook.png",
    "firing_rates.png",
];

/// What a run leaves beside them where it finds or draws classes, or measures distances by a classifier.
const IF_ASKED_FOR: [&str; 4] =
    ["clusters.safetensors", "clusters.png", "classes.png", "classifier.safetensors"];

/// A few clusters, where [`tiny`] has none; every preset has some.
fn with_clusters(cfg: &ExperimentConfig) -> ExperimentConfig {
    cfg.with("sdid.classes", "4").unwrap().with("classes_from", "clusters").unwrap()
}

#[track_caller]
fn assert_same_bytes(a: &Path, b: &Path) {
    for name in REPRODUCIBLE {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(read(a) == read(b), "{name} differs");
    }
    for name in IF_ASKED_FOR {
        let read = |folder: &Path| std::fs::read(folder.join(name)).ok();
        assert!(read(a) == read(b), "{name} differs, or one run has none");
    }
}
