//! Images in the making as an animated GIF.

use std::path::Path;

use candle_core::Tensor;
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, RgbaImage};
use snn_core::write_atomically;

use super::super::size::SCALE;
use super::{Canvas, Tiles};
use crate::error::{Error, Result};

/// What covers a place that is not known yet.
const COVER: [u8; 3] = [120, 132, 150];
const FRAME_MILLISECONDS: u32 = 100;
const LAST_FRAME_MILLISECONDS: u32 = 3000;

/// One frame: images, and which of their places are covered.
#[derive(Clone, Debug)]
pub struct Frame {
    /// `[N, C, H, W]`, as in [`save_grid`](super::save_grid).
    pub images: Tensor,
    /// `[N, H', W']` flattened; each place covers `H / H' x W / W'` pixels.
    pub covered: Vec<bool>,
    /// `(H', W')`.
    pub places: (usize, usize),
}

/// Draws frames one after the other, each a grid of `columns` images, the last one longest, without end.
///
/// # Errors
/// Returns the errors of [`save_grid`](super::save_grid), and an error if there are no frames, if frames differ in size, or if places do not
/// divide the images.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use spiking_diffusion::picture::{Frame, save_film};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let images = Tensor::zeros((2, 1, 8, 8), DType::F32, &Device::Cpu)?;
/// let frame = |covered| Frame { images: images.clone(), covered: vec![covered; 2 * 4], places: (2, 2) };
/// save_film(&folder.path().join("film.gif"), &[frame(true), frame(false)], 2)?;
/// # Ok(()) }
/// ```
pub fn save_film(path: &Path, frames: &[Frame], columns: usize) -> Result<()> {
    let failed = |e: image::ImageError| Error::run(path, format!("cannot be encoded: {e}"));
    if frames.is_empty() || columns == 0 {
        return Err(Error::run(
            path,
            format!("{} frames in {columns} columns cannot be drawn", frames.len()),
        ));
    }
    let (mut gif, mut size) = (Vec::new(), None);
    let mut encoder = GifEncoder::new_with_speed(&mut gif, 10);
    encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
    for (i, frame) in frames.iter().enumerate() {
        let canvas = drawn(path, frame, columns)?;
        let expected = *size.get_or_insert((canvas.width, canvas.height));
        if expected != (canvas.width, canvas.height) {
            return Err(Error::run(path, format!("frame {i} is not of the size {expected:?} of the first")));
        }
        let rgba = canvas.pixels.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
        let image = RgbaImage::from_raw(canvas.width as u32, canvas.height as u32, rgba)
            .ok_or_else(|| Error::run(path, "pixels do not fill the canvas"))?;
        let milliseconds = if i + 1 == frames.len() { LAST_FRAME_MILLISECONDS } else { FRAME_MILLISECONDS };
        let delay = Delay::from_numer_denom_ms(milliseconds, 1);
        encoder.encode_frame(image::Frame::from_parts(image, 0, 0, delay)).map_err(failed)?;
    }
    drop(encoder);
    Ok(write_atomically(path, &gif)?)
}

fn drawn(path: &Path, frame: &Frame, columns: usize) -> Result<Canvas> {
    let tiles = Tiles::new(path, &frame.images)?;
    let (rows, cols) = frame.places;
    let divides =
        rows > 0 && cols > 0 && tiles.height.is_multiple_of(rows) && tiles.width.is_multiple_of(cols);
    if !divides || frame.covered.len() != tiles.count * rows * cols {
        let message = format!("{} places of {rows} x {cols} do not fit the images", frame.covered.len());
        return Err(Error::run(path, message));
    }
    let columns = columns.min(tiles.count);
    let grid = (tiles.count.div_ceil(columns), columns);
    let mut canvas = Canvas::new(path, &tiles, grid, grid.0)?;
    let side = (tiles.height / rows * SCALE, tiles.width / cols * SCALE);
    for i in 0..tiles.count {
        let at = (i / columns, i % columns);
        canvas.put(&tiles, i, at);
        let covered = &frame.covered[i * rows * cols..][..rows * cols];
        for place in (0..rows * cols).filter(|&place| covered[place]) {
            canvas.cover(&tiles, at, (place / cols * side.0, place % cols * side.1), side);
        }
    }
    Ok(canvas)
}

impl Canvas {
    /// Paints a rectangle of a tile, but for its last row and column, which leave a line between two.
    fn cover(&mut self, tiles: &Tiles, at: (usize, usize), corner: (usize, usize), side: (usize, usize)) {
        let (top, left) = self.corner(tiles, at);
        for y in 0..side.0 - 1 {
            for x in 0..side.1 - 1 {
                let at = 3 * ((top + corner.0 + y) * self.width + left + corner.1 + x);
                self.pixels[at..at + 3].copy_from_slice(&COVER);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use candle_core::{DType, Device};
    use image::AnimationDecoder;
    use image::codecs::gif::GifDecoder;

    use super::*;

    type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

    fn frame(covered: &[bool]) -> candle_core::Result<Frame> {
        let images = Tensor::full(0.5f32, (2, 1, 4, 4), &Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(Frame { images, covered: covered.to_vec(), places: (1, 2) })
    }

    #[test]
    fn covered_places_are_painted_and_the_rest_is_the_image() -> TestResult {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("film.gif");
        let frames = [frame(&[true; 4])?, frame(&[false, true, false, false])?, frame(&[false; 4])?];
        save_film(&path, &frames, 2)?;
        let decoder = GifDecoder::new(BufReader::new(std::fs::File::open(&path)?))?;
        let frames = decoder.into_frames().collect_frames()?;
        let pixel = |frame: usize, x, y| frames[frame].buffer().get_pixel(x, y).0[0];
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[0].buffer().dimensions(), (2 * 12 + 2, 12));
        let near = |found: u8, wanted: u8| found.abs_diff(wanted) <= 4; // colours are quantised
        assert!(near(pixel(0, 1, 1), COVER[0]) && near(pixel(0, 20, 3), COVER[0]));
        assert!(near(pixel(1, 1, 1), 255) && near(pixel(1, 7, 1), COVER[0]) && near(pixel(1, 20, 3), 255));
        assert!(near(pixel(2, 7, 1), 255));
        assert_eq!(frames[0].delay().numer_denom_ms(), (FRAME_MILLISECONDS, 1));
        assert_eq!(frames[2].delay().numer_denom_ms(), (LAST_FRAME_MILLISECONDS, 1));
        Ok(())
    }

    #[test]
    fn frames_that_do_not_fit_are_named() -> TestResult {
        let path = Path::new("film.gif");
        let message = |frames: &[Frame]| save_film(path, frames, 1).unwrap_err().to_string();
        assert!(message(&[]).contains("film.gif: 0 frames"));
        assert!(message(&[frame(&[true; 3])?]).contains("3 places of 1 x 2"));
        assert!(message(&[Frame { places: (1, 3), ..frame(&[true; 6])? }]).contains("1 x 3"));
        let other = Frame { images: frame(&[])?.images.narrow(0, 0, 1)?, ..frame(&[true; 2])? };
        assert!(message(&[frame(&[true; 4])?, other]).contains("frame 1"));
        Ok(())
    }
}
