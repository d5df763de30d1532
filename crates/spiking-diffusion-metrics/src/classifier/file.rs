//! A classifier as one `.safetensors` file, its card in the metadata.

use std::path::Path;

use candle_core::{DType, Device};
use snn_core::Checkpoint;

use super::{Classifier, ClassifierCard};
use crate::{Error, Result};

const KIND: &str = "classifier";

impl Classifier {
    /// Writes the weights and the [card](Self::card) to a file. It appears whole or not at all, and the same classifier gives
    /// the same bytes.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use snn_train::Silent;
    /// use spiking_diffusion_metrics::{Classifier, ClassifierConfig, Labelled};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("classifier.safetensors");
    /// let images = Tensor::full(0.4f32, (2, 1, 16, 16), &Device::Cpu)?;
    /// let set = Labelled { images: &images, labels: &[0, 0] };
    /// let cfg = ClassifierConfig { epochs: 1, ..ClassifierConfig::new("grey", 2) };
    /// let classifier = Classifier::train(&cfg, set, set, &mut Silent)?;
    /// classifier.save(&path)?;
    /// assert_eq!(Classifier::load(&path)?.card(), classifier.card());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut checkpoint = Checkpoint::new(KIND, &self.card)?;
        checkpoint.tensors = self.tensors.clone();
        Ok(checkpoint.save(path.as_ref())?)
    }

    /// Reads a classifier from a file that [`save`](Self::save) has written.
    ///
    /// # Errors
    /// Returns an error if the file is missing, damaged or holds something else, or if a tensor is missing, has another
    /// shape or holds a value that is not finite.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::Classifier;
    ///
    /// let error = Classifier::load("no/such/file.safetensors").unwrap_err();
    /// assert!(error.to_string().starts_with("no/such/file.safetensors: "));
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let checkpoint = Checkpoint::load(path, KIND, &Device::Cpu)?;
        let card: ClassifierCard = checkpoint.config()?;
        card.config.validate_for(card.image).map_err(|e| Error::file(path, "config", e))?;
        for (name, tensor) in &checkpoint.tensors {
            let values: Vec<f64> = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::file(path, name, format!("holds {value}")));
            }
            if tensor.dtype() != DType::F32 {
                return Err(Error::file(path, name, format!("expected f32, got {:?}", tensor.dtype())));
            }
        }
        Self::new(card, checkpoint.tensors).map_err(|e| Error::file(path, "archive", e))
    }
}
