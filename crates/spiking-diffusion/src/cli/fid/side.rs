//! One of the two sets: images, features or statistics, and the network between them.

use std::cell::OnceCell;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

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
        once(&self.loaded, || match (self.config, self.weights) {
            (Some(config), _) => {
                Ok(Extractor::Inception(Box::new(Inception::new(config, &self.open(config)?)?)))
            }
            (None, Some(weights)) => Ok(Extractor::Fad(Fad::open(weights)?)),
            (None, None) => {
                let reason =
                    "images need them: mnist_64.pth or fashion_64.pth, as FSVAE's authors publish them";
                Err(Error::config("--weights", "none", reason))
            }
        })
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
enum Given<'a> {
    Stats(FeatureStats),
    Features(TensorFile),
    Images(Box<dyn ImageSource>, &'a Network<'a>),
}

/// One side, which keeps what a network has made of it.
pub(super) struct Side<'a> {
    path: PathBuf,
    given: Given<'a>,
    stats: OnceCell<FeatureStats>,
    features: OnceCell<Tensor>,
}

impl<'a> Side<'a> {
    pub(super) fn open(path: &Path, network: &'a Network<'a>) -> Result<Self> {
        let given = Given::open(path, network)?;
        Ok(Self { path: path.to_owned(), given, stats: OnceCell::new(), features: OnceCell::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its features come from.
    pub(super) fn name(&self, batch: usize) -> Result<String> {
        match &self.given {
            Given::Stats(_) => Ok(format!("statistics {}", self.path.display())),
            Given::Features(_) => Ok(format!("features {}", self.path.display())),
            Given::Images(_, network) => network.name(batch).map_err(|e| self.named(e)),
        }
    }

    pub(super) fn is_stats(&self) -> bool {
        matches!(self.given, Given::Stats(_))
    }

    pub(super) fn is_images(&self) -> bool {
        matches!(self.given, Given::Images(..))
    }

    pub(super) fn stats(&self, batch: usize) -> Result<&FeatureStats> {
        once(&self.stats, || match (&self.given, self.features.get()) {
            (Given::Stats(stats), _) => Ok(stats.clone()),
            (Given::Features(file), _) => {
                Ok(FeatureStats::from_images(&AsTheyAre(file.shape()[1]), file, batch)?)
            }
            (Given::Images(..), Some(features)) => {
                Ok(FeatureStats::from_images(&AsTheyAre(features.dim(1)?), &Rows(features), batch)?)
            }
            (Given::Images(source, network), None) => network.statistics(&Shown::new(source.as_ref()), batch),
        })
        .map_err(|e| self.named(e))
    }

    pub(super) fn features(&self, batch: usize) -> Result<&Tensor> {
        once(&self.features, || match &self.given {
            Given::Stats(_) => Err(Error::data(&self.path, "statistics, not features")),
            Given::Features(file) => Ok(file.read(0, file.count())?),
            Given::Images(source, network) => network.features(&Shown::new(source.as_ref()), batch),
        })
        .map_err(|e| self.named(e))
    }

    /// The error, which says which side it is of.
    fn named(&self, error: Error) -> Error {
        let (path, message) = (self.path.display().to_string(), error.to_string());
        let rest = message.strip_prefix(path.trim_end_matches(MAIN_SEPARATOR));
        match rest.is_some_and(|rest| rest.starts_with([':', MAIN_SEPARATOR])) {
            true => error,
            false => Error::data(&self.path, message),
        }
    }
}

impl<'a> Given<'a> {
    fn open(path: &Path, network: &'a Network<'a>) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Images(Box::new(ImageFolder::open(path)?), network));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("npz") => Ok(Self::Stats(FeatureStats::read_npz(path)?)),
            Some("safetensors") => {
                let file = TensorFile::open(path)?;
                match file.shape() {
                    [_, _] => Ok(Self::Features(file)),
                    [_, _, _, _] => Ok(Self::Images(Box::new(file), network)),
                    got => Err(Error::data(path, format!("expected 2 or 4 axes, got {got:?}"))),
                }
            }
            _ => Err(Error::data(path, "neither a folder, .npz nor .safetensors")),
        }
    }
}

/// What a cell holds; made now if it holds nothing yet.
fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// Features that were made before, a batch at a time.
struct Rows<'a>(&'a Tensor);

impl ImageSource for Rows<'_> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn read(&self, start: usize, count: usize) -> spiking_diffusion_metrics::Result<Tensor> {
        Ok(self.0.narrow(0, start, count)?)
    }
}

/// Features that are there already, so many of them.
struct AsTheyAre(usize);

impl FeatureExtractor for AsTheyAre {
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
