//! What images can be drawn from, and how a folder remembers what its own were.

use std::ops::Range;
use std::path::Path;

use absorbing_diffusion::{Denoiser, SamplingConfig};
use candle_core::{Device, Tensor};
use serde::Serialize;
use serde_json::Value;
use snn_core::Seed;
use snn_train::{most_readable_difference, read_json, write_json};

use super::MANIFEST;
use crate::error::{Error, Result};
use crate::experiment::config::ExperimentConfig;
use crate::experiment::device::Kind;
use crate::experiment::drawing::draw;
use crate::experiment::model::ModelName;
use crate::experiment::networks::Autoencoder;
use crate::experiment::trained::{Condition, Trained};
use crate::experiment::vae::TrainedVae;

/// What the images of a folder follow from.
#[derive(Debug, Serialize)]
struct Manifest {
    networks_sha256: String,
    dataset: String,
    seed: Seed,
    /// But for the batch size, which changes no image.
    #[serde(flatten)]
    sampling: SamplingConfig,
    /// The name of the user's own order, in place of `order`.
    own_order: Option<String>,
    /// The classes, if the images have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Condition>,
}

impl Manifest {
    fn of<D, A>(trained: &Trained<D, A>) -> Self {
        let cfg = &trained.cfg;
        Self {
            networks_sha256: trained.sha256.clone(),
            dataset: cfg.data.name.clone(),
            seed: cfg.seed,
            sampling: cfg.sampling,
            own_order: trained.order.as_ref().map(|own| own.name.clone()),
            condition: trained.condition.clone(),
        }
    }
}

/// Draws images by their numbers: a finished run, of any model.
pub trait Source {
    /// Returns the config of the run, its seed among it.
    fn cfg(&self) -> &ExperimentConfig;

    /// Returns what images follow from beside their numbers, an object: two sources with equal ones draw the same images on a device of one kind.
    ///
    /// # Errors
    /// Returns an error if it cannot be written as JSON.
    fn origin(&self) -> Result<Value>;

    /// Draws images number `images`, in one batch, on the CPU: `[n, channels, H, W]`, pixels meant to lie in [-0.5, 0.5].
    ///
    /// # Errors
    /// Returns an error if the networks do not fit each other.
    fn draw(&self, images: Range<usize>, device: &Device) -> Result<Tensor>;
}

impl<D: Denoiser, A: Autoencoder> Source for Trained<D, A> {
    fn cfg(&self) -> &ExperimentConfig {
        &self.cfg
    }

    fn origin(&self) -> Result<Value> {
        let mut tree = tree(&Manifest::of(self))?;
        tree.as_object_mut().map(|fields| fields.remove("batch_size"));
        Ok(tree)
    }

    fn draw(&self, images: Range<usize>, device: &Device) -> Result<Tensor> {
        draw(&self.cfg, self.networks(), images, device, &mut |_, _| ())
    }
}

/// What the images of a variational autoencoder follow from.
#[derive(Debug, Serialize)]
struct VaeManifest {
    model: ModelName,
    networks_sha256: String,
    dataset: String,
    seed: Seed,
}

impl Source for TrainedVae {
    fn cfg(&self) -> &ExperimentConfig {
        &self.cfg
    }

    fn origin(&self) -> Result<Value> {
        let cfg = &self.cfg;
        let (networks_sha256, dataset) = (self.sha256.clone(), cfg.data.name.clone());
        tree(&VaeManifest { model: cfg.model, networks_sha256, dataset, seed: cfg.seed })
    }

    fn draw(&self, images: Range<usize>, device: &Device) -> Result<Tensor> {
        TrainedVae::draw(self, images, device)
    }
}

fn tree(manifest: &impl Serialize) -> Result<Value> {
    serde_json::to_value(manifest).map_err(|e| Error::config(MANIFEST, "", e.to_string()))
}

/// What images follow from, the kind of the device among it where that is no CPU.
pub(super) fn origin_on(source: &impl Source, device: &Device) -> Result<Value> {
    let mut origin = source.origin()?;
    let kind = Kind::of(device);
    if let Some(fields) = origin.as_object_mut().filter(|_| kind != Kind::CPU) {
        fields.insert("device".to_owned(), kind.device.into());
        fields.insert("precision".to_owned(), kind.precision.into());
    }
    Ok(origin)
}

/// Writes what the images follow from, or compares it with what is there. A field that is not there is as one that is null.
pub(super) fn check_manifest(now: &Value, folder: &Path) -> Result<()> {
    let path = folder.join(MANIFEST);
    if !path.exists() {
        return Ok(write_json(&path, now)?);
    }
    match most_readable_difference(&read_json(&path)?, now) {
        None => Ok(()),
        Some((field, [then, now])) => Err(Error::run(
            folder,
            format!("holds other images: `{field}` is {then} there and {now} here; name another folder"),
        )),
    }
}
