//! One way in which models are saved and loaded.

use std::fmt::Display;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Checkpoint, Error, ParamStore, Seed};

/// Saves a model together with the config that describes it, and loads it again from the file alone.
///
/// A model says how it is built from its config; saving and loading follow from that.
///
/// # Examples
/// ```
/// use candle_core::{DType, Device};
/// use snn_core::{LifConfig, Model, ParamStore, Seed, SpikingLayer, VarBuilder};
///
/// struct Net(SpikingLayer, usize);
///
/// impl Model for Net {
///     const KIND: &'static str = "net";
///     type Config = usize;
///     type Error = snn_core::Error;
///     fn build(width: &usize, vb: VarBuilder<'_>) -> snn_core::Result<Self> {
///         Ok(Self(SpikingLayer::linear(2, *width, LifConfig::default(), vb)?, *width))
///     }
///     fn config(&self) -> &usize {
///         &self.1
///     }
/// }
///
/// # fn main() -> snn_core::Result<()> {
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let net = Net::build(&8, params.builder())?;
/// let folder = tempfile::tempdir().unwrap();
/// let file = folder.path().join("net.safetensors");
/// net.checkpoint(&params)?.save(&file)?;
/// assert_eq!(Net::load(&file, &Device::Cpu)?.config(), &8);
/// # Ok(()) }
/// ```
pub trait Model: Sized {
    /// The [kind](Checkpoint::kind) of this model's checkpoints, by which files of other models are told apart.
    const KIND: &'static str;
    /// Everything that is needed to build the model, except the values of its parameters.
    type Config: Serialize + DeserializeOwned;
    /// The error of building and loading the model.
    type Error: From<Error> + From<candle_core::Error> + Display;

    /// Builds the model, whose parameters are created in `vb` or found there.
    ///
    /// # Errors
    /// Returns an error if the config makes no sense, or if `vb` holds parameters of other shapes.
    fn build(cfg: &Self::Config, vb: VarBuilder<'_>) -> Result<Self, Self::Error>;

    /// The config that the model was built with.
    fn config(&self) -> &Self::Config;

    /// Returns the kind of this very model's checkpoints. By default it is [`KIND`](Self::KIND); a model that was changed after it was built, into
    /// one that its config does not describe, has another, so that [`load`](Self::load) refuses its files.
    fn kind(&self) -> &str {
        Self::KIND
    }

    /// Makes a checkpoint of this [kind](Self::kind), as [`load`](Self::load) reads it; `params` is the store that this model was built on.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be copied or the config cannot be written as JSON.
    fn checkpoint(&self, params: &ParamStore) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::new(self.kind(), self.config())?;
        checkpoint.tensors = params.snapshot("")?;
        Ok(checkpoint)
    }

    /// Builds a model of this config in f32 with the parameters named `<prefix><name>` of a checkpoint, which may hold those of
    /// other models as well.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the config makes no sense, or if the tensors do not fit it.
    fn from_checkpoint(
        cfg: &Self::Config,
        checkpoint: &Checkpoint,
        prefix: &str,
        device: &Device,
    ) -> Result<Self, Self::Error> {
        let params = ParamStore::new(Seed(0), DType::F32, device);
        let model = Self::build(cfg, params.builder()).map_err(|e| checkpoint.error(e))?;
        params.restore(checkpoint, prefix)?;
        Ok(model)
    }

    /// Loads a model in f32 from a checkpoint, which also holds its config.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the file is missing, damaged or of another model, if its config makes no
    /// sense, or if its tensors do not fit the config.
    fn load(path: &Path, device: &Device) -> Result<Self, Self::Error> {
        let checkpoint = Checkpoint::load(path, Self::KIND, device)?;
        Self::from_checkpoint(&checkpoint.config()?, &checkpoint, "", device)
    }
}
