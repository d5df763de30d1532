//! A classifier as one `.safetensors` file, its card in the metadata.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::{Classifier, ClassifierCard};
use crate::{Error, Result};

/// The one metadata key (one, because safetensors writes several in no fixed order).
const METADATA: &str = "spiking-diffusion";
const KIND: &str = "classifier";

#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    config: ClassifierCard,
}

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
        let path = path.as_ref();
        let header = Header { kind: KIND.to_owned(), config: self.card.clone() };
        let header = serde_json::to_string(&header).map_err(|e| Error::file(path, METADATA, e))?;
        let metadata = HashMap::from([(METADATA.to_owned(), header)]);
        let bytes = safetensors::serialize(&self.tensors, Some(metadata))
            .map_err(|e| Error::file(path, "archive", e))?;
        Ok(snn_core::write_atomically(path, &bytes)?)
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
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let damaged = |e: &dyn std::fmt::Display| Error::file(path, "archive", e);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let card = card(path, metadata.metadata().as_ref().and_then(|all| all.get(METADATA)))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| damaged(&e))?;
        for (name, tensor) in &tensors {
            let values: Vec<f64> = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::file(path, name, format!("holds {value}")));
            }
            if tensor.dtype() != DType::F32 {
                return Err(Error::file(path, name, format!("expected f32, got {:?}", tensor.dtype())));
            }
        }
        Self::new(card, tensors.into_iter().collect()).map_err(|e| damaged(&e))
    }
}

fn card(path: &Path, header: Option<&String>) -> Result<ClassifierCard> {
    let header =
        header.ok_or_else(|| Error::file(path, METADATA, "missing: this is no file of this project"))?;
    let value: serde_json::Value =
        serde_json::from_str(header).map_err(|e| Error::file(path, METADATA, e))?;
    if value["kind"] != KIND {
        return Err(Error::file(path, METADATA, format!("holds a {}, not a \"{KIND}\"", value["kind"])));
    }
    let header = Header::deserialize(value).map_err(|e| Error::file(path, METADATA, e))?;
    header.config.config.validate_for(header.config.image).map_err(|e| Error::file(path, METADATA, e))?;
    Ok(header.config)
}
