//! FAD of a run's samples: the distance that papers on spiking generators publish.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use snn_train::{Progress, go_on};
use spiking_diffusion_metrics::{Fad, FeatureStats};

use super::judge::{Against, FeatureNetwork, Judge};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::metrics::AutoencoderDistance;

/// Names the files that FAD is measured by: a network, and the statistics of the test images where they lie beside it, as FSVAE's
/// authors publish both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FadFiles {
    /// What was named: a folder, or the network's file.
    path: PathBuf,
    network: PathBuf,
    /// The published statistics of the test images.
    statistics: Option<PathBuf>,
}

const STAGE: &str = "fad";

impl FadFiles {
    /// The files at a path. In a folder they are the published ones of a data set: `mnist_64.pth` and `mnist_test_64.npz`, or `fashion_64.pth`
    /// and `fashion_test_64.npz`. A file is the network alone: statistics of the test images are then computed by it, and not the
    /// published ones.
    ///
    /// # Errors
    /// Returns an error if there is nothing at the path; if it is a folder and nothing is published for the data set (there are
    /// networks for `mnist` and `fashion-mnist`), or the folder has not both files.
    pub fn at(path: &Path, dataset: &str) -> Result<Self> {
        if path.is_file() {
            return Ok(Self { path: path.to_owned(), network: path.to_owned(), statistics: None });
        }
        if !path.exists() {
            return Err(Error::run(path, "is not there: neither a folder nor a file"));
        }
        let [network, statistics] = published(dataset)?.map(|(name, ..)| path.join(name));
        if let Some(missing) = [&network, &statistics].into_iter().find(|file| !file.is_file()) {
            return Err(Error::run(missing, "is not there; FSVAE's authors publish it"));
        }
        Ok(Self { path: path.to_owned(), network, statistics: Some(statistics) })
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
        Self::at(&folder, dataset)
    }

    /// Returns the folder that holds them, or the network's file if that is all there is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what measures FAD against real images of a data set: the first `count` training images, or all test images, by their
    /// published statistics where these files have them and no images are [held out](Dataset::hold_out).
    ///
    /// # Errors
    /// Returns an error, with the file, if one cannot be read or if they do not belong together, and the errors of [`Judge::new`].
    pub fn judge(
        &self,
        against: Against,
        data: &Dataset,
        count: usize,
        progress: &mut dyn Progress,
    ) -> Result<Judge> {
        let (network, published) = self.open()?;
        let network = FeatureNetwork::Fad(Box::new(network));
        match (against, published) {
            (Against::Train, _) => Judge::new(network, against, data, count, progress),
            (Against::Test, Some(statistics)) if data.held_out == 0 => {
                Ok(Judge::with_statistics(network, statistics, "the published statistics of all test images"))
            }
            (Against::Test, _) => Judge::new(network, against, data, data.test.len(), progress),
        }
    }

    /// Rejects what would fail after hours of training.
    pub(super) fn validate(&self, data: &Dataset) -> Result<()> {
        let (network, channels) = (self.open()?.0, data.image().0);
        if network.channels() == channels {
            return Ok(());
        }
        let message = format!(
            "takes images of {} channels, and those of {} have {channels}",
            network.channels(),
            data.name
        );
        Err(Error::run(&self.network, message))
    }

    fn open(&self) -> Result<(Fad, Option<FeatureStats>)> {
        let network = Fad::open(&self.network)?.with_range([-0.5, 0.5]);
        let Some(path) = &self.statistics else { return Ok((network, None)) };
        let statistics = FeatureStats::read_npz(path)?;
        if network.dims() != statistics.dims() {
            let message = format!("has {} features, the network {}", statistics.dims(), network.dims());
            return Err(Error::run(path, message));
        }
        Ok((network, Some(statistics)))
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

/// The distances of generated images and of test reconstructions, both in [-0.5, 0.5].
pub(super) fn measure(
    judge: &Judge,
    generated: &Tensor,
    reconstructions: &Tensor,
    progress: &mut dyn Progress,
) -> Result<AutoencoderDistance> {
    progress.begin(STAGE, 2, 0);
    let fad = judge.distance(generated, progress)?;
    progress.advance(1, None);
    go_on(progress, STAGE, 1, 2)?;
    let reconstruction_fad = judge.distance(reconstructions, progress)?;
    progress.advance(2, None);
    progress.end();
    Ok(AutoencoderDistance {
        fad,
        reconstruction_fad,
        generated_images: generated.dim(0)?,
        reconstructed_images: reconstructions.dim(0)?,
        network: judge.name().to_owned(),
    })
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

    /// A file means the same as the folder it lies in, though the statistics are taken here.
    #[test]
    fn statistics_taken_here_are_the_published_ones() {
        let Some(dir) = std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from) else {
            return eprintln!("skipped: SPIKING_DATA_DIR is not set");
        };
        let folder = dir.join("fad");
        let (file, data) = (folder.join("mnist_64.pth"), crate::data::mnist(Some(&dir.join("mnist"))));
        let (true, Ok(data)) = (file.is_file(), data) else {
            return eprintln!("skipped: no MNIST or no mnist_64.pth");
        };
        let images = data.train.range(0..512, &candle_core::Device::Cpu).unwrap();
        let distance = |path: &Path, against| {
            let files = FadFiles::at(path, "mnist").unwrap();
            let judge = files.judge(against, &data, 2048, &mut snn_train::Silent).unwrap();
            (judge.name().to_owned(), judge.distance(&images, &mut snn_train::Silent).unwrap())
        };
        let (published, here) = (distance(&folder, Against::Test), distance(&file, Against::Test));
        assert!(
            published.0.ends_with("against the published statistics of all test images"),
            "{published:?}"
        );
        assert!(here.0.ends_with("against all 10000 test images"), "{here:?}");
        assert!((published.1 - here.1).abs() < 1e-4 * published.1, "{published:?} {here:?}");
        let colours = crate::data::Split::new(vec![0; 2 * 3 * 32 * 32], vec![0; 2], (3, 32, 32)).unwrap();
        let colours = Dataset::new("colours", colours.clone(), colours).unwrap();
        let refused = FadFiles::at(&file, "colours").unwrap().validate(&colours).unwrap_err().to_string();
        assert!(refused.contains("mnist_64.pth: takes images of 1 channels"), "{refused}");
        let train = distance(&folder, Against::Train);
        assert!(
            train.0.ends_with("against the first 2048 training images") && train.1 < published.1,
            "{train:?}"
        );
    }

    #[test]
    fn files_are_found_or_named() {
        let digits = crate::data::synthetic_digits().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = FadFiles::at(folder.path(), "fashion-mnist").unwrap_err().to_string();
        assert!(missing.contains("fashion_64.pth") && missing.contains("not there"), "{missing}");
        for (name, ..) in MNIST {
            std::fs::write(folder.path().join(name), "no network").unwrap();
        }
        let network = folder.path().join("mnist_64.pth");
        for path in [folder.path(), &network] {
            let files = FadFiles::at(path, "mnist").unwrap();
            assert_eq!(files.path(), path);
            let damaged = files.validate(&digits).unwrap_err().to_string();
            assert!(damaged.contains("mnist_64.pth"), "{damaged}");
        }
        let none = FadFiles::at(folder.path(), "kmnist").unwrap_err().to_string();
        assert!(none.contains("kmnist") && none.contains("no published network"), "{none}");
        // A network of one's own is a file, for any data set.
        assert_eq!(FadFiles::at(&network, "kmnist").unwrap().statistics, None);
    }
}
