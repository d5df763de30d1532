//! What a run says of itself, and how it is shown: the facts (`report.json`), and with the feature `report` the pages and
//! pictures that are made of them.

pub mod energy;
pub(crate) mod metrics;
pub(crate) mod size;

#[cfg(feature = "report")]
mod charts;
#[cfg(feature = "report")]
mod html;
#[cfg(feature = "report")]
mod loss_plot;
#[cfg(feature = "report")]
mod markdown;
#[cfg(feature = "report")]
mod page;
#[cfg(feature = "report")]
mod pages;
#[cfg(feature = "report")]
pub mod picture;
#[cfg(feature = "report")]
pub mod plot;
#[cfg(feature = "report")]
mod unmasking;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snn_train::RunDir;

use self::energy::Energy;
use self::metrics::Metrics;
use crate::error::Result;

#[cfg(feature = "report")]
pub(crate) use {
    charts::save_codebook,
    loss_plot::{save_losses, save_vae_losses},
    unmasking::Unmasking,
};

impl Epochs {
    /// In words for people: a part of an epoch to one digit.
    #[cfg(any(feature = "cli", feature = "report"))]
    pub(crate) fn in_words(self) -> String {
        let told = |epochs: f64| match epochs.fract() == 0. {
            true => format!("{epochs}"),
            false => format!("{epochs:.1}"),
        };
        match self.sdid {
            0. => format!("{} epochs", told(self.vqsvae)),
            sdid => format!("{} + {} epochs", told(self.vqsvae), told(sdid)),
        }
    }
}

/// Says how long a training was. Steps that end it within an epoch count as the part of it that they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epochs {
    /// Of the autoencoder.
    pub vqsvae: f64,
    /// Of the denoiser; 0 where the model has none.
    pub sdid: f64,
}

/// Reports one finished run: what `report.json` holds and the pages show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the data set.
    pub dataset: String,
    /// Whether it was drawn by a program.
    pub synthetic: bool,
    /// What its files lack of the official ones, if they do.
    #[serde(default)]
    pub partial: Option<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Name of the model; `None` is the paper's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Preset that the config started from; `config.json` has every field.
    pub preset: String,
    /// Passes over the training images.
    pub epochs: Epochs,
    /// Training images used.
    pub train_images: usize,
    /// Test images used.
    pub test_images: usize,
    /// How many of the last training images stood in the place of the test images; 0 where those were the test set.
    #[serde(default)]
    pub held_out: usize,
    /// Generated images.
    pub samples: usize,
    /// Classes that images can be asked of; `None` where the denoiser knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Clusters of training images that the denoiser tells apart; `None` where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// Quality.
    pub metrics: Metrics,
    /// How far samples are from the training images; `None` in reports of older versions.
    #[serde(default)]
    pub neighbours: Option<Neighbours>,
    /// Fraction of neuron-steps with a spike, by layer.
    pub firing_rates: BTreeMap<String, f64>,
    /// Operations and energy beside the same network without spikes; `None` in reports of older versions.
    #[serde(default)]
    pub energy: Option<Energy>,
    /// Wall time by stage, over all sessions of the run.
    pub seconds: BTreeMap<String, f64>,
    /// Images through each stage, a second.
    pub images_per_second: BTreeMap<String, f64>,
    /// Threads, device and program.
    pub machine: Machine,
    /// How the metrics were measured.
    pub protocol: String,
    /// The command that makes this run again, where a program of ours makes it.
    #[serde(default)]
    pub command: Option<String>,
}

/// Says whether samples are copies: how far the first of them are from the nearest training image, and how far as many real images
/// are that are no copies either. Both are means of the root of the mean squared difference of the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// How many samples, and how many test images.
    pub images: usize,
    /// Of the samples.
    pub samples: f64,
    /// Of the test images.
    pub test: f64,
}

impl Report {
    /// Writes `report.json` into the run's folder, and in a build with the feature `report` the pages and the chart of the firing rates, if
    /// there are any.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or a picture of the folder that is there cannot be read.
    pub fn save(&self, run: &RunDir) -> Result<()> {
        run.write_json("report.json", self)?;
        #[cfg(feature = "report")]
        {
            if !self.firing_rates.is_empty() {
                charts::save_firing_rates(self, run)?;
            }
            self.save_pages(run)?;
        }
        Ok(())
    }

    /// The images that it was measured on, for people.
    #[cfg(any(feature = "cli", feature = "report"))]
    pub(crate) fn measured_on(&self) -> String {
        match self.held_out {
            0 => format!("{} test images", self.test_images),
            _ => format!("{} held-out training images", self.test_images),
        }
    }
}

/// What must stand beside numbers that were measured on so many training images in the place of the test images.
#[cfg(feature = "report")]
pub(crate) fn held_out_note(images: usize) -> Option<String> {
    let note = || {
        format!(
            "Held out: the last {images} training images stand in the place of the test images, which this run has not seen."
        )
    };
    (images > 0).then(note)
}

/// Says what the run ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu` or `cuda:N`, with the [`snn_core::Precision`] of its products where that is not f32.
    pub device: String,
    /// Threads it could use.
    pub threads: usize,
    /// Version of this crate.
    pub version: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn here(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            threads: snn_core::threads(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
