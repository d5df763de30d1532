//! Images as PNG files that a person can look at: grids of samples, originals over reconstructions.
//!
//! The same images give the same bytes. Files appear whole or not at all.

mod film;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use snn_core::write_atomically;

use super::size::{BLOCK_GAP, GAP, SCALE, canvas};
use crate::error::{Error, Result};

pub use film::{Frame, save_film};

/// Pairs side by side in [`save_pairs`].
const PAIRS: usize = 16;
/// Between tiles; no shade of grey, so that it is no pixel of a grey image.
const BACKGROUND: [u8; 3] = [64, 96, 144];
/// A pixel that is NaN.
const NOT_A_NUMBER: [u8; 3] = [255, 0, 255];

/// Draws images side by side, `columns` a row, each pixel three pixels wide.
///
/// Pixels are cut to [-0.5, 0.5], black to white; a NaN is drawn in magenta.
///
/// # Shapes
/// `images: [N, C, H, W]`, `C` = 1 or 3 (red, green, blue), a float type.
/// # Errors
/// Returns an error if there are no images or no columns, if images have another shape, if the picture has more than 2^31 bytes, or if
/// the file cannot be written.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("grid.png");
/// let images = Tensor::zeros((10, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// spiking_diffusion::picture::save_grid(&path, &images, 5)?;
/// assert_eq!(image::image_dimensions(&path)?, (5 * 3 * 28 + 4 * 2, 2 * 3 * 28 + 2));
/// # Ok(()) }
/// ```
pub fn save_grid(path: &Path, images: &Tensor, columns: usize) -> Result<()> {
    if columns == 0 {
        return Err(Error::run(path, "cannot be drawn in 0 columns"));
    }
    let tiles = Tiles::new(path, images)?;
    let columns = columns.min(tiles.count);
    let rows = tiles.count.div_ceil(columns);
    let mut canvas = Canvas::new(path, &tiles, (rows, columns), rows)?;
    for i in 0..tiles.count {
        canvas.put(&tiles, i, (i / columns, i % columns));
    }
    canvas.save(path)
}

/// Draws each original over its reconstruction, up to 16 pairs side by side, then a next block of two rows.
///
/// # Shapes
/// Both `[N, C, H, W]`, as in [`save_grid`].
/// # Errors
/// Returns the errors of [`save_grid`], and an error if the two shapes differ.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("pairs.png");
/// let originals = Tensor::zeros((4, 3, 8, 8), DType::F32, &Device::Cpu)?;
/// spiking_diffusion::picture::save_pairs(&path, &originals, &(&originals + 0.1)?)?;
/// assert_eq!(image::image_dimensions(&path)?, (4 * 3 * 8 + 3 * 2, 2 * 3 * 8 + 2));
/// # Ok(()) }
/// ```
pub fn save_pairs(path: &Path, originals: &Tensor, reconstructions: &Tensor) -> Result<()> {
    if originals.dims() != reconstructions.dims() {
        let (a, b) = (originals.dims(), reconstructions.dims());
        return Err(Error::run(path, format!("originals are {a:?} but reconstructions {b:?}")));
    }
    let (upper, lower) = (Tiles::new(path, originals)?, Tiles::new(path, reconstructions)?);
    let columns = upper.count.min(PAIRS);
    let rows = 2 * upper.count.div_ceil(columns);
    let mut canvas = Canvas::new(path, &upper, (rows, columns), 2)?;
    for i in 0..upper.count {
        let (row, column) = (i / columns * 2, i % columns);
        canvas.put(&upper, i, (row, column));
        canvas.put(&lower, i, (row + 1, column));
    }
    canvas.save(path)
}

/// Draws blocks of images side by side, each of this many rows, with an empty column between two blocks.
///
/// # Shapes
/// Each block `[N, C, H, W]`, as in [`save_grid`], row by row; all of one shape.
/// # Errors
/// Returns the errors of [`save_grid`], and an error if there are no blocks or no rows, if the blocks' shapes differ, or if the
/// images do not fill the rows.
pub fn save_blocks(path: &Path, blocks: &[&Tensor], rows: usize) -> Result<()> {
    let shapes: Vec<_> = blocks.iter().map(|block| block.dims()).collect();
    let (Some(first), true) = (blocks.first(), shapes.windows(2).all(|pair| pair[0] == pair[1])) else {
        return Err(Error::run(path, format!("cannot be drawn from blocks of shapes {shapes:?}")));
    };
    let tiles = Tiles::new(path, first)?;
    if rows == 0 || !tiles.count.is_multiple_of(rows) {
        return Err(Error::run(path, format!("{} images do not fill {rows} rows", tiles.count)));
    }
    let columns = tiles.count / rows;
    let mut canvas = Canvas::new(path, &tiles, (rows, blocks.len() * (columns + 1) - 1), rows)?;
    for (i, block) in blocks.iter().enumerate() {
        let tiles = Tiles::new(path, block)?;
        for image in 0..tiles.count {
            canvas.put(&tiles, image, (image / columns, i * (columns + 1) + image % columns));
        }
    }
    canvas.save(path)
}

/// Writes 8-bit RGB pixels, row by row, as a PNG.
pub(crate) fn save_rgb(path: &Path, pixels: &[u8], size: (u32, u32)) -> Result<()> {
    Ok(write_atomically(path, &png(path, pixels, size, ExtendedColorType::Rgb8)?)?)
}

fn png(path: &Path, pixels: &[u8], (width, height): (u32, u32), color: ExtendedColorType) -> Result<Vec<u8>> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(pixels, width, height, color)
        .map_err(|e| Error::run(path, format!("cannot be encoded: {e}")))?;
    Ok(png)
}

/// One image `[C, H, W]`, a pixel a pixel, as a grey (`C` = 1) or RGB PNG for this path; pixels as in [`save_grid`].
pub(crate) fn image_png(path: &Path, image: &Tensor) -> Result<Vec<u8>> {
    let tiles = Tiles::new(path, &image.unsqueeze(0)?)?;
    let pixels = (0..tiles.height).flat_map(|y| (0..tiles.width).map(move |x| (y, x)));
    let color = if tiles.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let bytes: Vec<u8> =
        pixels.flat_map(|(y, x)| tiles.rgb(0, y, x).into_iter().take(tiles.channels)).collect();
    png(path, &bytes, (tiles.width as u32, tiles.height as u32), color)
}

/// Images on the CPU, `[count, channels, height, width]`.
struct Tiles {
    values: Vec<f32>,
    count: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Tiles {
    fn new(path: &Path, images: &Tensor) -> Result<Self> {
        let shape = images.dims();
        let &[count, channels @ (1 | 3), height, width] = shape else {
            return Err(Error::run(path, format!("images are {shape:?}, not [N, 1 or 3, H, W]")));
        };
        if images.elem_count() == 0 {
            return Err(Error::run(path, format!("images are {shape:?}: there is nothing to draw")));
        }
        let values = images.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { values, count, channels, height, width })
    }

    fn rgb(&self, image: usize, y: usize, x: usize) -> [u8; 3] {
        let channel = |c: usize| {
            let c = c.min(self.channels - 1);
            self.values[((image * self.channels + c) * self.height + y) * self.width + x]
        };
        let pixel = [channel(0), channel(1), channel(2)];
        if pixel.iter().any(|value| value.is_nan()) {
            return NOT_A_NUMBER;
        }
        pixel.map(|value| ((value + 0.5).clamp(0., 1.) * 255.).round() as u8)
    }
}

/// The picture being drawn.
struct Canvas {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
    rows_per_block: usize,
}

impl Canvas {
    fn new(
        path: &Path,
        tiles: &Tiles,
        (rows, columns): (usize, usize),
        rows_per_block: usize,
    ) -> Result<Self> {
        let tile = (tiles.height, tiles.width);
        let Some((width, height)) = canvas(tile, (rows, columns), rows_per_block) else {
            let message = format!("a picture of {rows} x {columns} images of {tile:?} pixels is too large");
            return Err(Error::run(path, message));
        };
        let pixels = BACKGROUND.repeat(width * height);
        Ok(Self { pixels, width, height, rows_per_block })
    }

    /// Row and column of a tile's first pixel.
    fn corner(&self, tiles: &Tiles, (row, column): (usize, usize)) -> (usize, usize) {
        let top = row * (tiles.height * SCALE + GAP) + row / self.rows_per_block * BLOCK_GAP;
        (top, column * (tiles.width * SCALE + GAP))
    }

    fn put(&mut self, tiles: &Tiles, image: usize, (row, column): (usize, usize)) {
        let (top, left) = self.corner(tiles, (row, column));
        for y in 0..tiles.height * SCALE {
            for x in 0..tiles.width * SCALE {
                let at = 3 * ((top + y) * self.width + left + x);
                self.pixels[at..at + 3].copy_from_slice(&tiles.rgb(image, y / SCALE, x / SCALE));
            }
        }
    }

    fn save(&self, path: &Path) -> Result<()> {
        save_rgb(path, &self.pixels, (self.width as u32, self.height as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

    fn drawn(
        draw: impl FnOnce(&Path) -> Result<()>,
    ) -> std::result::Result<image::RgbImage, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("picture.png");
        draw(&path)?;
        Ok(image::open(&path)?.into_rgb8())
    }

    fn images(values: &[f32], shape: (usize, usize, usize, usize)) -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, shape, &Device::Cpu)
    }

    #[test]
    fn pixels_are_scaled_cut_and_in_reading_order() -> TestResult {
        let tiles = images(&[-0.5, 0.5, 0., -7., 7., 0.1], (3, 1, 1, 2))?;
        let picture = drawn(|path| save_grid(path, &tiles, 2))?;
        assert_eq!(picture.dimensions(), (2 * 6 + 2, 2 * 3 + 2));
        let gray = |x, y| picture.get_pixel(x, y).0;
        assert_eq!((gray(0, 0), gray(2, 2), gray(3, 0), gray(5, 2)), ([0; 3], [0; 3], [255; 3], [255; 3]));
        assert_eq!((gray(6, 0), gray(7, 1)), (BACKGROUND, BACKGROUND)); // between the columns
        assert_eq!((gray(8, 0), gray(11, 0)), ([128; 3], [0; 3])); // second tile, the second pixel cut
        assert_eq!((gray(0, 3), gray(0, 5), gray(3, 5)), (BACKGROUND, [255; 3], [153; 3])); // third tile
        assert_eq!(gray(8, 5), BACKGROUND); // no fourth
        Ok(())
    }

    #[test]
    fn channels_are_red_green_blue() -> TestResult {
        let tile = images(&[0.5, -0.5, 0.1], (1, 3, 1, 1))?;
        let picture = drawn(|path| save_grid(path, &tile, 8))?;
        assert_eq!((picture.dimensions(), picture.get_pixel(1, 1).0), ((3, 3), [255, 0, 153]));
        Ok(())
    }

    #[test]
    fn pairs_are_stacked_in_blocks() -> TestResult {
        let originals = Tensor::zeros((PAIRS + 1, 1, 1, 1), DType::F32, &Device::Cpu)?;
        let picture = drawn(|path| save_pairs(path, &originals, &(&originals + 0.5)?))?;
        let step = (SCALE + GAP) as u32;
        assert_eq!(picture.dimensions(), (16 * step - 2, 4 * step - 2 + 8));
        let at = |x, y| picture.get_pixel(x, y).0;
        assert_eq!((at(0, 0), at(0, step)), ([128; 3], [255; 3]));
        assert_eq!((at(15 * step, 0), at(15 * step, step)), ([128; 3], [255; 3]));
        assert_eq!((at(0, 2 * step + 8), at(0, 3 * step + 8)), ([128; 3], [255; 3]));
        assert_eq!((at(0, 2 * step), at(step, 2 * step + 8)), (BACKGROUND, BACKGROUND));
        Ok(())
    }

    #[test]
    fn blocks_lie_side_by_side() -> TestResult {
        let block = |value: f32| Tensor::full(value, (4, 1, 1, 1), &Device::Cpu);
        let (a, b) = (block(-0.5)?, block(0.5)?);
        let picture = drawn(|path| save_blocks(path, &[&a, &b], 2))?;
        let step = (SCALE + GAP) as u32;
        assert_eq!(picture.dimensions(), (5 * step - 2, 2 * step - 2));
        let row: Vec<_> = (0..5).map(|column| picture.get_pixel(column * step, step).0).collect();
        assert_eq!(row, [[0; 3], [0; 3], BACKGROUND, [255; 3], [255; 3]]);
        for (blocks, rows, reason) in
            [(&[&a, &b][..], 3, "4 images do not fill 3 rows"), (&[&a], 0, "0 rows"), (&[], 1, "shapes []")]
        {
            let message = drawn(|path| save_blocks(path, blocks, rows)).err().map(|e| e.to_string());
            assert!(message.is_some_and(|message| message.contains(reason)), "{reason}");
        }
        Ok(())
    }

    #[test]
    fn not_a_number_is_magenta_and_infinity_is_cut() -> TestResult {
        let tile = images(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], (1, 1, 1, 3))?;
        let picture = drawn(|path| save_grid(path, &tile, 1))?;
        let pixels = [0, 3, 6].map(|x| picture.get_pixel(x, 0).0);
        assert_eq!(pixels, [NOT_A_NUMBER, [255; 3], [0; 3]]);
        Ok(())
    }

    #[test]
    fn equal_images_give_equal_bytes() -> TestResult {
        let folder = tempfile::tempdir()?;
        let tiles = snn_core::Seed(1).uniform("x", (4, 3, 9, 7), (-0.5, 0.5), DType::F32, &Device::Cpu)?;
        let bytes = |name: &str| -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
            let path = folder.path().join(name);
            save_grid(&path, &tiles, 2)?;
            Ok(std::fs::read(path)?)
        };
        assert_eq!(bytes("a.png")?, bytes("b.png")?);
        Ok(())
    }

    #[test]
    fn errors_name_the_file_and_the_shape() -> TestResult {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("bad.png");
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let shapes: [&[usize]; 4] = [&[0, 1, 8, 8], &[2, 2, 8, 8], &[1, 8, 8], &[3, 1, 0, 8]];
        for shape in shapes {
            let message = save_grid(&path, &zeros(shape)?, 4).unwrap_err().to_string();
            assert!(message.contains("bad.png") && message.contains(&format!("{shape:?}")), "{message}");
        }
        let message =
            save_pairs(&path, &zeros(&[2, 1, 4, 4])?, &zeros(&[3, 1, 4, 4])?).unwrap_err().to_string();
        assert!(message.contains("bad.png") && message.contains("[3, 1, 4, 4]"), "{message}");
        let message = save_grid(&path, &zeros(&[1, 1, 4, 4])?, 0).unwrap_err().to_string();
        assert!(message.contains("bad.png") && message.contains("0 columns"), "{message}");
        let nowhere = folder.path().join("no folder/x.png");
        assert!(save_grid(&nowhere, &zeros(&[1, 1, 4, 4])?, 1).unwrap_err().to_string().contains("x.png"));
        assert!(!path.exists());
        Ok(())
    }
}
