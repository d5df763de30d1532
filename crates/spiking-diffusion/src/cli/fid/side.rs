//! One of the two sets: images, features or statistics, and the network between them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use indicatif::ProgressBar;
use spiking_diffusion_metrics::{
    Fad, FeatureExtractor, FeatureStats, ImageFolder, ImageSource, Inception, InceptionConfig,
    InceptionVariant, InceptionWeights, TensorFile, extract_batches,
};

use crate::error::{Error, Result};

/// What makes features of images.
enum Extractor {
    Inception(Box<Inception>),
    Fad(Fad),
}

/// A network, loaded when the first image needs it.
pub(super) struct Network<'a> {
    /// None: that of FAD.
    config: Option<InceptionConfig>,
    weights: Option<&'a Path>,
    download: bool,
    loaded: OnceCell<Extractor>,
}

impl<'a> Network<'a> {
    pub(super) fn inception(config: InceptionConfig, weights: Option<&'a Path>, download: bool) -> Self {
        Self { config: Some(config), weights, download, loaded: OnceCell::new() }
    }

    pub(super) fn fad(weights: Option<&'a Path>) -> Self {
        Self { config: None, weights, download: false, loaded: OnceCell::new() }
    }

    fn get(&self) -> Result<&Extractor> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = match (self.config, self.weights) {
            (Some(config), _) => Extractor::Inception(Box::new(Inception::new(config, &self.open(config)?)?)),
            (None, Some(weights)) => Extractor::Fad(Fad::open(weights)?),
            (None, None) => {
                let reason =
                    "images need them: mnist_64.pth or fashion_64.pth, as FSVAE's authors publish them";
                return Err(Error::config("--weights", "none", reason));
            }
        };
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn name(&self, batch: usize) -> Result<String> {
        Ok(match self.get()? {
            Extractor::Inception(network) => network.name(),
            Extractor::Fad(network) => network.name(batch),
        })
    }

    fn statistics(&self, images: &dyn ImageSource, batch: usize) -> Result<FeatureStats> {
        Ok(match self.get()? {
            Extractor::Inception(network) => FeatureStats::from_images(&**network, images, batch)?,
            Extractor::Fad(network) => network.statistics(images, batch)?,
        })
    }

    fn features(&self, images: &dyn ImageSource, batch: usize) -> Result<Tensor> {
        Ok(match self.get()? {
            Extractor::Inception(network) => extract_batches(&**network, images, batch)?,
            Extractor::Fad(network) => network.features(images, batch)?,
        })
    }

    fn open(&self, config: InceptionConfig) -> Result<InceptionWeights> {
        match self.weights {
            Some(path) => Ok(InceptionWeights::open(path)?),
            None if self.download && config.variant == InceptionVariant::Fid => download(),
            None => {
                let reason = "images need them, or --download: pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or the same \
                    tensors as .safetensors (--protocol paper: torchvision's inception_v3_google-0cc3c7bd.pth)";
                Err(Error::config("--weights", "none", reason))
            }
        }
    }
}

#[cfg(feature = "download")]
fn download() -> Result<InceptionWeights> {
    let bar = ProgressBar::no_length();
    let weights = InceptionWeights::download(&mut |got, of| {
        bar.set_length(of.unwrap_or(got));
        bar.set_position(got);
        std::ops::ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(weights?)
}

#[cfg(not(feature = "download"))]
fn download() -> Result<InceptionWeights> {
    Err(crate::cli::input::no_downloads())
}

/// What one side is given as.
pub(super) enum Side<'a> {
    Stats(PathBuf, FeatureStats),
    Features(PathBuf, TensorFile),
    Images(Box<dyn ImageSource>, &'a Network<'a>),
}

impl<'a> Side<'a> {
    pub(super) fn open(path: &Path, network: &'a Network<'a>) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Images(Box::new(ImageFolder::open(path)?), network));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("npz") => Ok(Self::Stats(path.to_owned(), FeatureStats::read_npz(path)?)),
            Some("safetensors") => {
                let file = TensorFile::open(path)?;
                match file.shape() {
                    [_, _] => Ok(Self::Features(path.to_owned(), file)),
                    [_, _, _, _] => Ok(Self::Images(Box::new(file), network)),
                    got => Err(Error::data(path, format!("expected 2 or 4 axes, got {got:?}"))),
                }
            }
            _ => Err(Error::data(path, "neither a folder, .npz nor .safetensors")),
        }
    }

    /// Where its features come from.
    pub(super) fn name(&self, batch: usize) -> Result<String> {
        Ok(match self {
            Self::Stats(path, _) => format!("statistics {}", path.display()),
            Self::Features(path, _) => format!("features {}", path.display()),
            Self::Images(_, network) => network.name(batch)?,
        })
    }

    pub(super) fn is_stats(&self) -> bool {
        matches!(self, Self::Stats(..))
    }

    pub(super) fn stats(&self, batch: usize) -> Result<FeatureStats> {
        match self {
            Self::Stats(_, stats) => Ok(stats.clone()),
            Self::Features(_, file) => Ok(FeatureStats::from_images(&Given(file.shape()[1]), file, batch)?),
            Self::Images(source, network) => network.statistics(&Shown::new(source.as_ref()), batch),
        }
    }

    pub(super) fn features(&self, batch: usize) -> Result<Tensor> {
        match self {
            Self::Stats(path, _) => Err(Error::data(path, "statistics, not features")),
            Self::Features(_, file) => Ok(file.read(0, file.count())?),
            Self::Images(source, network) => network.features(&Shown::new(source.as_ref()), batch),
        }
    }
}

/// Features that are there already, so many of them.
struct Given(usize);

impl FeatureExtractor for Given {
    fn name(&self) -> String {
        "given features".into()
    }

    fn dims(&self) -> usize {
        self.0
    }

    fn extract(&self, features: &Tensor) -> spiking_diffusion_metrics::Result<Tensor> {
        Ok(features.clone())
    }
}

/// A source behind a progress bar.
struct Shown<'a>(&'a dyn ImageSource, ProgressBar);

impl<'a> Shown<'a> {
    fn new(source: &'a dyn ImageSource) -> Self {
        Self(source, ProgressBar::new(source.count() as u64))
    }
}

impl ImageSource for Shown<'_> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn read(&self, start: usize, count: usize) -> spiking_diffusion_metrics::Result<Tensor> {
        self.1.set_position(start as u64);
        self.0.read(start, count)
    }

    fn read_sizes(&self, start: usize, count: usize) -> spiking_diffusion_metrics::Result<Vec<Tensor>> {
        self.1.set_position(start as u64);
        self.0.read_sizes(start, count)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.1.finish_and_clear();
    }
}
