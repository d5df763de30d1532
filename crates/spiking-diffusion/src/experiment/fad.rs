//! FAD of a run's samples: the distance that papers on spiking generators publish.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use snn_train::{Progress, go_on};
use spiking_diffusion_metrics::{FAD_BATCH, Fad, FeatureStats, frechet_distance};

use crate::error::{Error, Result};
use crate::report::metrics::AutoencoderDistance;

/// Names the files that FAD is measured by, as FSVAE's authors publish them: a network, and the statistics of the test images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FadFiles {
    folder: PathBuf,
    /// The autoencoder's weights.
    network: PathBuf,
    /// The statistics of the test images.
    statistics: PathBuf,
}

const STAGE: &str = "fad";

impl FadFiles {
    /// The published files of a data set in a folder: `mnist_64.pth` and `mnist_test_64.npz`, or `fashion_64.pth` and
    /// `fashion_test_64.npz`.
    ///
    /// # Errors
    /// Returns an error if nothing is published for the data set (there are networks for `mnist` and `fashion-mnist`), or if the
    /// folder has not both files.
    pub fn in_folder(folder: &Path, dataset: &str) -> Result<Self> {
        let [network, statistics] = published(dataset)?.map(|(name, ..)| folder.join(name));
        if let Some(missing) = [&network, &statistics].into_iter().find(|file| !file.is_file()) {
            return Err(Error::run(missing, "is not there; FSVAE's authors publish it"));
        }
        Ok(Self { folder: folder.to_owned(), network, statistics })
    }

    /// The published files of a data set in the user's cache, into which they are first loaded from the repository of FSVAE's
    /// authors (3.7 MB).
    ///
    /// # Errors
    /// Returns an error if nothing is published for the data set, if the files cannot be loaded or are not those that this program
    /// knows, or if a stop was asked for.
    #[cfg(feature = "download")]
    pub fn download(dataset: &str, progress: &mut dyn Progress) -> Result<Self> {
        use crate::data::download::load_file;
        use spiking_diffusion_metrics::download::{Limits, cache_dir};
        let folder = cache_dir()?.join("fad");
        for ((name, bytes, sha256), from) in published(dataset)?.into_iter().zip(FOLDERS) {
            let url = format!("{from}/{name}");
            load_file(&Limits::default(), &url, (bytes, sha256), &folder.join(name), progress)?;
        }
        Self::in_folder(&folder, dataset)
    }

    /// Returns the folder that holds them.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Loads the network and the statistics.
    ///
    /// # Errors
    /// Returns an error, with the file, if one cannot be read or if they do not belong together.
    pub(super) fn open(&self) -> Result<Published> {
        let network = Fad::open(&self.network)?.with_range([-0.5, 0.5]);
        let statistics = FeatureStats::read_npz(&self.statistics)?;
        if network.dims() != statistics.dims() {
            let message = format!("has {} features, the network {}", statistics.dims(), network.dims());
            return Err(Error::run(&self.statistics, message));
        }
        Ok(Published { network, statistics })
    }
}

/// A published file: its name, its length and its SHA-256.
type File = (&'static str, u64, &'static str);

const MNIST: [File; 2] = [
    ("mnist_64.pth", 3_700_765, "783abf13264663769f4936b30902adeb29dfda02a862bd9c8c5c8098e464333b"),
    ("mnist_test_64.npz", 21_475, "5d4dd72f345b4337af8ca3432dcf53e4b4b6e8f218aace6abd26dd0181473f20"),
];
const FASHION_MNIST: [File; 2] = [
    ("fashion_64.pth", 3_700_765, "234f4335d9da9417abcede41f0a4d4663ba91ee46f67cdd160b62d7a200689e8"),
    ("fashion_test_64.npz", 21_423, "c3a0b1ff9340f947d8316d33d0f27cd5a565c007bc63ebdd88de0ff91f558645"),
];
/// Where the networks lie, and where the statistics.
#[cfg(feature = "download")]
const FOLDERS: [&str; 2] = [
    "https://raw.githubusercontent.com/kamata1729/FullySpikingVAE/b9d1fbd39ad76709949f54ac6a46dccf4041b58f/metrics/stat_checkpoints",
    "https://raw.githubusercontent.com/kamata1729/FullySpikingVAE/86f2e6bfcba18f081a6f9e7e28b907b02cedba1f/metrics/stats",
];

/// The published network and statistics of a data set.
fn published(dataset: &str) -> Result<[File; 2]> {
    match dataset {
        "mnist" => Ok(MNIST),
        "fashion-mnist" => Ok(FASHION_MNIST),
        _ => Err(Error::config("fad", dataset, "has no published network: mnist and fashion-mnist have")),
    }
}

/// What FAD is measured by.
pub(super) struct Published {
    network: Fad,
    statistics: FeatureStats,
}

impl Published {
    /// The distances of generated images and of test reconstructions, both in [-0.5, 0.5], to the published statistics.
    pub(super) fn measure(
        &self,
        generated: &Tensor,
        reconstructions: &Tensor,
        progress: &mut dyn Progress,
    ) -> Result<AutoencoderDistance> {
        progress.begin(STAGE, 2, 0);
        let fad = self.distance(generated)?;
        progress.advance(1, None);
        go_on(progress, STAGE, 1, 2)?;
        let reconstruction_fad = self.distance(reconstructions)?;
        progress.advance(2, None);
        progress.end();
        Ok(AutoencoderDistance {
            fad,
            reconstruction_fad,
            generated_images: generated.dim(0)?,
            network: self.network.name(FAD_BATCH),
        })
    }

    fn distance(&self, images: &Tensor) -> Result<f64> {
        Ok(frechet_distance(&self.statistics, &self.network.statistics(images, FAD_BATCH)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that are named are those that lie in `SPIKING_DATA_DIR/fad`, where that is.
    #[test]
    fn checksums_are_those_of_the_published_files() {
        use sha2::{Digest, Sha256};
        let Some(folder) = std::env::var_os("SPIKING_DATA_DIR").map(|dir| PathBuf::from(dir).join("fad"))
        else {
            return eprintln!("skipped: SPIKING_DATA_DIR is not set");
        };
        for (name, bytes, sha256) in MNIST.into_iter().chain(FASHION_MNIST) {
            match std::fs::read(folder.join(name)) {
                Ok(found) => {
                    assert_eq!(found.len() as u64, bytes, "{name}");
                    assert_eq!(format!("{:x}", Sha256::digest(found)), sha256, "{name}");
                }
                Err(_) => eprintln!("skipped: no {name}"),
            }
        }
    }

    #[test]
    fn files_are_found_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = FadFiles::in_folder(folder.path(), "fashion-mnist").unwrap_err().to_string();
        assert!(missing.contains("fashion_64.pth") && missing.contains("not there"), "{missing}");
        for (name, ..) in MNIST {
            std::fs::write(folder.path().join(name), "no network").unwrap();
        }
        let files = FadFiles::in_folder(folder.path(), "mnist").unwrap();
        let damaged = files.open().map(|_| ()).unwrap_err().to_string();
        assert!(damaged.contains("mnist_64.pth"), "{damaged}");
        let none = FadFiles::in_folder(folder.path(), "kmnist").unwrap_err().to_string();
        assert!(none.contains("kmnist") && none.contains("no published network"), "{none}");
    }
}
