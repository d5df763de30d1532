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
        let [network, statistics] = names(dataset)?.map(|name| folder.join(name));
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
        use spiking_diffusion_metrics::download::{cache_dir, fetch};
        let folder = cache_dir()?.join("fad");
        for name in names(dataset)? {
            let (url, sha256) = remote(name);
            if !folder.join(name).exists() {
                progress.message(&format!("loading {url} to {}", folder.display()));
            }
            fetch(&url, sha256, &folder.join(name), &mut |_, _| snn_train::flow(progress))?;
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

/// The names of the published files of a data set.
fn names(dataset: &str) -> Result<[&'static str; 2]> {
    match dataset {
        "mnist" => Ok(["mnist_64.pth", "mnist_test_64.npz"]),
        "fashion-mnist" => Ok(["fashion_64.pth", "fashion_test_64.npz"]),
        _ => Err(Error::config("fad", dataset, "has no published network: mnist and fashion-mnist have")),
    }
}

/// The address of a published file, and its SHA-256.
#[cfg(feature = "download")]
fn remote(name: &str) -> (String, &'static str) {
    let (networks, statistics) =
        ("b9d1fbd39ad76709949f54ac6a46dccf4041b58f", "86f2e6bfcba18f081a6f9e7e28b907b02cedba1f");
    let sha256 = match name {
        "mnist_64.pth" => "783abf13264663769f4936b30902adeb29dfda02a862bd9c8c5c8098e464333b",
        "fashion_64.pth" => "234f4335d9da9417abcede41f0a4d4663ba91ee46f67cdd160b62d7a200689e8",
        "mnist_test_64.npz" => "5d4dd72f345b4337af8ca3432dcf53e4b4b6e8f218aace6abd26dd0181473f20",
        _ => "c3a0b1ff9340f947d8316d33d0f27cd5a565c007bc63ebdd88de0ff91f558645",
    };
    let (commit, folder) =
        if name.ends_with(".pth") { (networks, "stat_checkpoints") } else { (statistics, "stats") };
    let repository = "https://raw.githubusercontent.com/kamata1729/FullySpikingVAE";
    (format!("{repository}/{commit}/metrics/{folder}/{name}"), sha256)
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

    /// What the addresses name is what lies in `SPIKING_DATA_DIR/fad`, where that is.
    #[cfg(feature = "download")]
    #[test]
    fn checksums_are_those_of_the_published_files() {
        use sha2::{Digest, Sha256};
        let Some(folder) = std::env::var_os("SPIKING_DATA_DIR").map(|dir| PathBuf::from(dir).join("fad"))
        else {
            return eprintln!("skipped: SPIKING_DATA_DIR is not set");
        };
        for name in ["mnist", "fashion-mnist"].into_iter().flat_map(|set| names(set).unwrap()) {
            match std::fs::read(folder.join(name)) {
                Ok(bytes) => assert_eq!(format!("{:x}", Sha256::digest(bytes)), remote(name).1, "{name}"),
                Err(_) => eprintln!("skipped: no {name}"),
            }
        }
    }

    #[test]
    fn files_are_found_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = FadFiles::in_folder(folder.path(), "fashion-mnist").unwrap_err().to_string();
        assert!(missing.contains("fashion_64.pth") && missing.contains("not there"), "{missing}");
        for name in names("mnist").unwrap() {
            std::fs::write(folder.path().join(name), "no network").unwrap();
        }
        let files = FadFiles::in_folder(folder.path(), "mnist").unwrap();
        let damaged = files.open().map(|_| ()).unwrap_err().to_string();
        assert!(damaged.contains("mnist_64.pth"), "{damaged}");
        let none = FadFiles::in_folder(folder.path(), "kmnist").unwrap_err().to_string();
        assert!(none.contains("kmnist") && none.contains("no published network"), "{none}");
    }
}
