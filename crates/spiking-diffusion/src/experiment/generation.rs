//! Any number of images of a finished run as files, in a folder that can be filled in several sessions.
//!
//! `png/0000000.png`, .. hold an image each, `images-0000.safetensors`, .. up to [`BLOCK`] images each: a tensor `images`
//! `[n, channels, H, W]`, f32 in [0, 1]. `generation.json` says what they were drawn from. Image `i` follows from that and
//! from `i`, whatever the batch size, the number of threads, and where a session was stopped.

use std::ops::Range;
use std::path::{Path, PathBuf};

use absorbing_diffusion::{Denoiser, Order, Schedule};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_core::{Seed, write_atomically};
use snn_train::{
    Alone, Collective, Progress, agree, claim, differences, go_on, most_readable, read_json, write_json,
};

use super::config::ExperimentConfig;
use super::drawing::{self, Drawn, Wanted, draw_over};
use super::networks::Networks;
use super::stages::batches;
use super::trained::{Condition, Trained};
use crate::error::{Error, Result};

/// Images in one `.safetensors` file; also the most images in memory.
pub const BLOCK: usize = 500;

const MANIFEST: &str = "generation.json";
const STAGE: &str = "generate";

/// Says which files to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// A PNG an image.
    pub png: bool,
    /// Blocks of images as tensors.
    pub safetensors: bool,
}

/// Says what [`save`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Images drawn now.
    pub drawn: usize,
    /// Images that were there.
    pub present: usize,
}

/// What the images of a folder follow from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    networks_sha256: String,
    dataset: String,
    seed: Seed,
    order: Order,
    temperature: Schedule,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    /// Of sampling; none: as many as diffusion has.
    #[serde(default)]
    steps: Option<usize>,
    /// The name of the user's own order, in place of `order`.
    #[serde(default)]
    own_order: Option<String>,
    /// The classes, if the images have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condition: Option<Condition>,
}

impl Manifest {
    fn of<D>(trained: &Trained<D>) -> Self {
        let cfg = &trained.cfg;
        Self {
            networks_sha256: trained.sha256.clone(),
            dataset: cfg.data.name.clone(),
            seed: cfg.seed,
            order: cfg.sampling.order,
            temperature: cfg.sampling.temperature,
            top_k: cfg.sampling.top_k,
            top_p: cfg.sampling.top_p,
            steps: cfg.sampling.steps,
            own_order: trained.order.as_ref().map(|own| own.name.clone()),
            condition: trained.condition.clone(),
        }
    }
}

/// Writes images `0..count` of the config's seed and sampling into a folder, and draws only those that are not yet there,
/// whole, in every format. At most [`BLOCK`] images are in memory.
///
/// # Errors
/// Returns an error if the folder holds other images or something else or another process has it, if no images or no formats are
/// asked for, if the networks do not fit each other, if a stop was asked for, or if a file cannot be written.
/// # Examples
/// ```no_run
/// use candle_core::Device;
/// use spiking_diffusion::generation::{self, Formats};
/// use spiking_diffusion::{Silent, Trained};
/// # fn main() -> spiking_diffusion::Result<()> {
/// let mut trained = Trained::load("runs/mnist-cpu-0".as_ref(), &Device::Cpu)?;
/// trained.cfg.sampling.temperature = 0.9.into();
/// let formats = Formats { png: true, safetensors: false };
/// generation::save(&trained, 10_000, "images".as_ref(), formats, &Device::Cpu, &mut Silent)?;
/// # Ok(()) }
/// ```
pub fn save<D: Denoiser>(
    trained: &Trained<D>,
    count: usize,
    folder: &Path,
    formats: Formats,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Saved> {
    lead(&Alone, trained, count, folder, formats, device, progress)
}

/// [`save`] with other workers, all of which call this with the same networks: they draw in turns, and worker 0, which alone has a
/// folder, writes and says what was done. The images are the same.
///
/// # Errors
/// Returns the errors of [`save`], and an error if the workers have other networks, or if another worker has gone. A worker that returns one leaves others waiting: end the
/// job.
pub fn save_over<D: Denoiser>(
    workers: &dyn Collective,
    trained: &Trained<D>,
    count: usize,
    folder: &Path,
    formats: Formats,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Option<Saved>> {
    agree(workers, &(Manifest::of(trained), count))?;
    if workers.rank() == 0 {
        let saved = lead(workers, trained, count, folder, formats, device, progress)?;
        drawing::dismiss(workers)?;
        return Ok(Some(saved));
    }
    drawing::assist(workers, (&trained.cfg, trained.networks()), device)?;
    Ok(None)
}

fn lead<D: Denoiser>(
    workers: &dyn Collective,
    trained: &Trained<D>,
    count: usize,
    folder: &Path,
    formats: Formats,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Saved> {
    trained.cfg.validate()?;
    if count == 0 || formats == (Formats { png: false, safetensors: false }) {
        return Err(Error::config("images", count, "needs at least one image and one format"));
    }
    if formats.png && !cfg!(feature = "report") {
        return Err(Error::config("formats.png", true, "needs a build with the feature `report`"));
    }
    let _lock = claim(folder, MANIFEST)?;
    check_manifest(&Manifest::of(trained), folder)?;
    let image = &trained.cfg.vqsvae.image;
    let files = Files { folder, formats, image: [image.channels, image.height, image.width], workers };
    if formats.png {
        std::fs::create_dir_all(files.png_folder()).map_err(Error::io(folder))?;
    }
    let mut saved = Saved { drawn: 0, present: 0 };
    progress.begin(STAGE, count, 0);
    for block in batches(count, BLOCK) {
        let missing = files.missing(&block);
        saved.present += block.len() - missing.len();
        saved.drawn += missing.len();
        if missing.is_empty() {
            progress.advance(block.end, None);
        }
        files.write(&block, (&trained.cfg, trained.networks()), &missing, device, progress, count)?;
        go_on(progress, STAGE, block.end, count)?;
    }
    progress.end();
    Ok(saved)
}

/// Writes what the images follow from, or compares it with what is there.
fn check_manifest(now: &Manifest, folder: &Path) -> Result<()> {
    let path = folder.join(MANIFEST);
    if !path.exists() {
        return Ok(write_json(&path, now)?);
    }
    let then: Manifest = read_json(&path)?;
    let tree = |value: &Manifest| serde_json::to_value(value).map_err(|e| Error::run(&path, e.to_string()));
    match most_readable(differences(&tree(&then)?, &tree(now)?)) {
        None => Ok(()),
        Some((field, [then, now])) => Err(Error::run(
            folder,
            format!("holds other images: `{field}` is {then} there and {now} here; name another folder"),
        )),
    }
}

struct Files<'a> {
    folder: &'a Path,
    formats: Formats,
    /// Channels, height, width.
    image: [usize; 3],
    workers: &'a dyn Collective,
}

impl Files<'_> {
    fn png_folder(&self) -> PathBuf {
        self.folder.join("png")
    }

    fn png(&self, i: usize) -> PathBuf {
        self.png_folder().join(format!("{i:07}.png"))
    }

    fn tensors(&self, block: &Range<usize>) -> PathBuf {
        self.folder.join(format!("images-{:04}.safetensors", block.start / BLOCK))
    }

    /// The images of a block that have to be drawn: all where its tensors are not whole, else those without a PNG.
    fn missing(&self, block: &Range<usize>) -> Vec<usize> {
        if self.formats.safetensors && !self.has_tensors(block) {
            return block.clone().collect();
        }
        block.clone().filter(|&i| self.formats.png && !self.has_png(i)).collect()
    }

    fn has_png(&self, i: usize) -> bool {
        png::is_whole(&self.png(i), self.image)
    }

    fn has_tensors(&self, block: &Range<usize>) -> bool {
        let read = || {
            let bytes = std::fs::read(self.tensors(block)).ok()?;
            let file = safetensors::SafeTensors::deserialize(&bytes).ok()?;
            let shape = file.tensor("images").ok()?.shape().to_owned();
            Some(shape.len() == 4 && shape[0] >= block.len() && shape[1..] == self.image)
        };
        read().unwrap_or(false)
    }

    /// Draws the missing images of a block, in batches, and writes them.
    fn write(
        &self,
        block: &Range<usize>,
        (cfg, networks): (&ExperimentConfig, Networks<'_>),
        missing: &[usize],
        device: &Device,
        progress: &mut dyn Progress,
        total: usize,
    ) -> Result<()> {
        let mut drawn = Vec::new();
        let wanted = Wanted { batches: runs(missing, cfg.sampling.batch_size), film: false };
        let mut take = |batch: usize, Drawn { images, .. }: Drawn| -> Result<()> {
            let batch = wanted.batches[batch].clone();
            for (i, number) in batch.clone().enumerate().filter(|_| self.formats.png) {
                let path = self.png(number);
                write_unsynced(&path, &png::encode(&path, &images.get(i)?)?)?;
            }
            progress.advance(batch.end, None);
            drawn.push(images);
            Ok(go_on(progress, STAGE, batch.end, total)?)
        };
        draw_over(self.workers, (cfg, networks), &wanted, device, &mut |_, _| (), &mut take)?;
        if !self.formats.safetensors || self.has_tensors(block) {
            return Ok(());
        }
        let images = (Tensor::cat(&drawn, 0)?.to_dtype(DType::F32)? + 0.5)?.clamp(0f32, 1f32)?;
        let path = self.tensors(block);
        let bytes = safetensors::serialize([("images", images)], None)
            .map_err(|e| Error::run(&path, e.to_string()))?;
        Ok(write_atomically(&path, &bytes)?)
    }
}

#[cfg(feature = "report")]
mod png {
    use std::path::Path;

    pub(super) use crate::report::picture::image_png as encode;

    /// Whether a file is an image of these channels, rows and columns.
    pub(super) fn is_whole(path: &Path, [_, height, width]: [usize; 3]) -> bool {
        let size = (width as u32, height as u32);
        image::open(path).is_ok_and(|image| (image.width(), image.height()) == size)
    }
}

/// No file is asked for here: [`save`] refuses.
#[cfg(not(feature = "report"))]
mod png {
    use std::path::Path;

    use candle_core::Tensor;

    use crate::error::Result;

    pub(super) fn encode(_: &Path, _: &Tensor) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    pub(super) fn is_whole(_: &Path, _: [usize; 3]) -> bool {
        false
    }
}

/// Writes under a temporary name and renames, but does not wait for the disk, which for thousands of small files takes
/// longer than drawing them. What a loss of power tears is found on resume: a file that is not whole is drawn again.
fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("png.tmp");
    std::fs::write(&temporary, bytes).map_err(Error::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io(path))
}

/// Ascending numbers as ranges without gaps, each of at most `size`.
fn runs(numbers: &[usize], size: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number && run.len() < size.max(1) => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_runs_without_gaps() {
        assert!(runs(&[], 3).is_empty());
        assert_eq!(runs(&[0, 1, 2, 3, 5, 9, 10], 3), [0..3, 3..4, 5..6, 9..11]);
    }
}
