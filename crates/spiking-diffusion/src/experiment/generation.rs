//! Any number of images of a finished run as files, in a folder that can be filled in several sessions.
//!
//! `png/0000000.png`, .. hold an image each, `images-0000.safetensors`, .. up to [`BLOCK`] images each: a tensor `images`
//! `[n, channels, H, W]`, f32 in [0, 1]. `generation.json` says what they were drawn from. Image `i` follows from that and
//! from `i`, whatever the batch size, the number of threads, and where a session was stopped.

mod files;
mod source;

use std::path::Path;

use candle_core::Device;
use serde_json::Value;
use snn_train::{Alone, Collective, Progress, agree, claim, go_on};

use super::batches::batches;
use super::limits;
use super::sharing::{assist, dismiss};
use crate::error::{Error, Result};
use files::Files;
use source::{check_manifest, origin_on};

pub use source::Source;

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
pub fn save(
    trained: &impl Source,
    count: usize,
    folder: &Path,
    formats: Formats,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Saved> {
    let origin = origin_on(trained, device)?;
    lead(&Alone, trained, &origin, (folder, formats), (count, device), progress)
}

/// [`save`] with other workers, all of which call this with the same networks: they draw in turns, and worker 0, which alone has a
/// folder, writes and says what was done. The images are the same.
///
/// # Errors
/// Returns the errors of [`save`], and an error if the workers have other networks, or if another worker has gone. A worker that returns
/// one leaves others waiting: end the job.
pub fn save_over(
    workers: &dyn Collective,
    trained: &impl Source,
    count: usize,
    folder: &Path,
    formats: Formats,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Option<Saved>> {
    let origin = origin_on(trained, device)?;
    agree(workers, &(&origin, count))?;
    if workers.rank() == 0 {
        let saved = lead(workers, trained, &origin, (folder, formats), (count, device), progress)?;
        dismiss(workers)?;
        return Ok(Some(saved));
    }
    assist(workers, &|images, _| trained.draw(images, device))?;
    Ok(None)
}

fn lead(
    workers: &dyn Collective,
    trained: &impl Source,
    origin: &Value,
    (folder, formats): (&Path, Formats),
    (count, device): (usize, &Device),
    progress: &mut dyn Progress,
) -> Result<Saved> {
    // The rest of the config was validated with the run, and that of own networks need not be one of ours.
    trained.cfg().sampling.validate()?;
    limits::tensors(trained.cfg())?;
    if count == 0 || formats == (Formats { png: false, safetensors: false }) {
        return Err(Error::config("images", count, "needs at least one image and one format"));
    }
    if formats.png && !cfg!(feature = "report") {
        return Err(Error::config("formats.png", true, "needs a build with the feature `report`"));
    }
    let _lock = claim(folder, MANIFEST)?;
    check_manifest(origin, folder)?;
    let files = Files { folder, formats, image: trained.cfg().image(), workers };
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
        files.write(&block, trained, &missing, device, progress, count)?;
        go_on(progress, STAGE, block.end, count)?;
    }
    progress.end();
    Ok(saved)
}
