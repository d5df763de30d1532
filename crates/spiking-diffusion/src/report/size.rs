//! How large the pictures of a run are: known before anything is drawn, and where nothing is.

/// Side of the square that a pixel becomes.
pub(super) const SCALE: usize = 3;
/// Between two tiles, in pixels of the file.
pub(super) const GAP: usize = 2;
/// Between two blocks of rows, on top of `GAP`.
pub(super) const BLOCK_GAP: usize = 8;
/// Most images in the film of samples in the making, and how many in a row.
pub(super) const FILM_IMAGES: usize = 16;
pub(super) const FILM_COLUMNS: usize = 4;

/// Images of a class at each guidance in `classes.png`, and the guidances.
pub(crate) const PER_CLASS: usize = 4;
pub(crate) const GUIDANCES: [f64; 4] = [0., 1., 2., 4.];

/// Rows and columns of `classes.png`: an empty column lies between two guidances.
pub(crate) fn table_of_classes(classes: usize) -> (usize, usize) {
    (classes, GUIDANCES.len() * (PER_CLASS + 1) - 1)
}

/// Rows and columns of `count` images in a square.
pub(crate) fn square(count: usize) -> (usize, usize) {
    let columns = (count as f64).sqrt().ceil() as usize;
    (count.div_ceil(columns.max(1)), columns)
}

/// Width and height of a picture of images of this height and width, unless it has more than 2^31 bytes.
pub(crate) fn canvas(
    (height, width): (usize, usize),
    (rows, columns): (usize, usize),
    rows_per_block: usize,
) -> Option<(usize, usize)> {
    let side = |count: usize, pixels: usize| {
        count.checked_mul(pixels.checked_mul(SCALE)?.checked_add(GAP)?)?.checked_sub(GAP)
    };
    let gaps = rows.div_ceil(rows_per_block).saturating_sub(1).checked_mul(BLOCK_GAP)?;
    let (width, height) = (side(columns, width)?, side(rows, height)?.checked_add(gaps)?);
    width.checked_mul(height).filter(|&area| area <= (1 << 31) / 3).map(|_| (width, height))
}

/// Whether the film of so many samples of this height and width is one: a GIF counts to 65535.
pub(crate) fn film_fits(image: (usize, usize), samples: usize) -> bool {
    let images = samples.min(FILM_IMAGES);
    let grid = (images.div_ceil(FILM_COLUMNS), images.min(FILM_COLUMNS));
    let side = usize::from(u16::MAX);
    canvas(image, grid, grid.0.max(1)).is_some_and(|(width, height)| width.max(height) <= side)
}
