//! One way in which models are saved and loaded.

use std::fmt::Display;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Checkpoint, Error, ParamStore, Seed};

/// A model that a config describes, and that can be saved with it and loaded again.
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
    /// What a checkpoint of this model calls itself.
    const KIND: &'static str;
    /// All that it takes to build one, but for the parameters' values.
    type Config: Serialize + DeserializeOwned;
    /// What can go wrong.
    type Error: From<Error> + From<candle_core::Error> + Display;

    /// Builds the model, creating its parameters in `vb` or finding them there.
    ///
    /// # Errors
    /// Returns an error if the config makes no sense, or if `vb` holds parameters of other shapes.
    fn build(cfg: &Self::Config, vb: VarBuilder<'_>) -> Result<Self, Self::Error>;

    /// The config it was built with.
    fn config(&self) -> &Self::Config;

    /// The checkpoint that [`load`](Self::load) reads, of parameters that this model was built on.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be copied.
    fn checkpoint(&self, params: &ParamStore) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::new(Self::KIND, self.config())?;
        checkpoint.tensors = params.snapshot("")?;
        Ok(checkpoint)
    }

    /// Loads a checkpoint, in f32; its config travels in it.
    ///
    /// # Errors
    /// Returns an error, with the file's name, if the file is missing, damaged or of another model, if its config makes no
    /// sense, or if its tensors do not fit it.
    fn load(path: &Path, device: &Device) -> Result<Self, Self::Error> {
        let checkpoint = Checkpoint::load(path, Self::KIND, device)?;
        let params = ParamStore::new(Seed(0), DType::F32, device);
        let model = Self::build(&checkpoint.config()?, params.builder()).map_err(|e| checkpoint.error(e))?;
        params.restore(&checkpoint, "")?;
        Ok(model)
    }
}
