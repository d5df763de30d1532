//! Small line charts as PNG files: loss curves, membrane traces.
//!
//! The font is part of the program, so a machine needs neither fonts nor a display. The same charts give the same
//! bytes. There is no interaction, no second axis and no statistics: for those, take the numbers to another tool.
//!
//! # Examples
//! ```
//! use spiking_diffusion::plot::{self, Chart, Mark, Series};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let decay = |rate: f64| (0..100).map(move |i| (i as f64, (-rate * i as f64).exp()));
//! let chart = Chart::new("Two decays", "step", "loss")
//!     .log_y()
//!     .with(Series::new("slow", plot::PALETTE[0], decay(0.05)))
//!     .with(Series::new("fast", plot::PALETTE[1], decay(0.1)).mark(Mark::Dashed));
//! plot::save(&folder.path().join("decay.png"), &[chart], 1)?;
//! # Ok(()) }
//! ```

mod axis;
mod bars;
mod draw;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::picture::save_rgb;
use crate::error::{Error, Result};

/// Red, green, blue.
pub type Color = [u8; 3];

/// Colours that most people can tell apart (Okabe and Ito), black last.
pub const PALETTE: [Color; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [0, 0, 0]];

/// Width and height of one chart in pixels.
pub const CHART_SIZE: (u32, u32) = (960, 540);

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// A line.
    #[default]
    Line,
    /// A thin, pale line, for raw values behind a mean.
    Faint,
    /// A dashed line.
    Dashed,
    /// A dot a point.
    Dots,
    /// A bar a point, from 0 up; points are 1 apart.
    Bars,
}

/// Named points `(x, y)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it; an empty name keeps it out of the legend.
    pub name: String,
    /// Its colour.
    pub color: Color,
    /// In drawing order. A point that is not finite, or not positive on a logarithmic axis, leaves a gap.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub mark: Mark,
}

impl Series {
    /// A line through these points.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion::plot::{PALETTE, Series};
    /// let square = Series::new("square", PALETTE[0], (0..4).map(|i| (f64::from(i), f64::from(i * i))));
    /// assert_eq!(square.points[3], (3., 9.));
    /// ```
    pub fn new(name: impl Into<String>, color: Color, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), color, points: points.into_iter().collect(), mark: Mark::Line }
    }

    /// The same points, drawn in another way.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion::plot::{Mark, PALETTE, Series};
    /// assert_eq!(Series::new("spikes", PALETTE[1], [(3., 1.)]).mark(Mark::Dots).mark, Mark::Dots);
    /// ```
    #[must_use]
    pub fn mark(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }
}

/// Series over common axes, whose ranges follow from the points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Printed above.
    pub title: String,
    /// Printed below.
    pub x_label: String,
    /// Printed on the left, upwards.
    pub y_label: String,
    /// Whether the y axis is logarithmic.
    pub log_y: bool,
    /// What is drawn, the last on top. Without a point that can be drawn the axes stay empty.
    pub series: Vec<Series>,
}

impl Chart {
    /// Empty axes.
    ///
    /// # Examples
    /// ```
    /// let chart = spiking_diffusion::plot::Chart::new("Loss", "step", "bits per token");
    /// assert!(chart.series.is_empty() && !chart.log_y);
    /// ```
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), ..Self::default() }
    }

    /// With a logarithmic y axis.
    ///
    /// # Examples
    /// ```
    /// assert!(spiking_diffusion::plot::Chart::new("Loss", "step", "loss").log_y().log_y);
    /// ```
    #[must_use]
    pub fn log_y(self) -> Self {
        Self { log_y: true, ..self }
    }

    /// With one more series, on top.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion::plot::{Chart, PALETTE, Series};
    /// let chart = Chart::new("Loss", "step", "loss").with(Series::new("sdid", PALETTE[0], [(0., 7.), (1., 6.)]));
    /// assert_eq!(chart.series.len(), 1);
    /// ```
    #[must_use]
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }
}

/// One bar of [`save_bars`].
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Printed on its left.
    pub name: String,
    /// Its length, at least 0.
    pub value: f64,
    /// Printed on its right.
    pub label: String,
    /// Its colour.
    pub color: Color,
}

/// Draws named bars, one below the other, into one PNG.
///
/// # Errors
/// Returns an error if there are no bars or more than 200, if a value is negative or not finite, or if the file cannot be written.
/// # Examples
/// ```
/// use spiking_diffusion::plot::{self, Bar, PALETTE};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let bar = |name: &str, value: f64| Bar {
///     name: name.to_owned(),
///     value,
///     label: format!("{value} %"),
///     color: PALETTE[0],
/// };
/// plot::save_bars(&folder.path().join("rates.png"), "Firing rates", &[bar("encoder", 12.), bar("decoder", 7.5)])?;
/// # Ok(()) }
/// ```
pub fn save_bars(path: &Path, title: &str, bars: &[Bar]) -> Result<()> {
    if !(1..=200).contains(&bars.len()) {
        return Err(Error::run(path, format!("cannot hold {} bars, only 1 to 200", bars.len())));
    }
    if let Some(bar) = bars.iter().find(|bar| !(bar.value.is_finite() && bar.value >= 0.)) {
        return Err(Error::run(path, format!("cannot show a bar `{}` of length {}", bar.name, bar.value)));
    }
    let size = (CHART_SIZE.0, bars::height(bars.len()));
    let pixels =
        bars::draw(title, bars, size).map_err(|e| Error::run(path, format!("cannot be drawn: {e}")))?;
    save_rgb(path, &pixels, size)
}

/// Draws charts side by side, `columns` a row, into one PNG.
///
/// # Errors
/// Returns an error if there are no charts or no columns, if there are more than 100 charts, or if the file cannot be written.
/// # Examples
/// ```
/// use spiking_diffusion::plot::{self, Chart};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("empty.png");
/// plot::save(&path, &[Chart::new("left", "x", "y"), Chart::new("right", "x", "y")], 2)?;
/// let (width, height) = plot::CHART_SIZE;
/// assert_eq!(image::image_dimensions(&path)?, (2 * width, height));
/// # Ok(()) }
/// ```
pub fn save(path: &Path, charts: &[Chart], columns: usize) -> Result<()> {
    if columns == 0 {
        return Err(Error::run(path, "cannot be drawn in 0 columns"));
    }
    if !(1..=100).contains(&charts.len()) {
        return Err(Error::run(path, format!("cannot hold {} charts, only 1 to 100", charts.len())));
    }
    let columns = columns.min(charts.len());
    let grid = (charts.len().div_ceil(columns), columns);
    let size = (grid.1 as u32 * CHART_SIZE.0, grid.0 as u32 * CHART_SIZE.1);
    let pixels =
        draw::charts(charts, grid, size).map_err(|e| Error::run(path, format!("cannot be drawn: {e}")))?;
    save_rgb(path, &pixels, size)
}
