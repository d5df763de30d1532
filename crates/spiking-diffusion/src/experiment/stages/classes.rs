//! Images to classes, for a denoiser that is told them.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_core::Checkpoint;
use snn_train::{Progress, RunDir, share_tensor};

use super::Place;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::experiment::clusters::{means_of, nearest_of, seconds_for};
use crate::experiment::config::{ClassesFrom, DataConfig, ExperimentConfig};

const CLUSTERS: &str = "clusters.safetensors";
const KIND: &str = "clusters";

/// The class of each image, which [`find_classes`] says; none where the denoiser knows no classes.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// How many there are.
    known: usize,
    /// Those of the training images, for [`train_sdid`](crate::train_sdid).
    pub train: Vec<u32>,
    /// Those of the test images. In a run of many workers, worker 0 alone has those that are not labels.
    pub test: Vec<u32>,
    /// The means of the clusters, `[count, C, H, W]` in [-0.5, 0.5], if that is what classes are; in worker 0.
    #[cfg_attr(not(feature = "report"), allow(dead_code, reason = "for the picture"))]
    pub(in crate::experiment) means: Option<Tensor>,
}

impl Classes {
    /// Returns how many bits it takes to tell the class of one of the first `images` test images, on average, by a code for the classes of the
    /// training images: what a report adds to the bits of a denoiser that is told the classes, `bits / tokens` for each token. A
    /// class that occurs `n` times among `N` images has `-log2((n + 1) / (N + C))` bits, of `C` classes, so that one that never occurs among
    /// them, which no sample has either, costs much and not infinitely much.
    #[must_use]
    pub fn bits_of_test(&self, images: usize) -> f64 {
        let mut counts = vec![1f64; self.known];
        self.train.iter().for_each(|&class| counts[class as usize] += 1.);
        let all = (self.train.len() + self.known) as f64;
        let bits = |&class: &u32| (all / counts[class as usize]).log2();
        let told = &self.test[..images.min(self.test.len())];
        told.iter().map(bits).sum::<f64>() / told.len().max(1) as f64
    }
}

/// Says which class each image has: its label, or by the config (`classes_from`) the cluster that it is in, by k-means over the pixels of
/// the training images. Clusters are written into `clusters.safetensors` of the run's folder, or read from there if they were found before.
/// Without `sdid.classes` no image has a class.
///
/// # Errors
/// Returns an error if there are more clusters than training images, or labels that are no class, if a stop was asked for, or if the file
/// cannot be written or is not of these images.
pub fn find_classes(
    cfg: &ExperimentConfig,
    data: &Dataset,
    run: &RunDir,
    progress: &mut dyn Progress,
) -> Result<Classes> {
    cfg.validate_classes(data)?;
    find_classes_in(cfg, data, Place::alone(run, &Device::Cpu), progress)
}

/// [`find_classes`], anywhere: worker 0 finds clusters.
pub(in crate::experiment) fn find_classes_in(
    cfg: &ExperimentConfig,
    data: &Dataset,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Classes> {
    match (cfg.sdid.classes, cfg.classes_from) {
        (None, _) => Ok(Classes::default()),
        (Some(known), ClassesFrom::Labels) => {
            let classes = |split: &Split| split.labels().iter().map(|&label| label.into()).collect();
            let (train, test) = (classes(&data.train), classes(&data.test));
            Ok(Classes { known, train, test, means: None })
        }
        (Some(known), ClassesFrom::Clusters) => {
            let own = match place.workers.rank() {
                0 => Some(clusters(cfg, data, known, place, progress)?),
                _ => None,
            };
            let found = |name| -> Result<Option<Tensor>> {
                Ok(own.as_ref().map(|own| own.tensor(name).cloned()).transpose()?)
            };
            let train = share_tensor(place.workers, found("train")?)?.to_vec1::<u32>()?;
            let test = found("test")?.map_or(Ok(Vec::new()), |test| test.to_vec1::<u32>())?;
            Ok(Classes { known, train, test, means: found("means")? })
        }
    }
}

/// The seconds that [`find_classes`] takes at most for so many training images, by some of them.
pub(in crate::experiment) fn seconds_to_find(
    cfg: &ExperimentConfig,
    items: usize,
    some: &Split,
) -> Result<f64> {
    match (cfg.sdid.classes, cfg.classes_from) {
        (Some(count), ClassesFrom::Clusters) => seconds_for(items, some, count),
        _ => Ok(0.),
    }
}

/// `means`, and the number of the one that each image of `train` and of `test` is nearest to.
fn clusters(
    cfg: &ExperimentConfig,
    data: &Dataset,
    count: usize,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Checkpoint> {
    if let Some(file) = place.run.map(|run| run.file(CLUSTERS)).filter(|file| file.exists()) {
        return saved_clusters(&file, (cfg, data), count);
    }
    let clock = Instant::now();
    let means = means_of(&data.train, count, cfg.seed.child(KIND), progress)?;
    let mut checkpoint = Checkpoint::new(KIND, &cfg.data)?;
    for (name, split) in [("train", &data.train), ("test", &data.test)] {
        let nearest = nearest_of(split, &means)?;
        let nearest = Tensor::from_vec(nearest, split.len(), &Device::Cpu)?;
        checkpoint.tensors.insert(name.to_owned(), nearest);
    }
    checkpoint.tensors.insert("means".to_owned(), means);
    if let Some(run) = place.run {
        checkpoint.save(&run.file(CLUSTERS))?;
        run.record_seconds(KIND, clock.elapsed().as_secs_f64())?;
    }
    Ok(checkpoint)
}

/// [`clusters`] that were found before.
fn saved_clusters(
    file: &Path,
    (cfg, data): (&ExperimentConfig, &Dataset),
    count: usize,
) -> Result<Checkpoint> {
    let saved = Checkpoint::load(file, KIND, &Device::Cpu)?;
    if saved.config::<DataConfig>()? != cfg.data {
        return Err(Error::run(file, "holds the clusters of other images".to_owned()));
    }
    for (name, images) in [("train", data.train.len()), ("test", data.test.len())] {
        let all_known =
            |of: Vec<u32>| of.len() == images && of.iter().all(|&cluster| (cluster as usize) < count);
        if !saved.tensor(name)?.to_vec1().is_ok_and(all_known) {
            let reason =
                format!("`{name}` must be u32 numbers below {count}, one for each of {images} images");
            return Err(Error::run(file, reason));
        }
    }
    Ok(saved)
}
