//! The files of a folder of images: which are there and whole, and how the others come to be.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use snn_core::write_atomically;
use snn_train::{Collective, Progress, go_on};

use super::{BLOCK, Formats, STAGE, Source};
use crate::error::{Error, Result};
use crate::experiment::sharing::{Drawn, Wanted, draw_over};

pub(super) struct Files<'a> {
    pub(super) folder: &'a Path,
    pub(super) formats: Formats,
    /// Channels, height, width.
    pub(super) image: [usize; 3],
    pub(super) workers: &'a dyn Collective,
}

impl Files<'_> {
    pub(super) fn png_folder(&self) -> PathBuf {
        self.folder.join("png")
    }

    fn png(&self, i: usize) -> PathBuf {
        self.png_folder().join(format!("{i:07}.png"))
    }

    fn tensors(&self, block: &Range<usize>) -> PathBuf {
        self.folder.join(format!("images-{:04}.safetensors", block.start / BLOCK))
    }

    /// The images of a block that have to be drawn: all where its tensors are not whole, else those without a PNG.
    pub(super) fn missing(&self, block: &Range<usize>) -> Vec<usize> {
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
    pub(super) fn write(
        &self,
        block: &Range<usize>,
        trained: &impl Source,
        missing: &[usize],
        device: &Device,
        progress: &mut dyn Progress,
        total: usize,
    ) -> Result<()> {
        let mut drawn = Vec::new();
        let wanted = Wanted { batches: runs(missing, trained.cfg().sampling.batch_size), film: false };
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
        let draw = &|images, _: &mut dyn FnMut(&[u32], usize)| trained.draw(images, device);
        draw_over(self.workers, draw, &wanted, &mut |_, _| (), &mut take)?;
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
