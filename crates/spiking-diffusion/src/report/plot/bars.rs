//! Named bars, one below the other.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Bar;
use super::draw::{Area, FINE, Fallible, SPACE, TEXT, TITLE_TEXT, canvas, text};

/// From one bar to the next.
const ROW: i32 = 56;
const THICKNESS: i32 = 36;
const TOP: i32 = TITLE_TEXT + 3 * SPACE;

/// Pixels that so many bars need.
pub(super) fn height(bars: usize) -> u32 {
    (TOP + ROW * bars as i32 + 2 * SPACE) as u32 / FINE as u32
}

pub(super) fn draw(title: &str, bars: &[Bar], size: (u32, u32)) -> Fallible<Vec<u8>> {
    canvas(size, |area| {
        let centre = text(TITLE_TEXT).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw_text(title, &centre, (area.dim_in_pixel().0 as i32 / 2, SPACE))?;
        let names = widest(area, bars.iter().map(|bar| &bar.name))? + 3 * SPACE;
        let labels = widest(area, bars.iter().map(|bar| &bar.label))? + 3 * SPACE;
        let room = (area.dim_in_pixel().0 as i32 - names - labels).max(1);
        let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let right = text(TEXT).pos(Pos::new(HPos::Right, VPos::Center));
        let left = text(TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        for (i, bar) in (0..).zip(bars) {
            let middle = TOP + ROW * i + ROW / 2;
            let end = names + (f64::from(room) * bar.value / longest).round() as i32;
            let [r, g, b] = bar.color;
            let corners = [(names, middle - THICKNESS / 2), (end, middle + THICKNESS / 2)];
            area.draw(&Rectangle::new(corners, RGBColor(r, g, b).filled()))?;
            area.draw_text(&bar.name, &right, (names - SPACE, middle))?;
            area.draw_text(&bar.label, &left, (end + SPACE, middle))?;
        }
        Ok(())
    })
}

fn widest<'a>(area: &Area<'_>, words: impl Iterator<Item = &'a String>) -> Fallible<i32> {
    let widths = words.map(|word| Ok(area.estimate_text_size(word, &text(TEXT))?.0 as i32));
    Ok(widths.collect::<Fallible<Vec<_>>>()?.into_iter().max().unwrap_or(0))
}
