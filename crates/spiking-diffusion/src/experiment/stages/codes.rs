//! Images to codes.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_core::Checkpoint;
use snn_train::{Progress, RunDir, share_tensor};

use super::Place;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::experiment::batches::share_batches;
use crate::experiment::config::ExperimentConfig;
use crate::experiment::networks::Autoencoder;

/// Holds the codes of a data set, u32 `[N, H', W']`, on the device that trains on them.
#[derive(Clone, Debug)]
pub struct Codes {
    /// Of the training images.
    pub train: Tensor,
    /// Of the test images.
    pub test: Tensor,
}

pub(in crate::experiment) const CODES_KIND: &str = "codes";

/// Encodes all images, by any autoencoder, into `codes.safetensors` of the run's folder, or reads them from there if it did before.
///
/// # Errors
/// Returns an error if images do not fit the autoencoder, if a stop was asked for, if a file cannot be read or written, or if more than a
/// tenth of the codes that are there are not those that it has for the first test images.
pub fn encode_dataset(
    cfg: &ExperimentConfig,
    autoencoder: &dyn Autoencoder,
    data: &Dataset,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Codes> {
    let place = Place::alone(run, device);
    let mut test = |progress: &mut dyn Progress| encode(cfg, autoencoder, &data.test, place, progress);
    encode_with(cfg, autoencoder, data, place, progress, &mut test)
}

/// [`encode_dataset`], anywhere, with a way of its own to the codes of the test images, on the CPU, which worker 0 gets. Its time is
/// not that of the stage.
pub(in crate::experiment) fn encode_with(
    cfg: &ExperimentConfig,
    autoencoder: &dyn Autoencoder,
    data: &Dataset,
    place: Place<'_>,
    progress: &mut dyn Progress,
    test: &mut dyn FnMut(&mut dyn Progress) -> Result<Option<Tensor>>,
) -> Result<Codes> {
    if !place.there(CODES)? {
        let (clock, mut checkpoint) = (Instant::now(), Checkpoint::new(CODES_KIND, &cfg.data)?);
        let train = encode(cfg, autoencoder, &data.train, place, progress)?;
        checkpoint.tensors.extend(train.map(|train| ("train".to_owned(), train)));
        let seconds = clock.elapsed().as_secs_f64();
        place.run.map_or(Ok(()), |run| run.record_seconds("encode", seconds))?;
        checkpoint.tensors.extend(test(progress)?.map(|test| ("test".to_owned(), test)));
        place.run.map_or(Ok(()), |run| checkpoint.save(&run.file(CODES)))?;
    }
    let read = |run: &RunDir| Checkpoint::load(&run.file(CODES), CODES_KIND, place.device);
    let checkpoint = place.run.map(read).transpose()?;
    if let (Some(run), Some(checkpoint)) = (place.run, &checkpoint) {
        check_codes(autoencoder, (&data.test, checkpoint.tensor("test")?), &run.file(CODES), place.device)?;
    }
    let shared = |name: &str| -> Result<Tensor> {
        let own = checkpoint.as_ref().map(|checkpoint| checkpoint.tensor(name).cloned()).transpose()?;
        Ok(share_tensor(place.workers, own)?.to_device(place.device)?)
    };
    Ok(Codes { train: shared("train")?, test: shared("test")? })
}

/// Test images whose codes are computed again where codes are read.
const CHECKED: usize = 8;

/// Refuses codes of another autoencoder, or of other images, of which more than a tenth differ: another batch size or processor rounds otherwise,
/// and may move a feature between two codes that are as near.
fn check_codes(
    autoencoder: &dyn Autoencoder,
    (split, codes): (&Split, &Tensor),
    file: &Path,
    device: &Device,
) -> Result<()> {
    let count = split.len().min(CHECKED);
    let numbers = |codes: &Tensor| codes.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u32>();
    let own = numbers(&autoencoder.encode(&split.range(0..count, device)?)?)?;
    let differ = |there: Vec<u32>| there.iter().zip(&own).filter(|(there, own)| there != own).count();
    if codes.dim(0)? != split.len() || 10 * differ(numbers(&codes.narrow(0, 0, count)?)?) > own.len() {
        return Err(Error::run(file, "holds the codes of another autoencoder or of other images"));
    }
    Ok(())
}

pub(in crate::experiment) const CODES: &str = "codes.safetensors";

/// The codes of a split, on the CPU, for worker 0.
pub(in crate::experiment) fn encode(
    cfg: &ExperimentConfig,
    autoencoder: &dyn Autoencoder,
    split: &Split,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<Tensor>> {
    let (n, size) = (split.len(), cfg.evaluation.batch_size);
    let parts = share_batches(place.workers, "encode", n, size, progress, |range| {
        Ok(vec![autoencoder.encode(&split.range(range, place.device)?)?.to_device(&Device::Cpu)?])
    })?;
    let parts = parts.concat();
    Ok((!parts.is_empty()).then(|| Tensor::cat(&parts, 0)).transpose()?)
}
