//! 3x3 pooling.

use std::ops::Range;

use super::map::Map;

/// Maximum of each 3x3 window; positions outside the image do not take part.
pub(crate) fn max(input: &Map, stride: usize, padding: usize) -> Map {
    let start = |out: &mut [f32]| out.fill(f32::NEG_INFINITY);
    pool(
        input,
        stride,
        padding,
        start,
        |best, value| {
            if value > *best {
                *best = value;
            }
        },
        |_, _| (),
    )
}

/// Mean of each 3x3 window at stride 1 and padding 1: over all nine positions, or over those inside the image.
pub(crate) fn average(input: &Map, count_padding: bool) -> Map {
    let divide = |out: &mut [f32], inside: usize| {
        let count = if count_padding { 9 } else { inside } as f32;
        out.iter_mut().for_each(|sum| *sum /= count);
    };
    pool(input, 1, 1, |_| (), |sum, value| *sum += value, divide)
}

fn pool(
    input: &Map,
    stride: usize,
    padding: usize,
    start: impl Fn(&mut [f32]),
    take: impl Fn(&mut f32, f32),
    finish: impl Fn(&mut [f32], usize),
) -> Map {
    let size = |side: usize| (side + 2 * padding).saturating_sub(3) / stride + 1;
    let mut out = Map::zeros(size(input.height), size(input.width), input.channels);
    let width = out.width;
    for (at, pixel) in out.values.chunks_exact_mut(input.channels).enumerate() {
        let rows = window(at / width * stride, padding, input.height);
        let columns = window(at % width * stride, padding, input.width);
        start(pixel);
        for y in rows.clone() {
            for x in columns.clone() {
                pixel.iter_mut().zip(input.pixel(y, x)).for_each(|(out, value)| take(out, *value));
            }
        }
        finish(pixel, rows.len() * columns.len());
    }
    out
}

/// The part of a window of 3 that lies inside `0..side`.
fn window(start: usize, padding: usize, side: usize) -> Range<usize> {
    start.saturating_sub(padding)..(start + 3).saturating_sub(padding).min(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Map {
        Map { height: 3, width: 3, channels: 1, values: (1..=9).map(|x| x as f32).collect() }
    }

    #[test]
    fn the_largest_value_of_a_window_wins_even_if_it_is_negative() {
        assert_eq!(max(&ramp(), 2, 0).values, [9.0]);
        let negative = Map { values: vec![-1.0; 9], ..ramp() };
        assert_eq!(max(&negative, 1, 1).values, [-1.0; 9]);
        assert_eq!(max(&ramp(), 1, 1).values, [5.0, 6.0, 6.0, 8.0, 9.0, 9.0, 8.0, 9.0, 9.0]);
    }

    #[test]
    fn an_average_counts_its_padding_or_not() {
        assert_eq!(average(&ramp(), false).values[..2], [3.0, 3.5]);
        assert_eq!(average(&ramp(), true).values[..2], [12.0 / 9.0, 21.0 / 9.0]);
        assert_eq!(average(&ramp(), true).values[4], 5.0);
    }
}
