//! Drawing with plotters into a pixel buffer.

use std::sync::LazyLock;

use plotters::backend::RGBPixel;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::{Chart, Mark, Series};

pub(super) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Context<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<Axis, Axis>>;

const FONT: &str = "DejaVu Sans";
const GRID: RGBColor = RGBColor(225, 225, 225);
const INK: RGBColor = RGBColor(40, 40, 40);
/// Everything is drawn this many times too large and averaged down, which smooths lines and letters. All sizes below
/// are those drawn.
pub(super) const FINE: usize = 2;
pub(super) const TITLE_TEXT: i32 = 46;
pub(super) const TEXT: i32 = 34;
const LEGEND_ROW: i32 = 48;
const TICK: i32 = 12;
const DOT: i32 = 8;
const LINE: u32 = 4;
const DASH: i32 = 16;
/// Length of a legend entry's sample line: three dashes with half a dash between them.
const SAMPLE: i32 = 4 * DASH;
/// Free space around an entry.
pub(super) const SPACE: i32 = 24;

/// Whether plotters, which keeps its fonts in one table a process, has taken ours.
static FONT_KNOWN: LazyLock<bool> =
    LazyLock::new(|| register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok());

/// The charts, in a grid of rows and columns, as RGB pixels.
pub(super) fn charts(charts: &[Chart], grid: (usize, usize), size: (u32, u32)) -> Fallible<Vec<u8>> {
    canvas(size, |root| {
        charts.iter().zip(root.split_evenly(grid)).try_for_each(|(chart, area)| draw_chart(chart, &area))
    })
}

/// What is drawn on a white canvas, as RGB pixels.
pub(super) fn canvas(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Fallible<()>) -> Fallible<Vec<u8>> {
    if !*FONT_KNOWN {
        return Err("the built-in font cannot be read".into());
    }
    let fine = (size.0 * FINE as u32, size.1 * FINE as u32);
    let mut pixels = vec![255; 3 * fine.0 as usize * fine.1 as usize];
    let root = BitMapBackend::<RGBPixel>::with_buffer_and_format(&mut pixels, fine)?.into_drawing_area();
    draw(&root)?;
    root.present()?;
    drop(root);
    Ok(averaged(&pixels, fine.0 as usize))
}

/// Means over squares of `FINE x FINE` pixels.
fn averaged(fine: &[u8], width: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(fine.len() / (FINE * FINE));
    for rows in fine.chunks_exact(3 * width * FINE) {
        for x in (0..width).step_by(FINE) {
            for channel in 0..3 {
                let at = |i: usize| rows[3 * (i / FINE * width + x + i % FINE) + channel];
                let sum: usize = (0..FINE * FINE).map(|i| usize::from(at(i))).sum();
                pixels.push((sum / (FINE * FINE)) as u8);
            }
        }
    }
    pixels
}

fn draw_chart(chart: &Chart, area: &Area<'_>) -> Fallible<()> {
    let area = area.margin(36, 24, 24, 48);
    let title = text(TITLE_TEXT).pos(Pos::new(HPos::Center, VPos::Top));
    let width = area.dim_in_pixel().0 as i32;
    area.draw_text(&chart.title, &title, (width / 2, 0))?;
    let legend = draw_legend(chart, &area, TITLE_TEXT + SPACE)?;
    let area = area.margin(legend + SPACE / 2, 0, 0, 0);

    let points = || chart.series.iter().flat_map(extent).filter_map(|p| position(&p, chart.log_y));
    let x_axis = Axis::new(points().map(|(x, _)| x), false, 0.);
    let y_axis = Axis::new(points().map(|(_, y)| y), chart.log_y, 0.05);
    let mut builder = ChartBuilder::on(&area);
    let mut context =
        builder.x_label_area_size(112).y_label_area_size(184).build_cartesian_2d(x_axis, y_axis)?;
    context
        .configure_mesh()
        .bold_line_style(GRID.stroke_width(2))
        .axis_style(INK.stroke_width(2))
        .label_style(text(TEXT))
        .axis_desc_style(text(TEXT))
        .x_desc(&chart.x_label)
        .y_desc(&chart.y_label)
        .set_all_tick_mark_size(TICK)
        .y_label_offset(4) // the letters hang a little too high
        .draw()?;
    chart.series.iter().try_for_each(|series| draw_series(series, chart.log_y, &mut context))
}

/// What the axes must reach: the points, and the sides and the foot of a bar.
fn extent(series: &Series) -> Vec<(f64, f64)> {
    let bar = |&(x, y): &(f64, f64)| [(x - 0.5, y), (x + 0.5, 0.)];
    match series.mark {
        Mark::Bars => series.points.iter().flat_map(bar).collect(),
        _ => series.points.clone(),
    }
}

/// Where a point lies on the axes, if it can be shown.
fn position(&(x, y): &(f64, f64), log_y: bool) -> Option<(f64, f64)> {
    Some((Axis::position(x, false)?, Axis::position(y, log_y)?))
}

pub(super) fn text(height: i32) -> TextStyle<'static> {
    TextStyle::from((FONT, height).into_font()).color(&INK)
}

fn style(series: &Series) -> ShapeStyle {
    let [r, g, b] = series.color;
    let color = RGBColor(r, g, b);
    match series.mark {
        Mark::Line | Mark::Dashed => color.stroke_width(LINE),
        Mark::Faint => color.mix(0.45).stroke_width(LINE / 2),
        Mark::Dots | Mark::Bars => color.filled(),
    }
}

fn draw_series(series: &Series, log_y: bool, context: &mut Context<'_, '_>) -> Fallible<()> {
    let style = style(series);
    let positions: Vec<_> = series.points.iter().map(|point| position(point, log_y)).collect();
    if series.mark == Mark::Dots {
        context.draw_series(positions.into_iter().flatten().map(|at| Circle::new(at, DOT, style)))?;
        return Ok(());
    }
    if series.mark == Mark::Bars {
        let bar = |(x, y)| Rectangle::new([(x - 0.4, 0.), (x + 0.4, y)], style);
        context.draw_series(positions.into_iter().flatten().map(bar))?;
        return Ok(());
    }
    for piece in positions.split(Option::is_none) {
        let piece = piece.iter().copied().flatten();
        match series.mark {
            Mark::Dashed => context.draw_series(DashedLineSeries::new(piece, DASH, DASH / 2, style))?,
            _ => context.draw_series(LineSeries::new(piece, style))?,
        };
    }
    Ok(())
}

/// Draws the names of the series in centred rows from `top` on, and returns where it ends.
fn draw_legend(chart: &Chart, area: &Area<'_>, top: i32) -> Fallible<i32> {
    let font = text(TEXT).pos(Pos::new(HPos::Left, VPos::Center));
    let named = chart.series.iter().filter(|series| !series.name.is_empty());
    let measured = named.map(|series| {
        let name = area.estimate_text_size(&series.name, &font)?.0 as i32;
        Ok((series, name + SAMPLE + 3 * SPACE))
    });
    let entries = measured.collect::<Fallible<Vec<_>>>()?;
    let room = area.dim_in_pixel().0 as i32;
    let mut rest = entries.as_slice();
    let mut y = top;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest.iter().take_while(|(_, width)| {
            used += width;
            used <= room
        });
        let (row, later) = rest.split_at(fits.count().max(1));
        let mut x = (room - row.iter().map(|(_, width)| width).sum::<i32>()).max(0) / 2 + SPACE;
        for (series, width) in row {
            draw_sample(series, area, (x, y + LEGEND_ROW / 2))?;
            area.draw_text(&series.name, &font, (x + SAMPLE + SPACE / 2, y + LEGEND_ROW / 2))?;
            x += width;
        }
        (rest, y) = (later, y + LEGEND_ROW);
    }
    Ok(y)
}

fn draw_sample(series: &Series, area: &Area<'_>, (x, y): (i32, i32)) -> Fallible<()> {
    let style = style(series);
    let line = |from: i32, to: i32| area.draw(&PathElement::new([(x + from, y), (x + to, y)], style));
    match series.mark {
        Mark::Dots => area.draw(&Circle::new((x + SAMPLE / 2, y), DOT, style))?,
        Mark::Bars => area.draw(&Rectangle::new([(x, y - DASH / 2), (x + SAMPLE, y + DASH / 2)], style))?,
        Mark::Dashed => (0..3).map(|i| i * DASH * 3 / 2).try_for_each(|from| line(from, from + DASH))?,
        Mark::Line | Mark::Faint => line(0, SAMPLE)?,
    }
    Ok(())
}
