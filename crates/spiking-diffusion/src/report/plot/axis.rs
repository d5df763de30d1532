//! Ranges, ticks and their labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Beyond this, differences of values overflow.
const LARGEST: f64 = 1e100;
const MOST_TICKS: usize = 12;

/// One axis. On a logarithmic one, positions are decimal logarithms of values.
pub(super) struct Axis {
    range: Range<f64>,
    /// Positions.
    ticks: Vec<f64>,
    log: bool,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }

    fn map(&self, position: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (position - self.range.start) / (self.range.end - self.range.start);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, position: &f64) -> String {
        number(if self.log { 10f64.powf(*position) } else { *position })
    }
}

impl Axis {
    /// The axis that shows all of these positions, with `margin` of its length left free at both ends.
    pub(super) fn new(positions: impl Iterator<Item = f64>, log: bool, margin: f64) -> Self {
        let (low, high) =
            positions.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = match (low, high) {
            _ if low > high => (0., 1.), // no positions
            _ if high - low <= 1e-9 * high.abs() => (low - widening(low, log), high + widening(low, log)),
            _ => (low, high),
        };
        let free = margin * (high - low);
        let range = low - free..high + free;
        let ticks = if log { log_ticks(&range) } else { linear_ticks(&range) };
        Self { range, ticks, log }
    }

    /// Where a value lies, if it can be shown.
    pub(super) fn position(value: f64, log: bool) -> Option<f64> {
        let position = if log { value.log10() } else { value };
        (position.abs() < LARGEST).then_some(position)
    }
}

/// How far to each side the axis of a single value reaches.
fn widening(value: f64, log: bool) -> f64 {
    if log || value == 0. { 0.5 } else { 0.1 * value.abs() }
}

/// Multiples of 1, 2 or 5 times a power of ten, about six.
fn linear_ticks(range: &Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / 6.;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1., 2., 5.].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(10. * power);
    let first = (range.start / step).ceil();
    // `+ 0.` makes -0 a 0.
    let ticks = (0..MOST_TICKS).map(|k| (first + k as f64) * step + 0.);
    ticks.take_while(|tick| *tick <= range.end).collect()
}

/// Powers of ten; also their doubles and fives where there are few; linear ones in less than about a decade.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = range.end - range.start;
    if decades < 0.8 {
        let values = 10f64.powf(range.start)..10f64.powf(range.end);
        return linear_ticks(&values).into_iter().filter(|v| *v > 0.).map(f64::log10).collect();
    }
    let steps: &[f64] = if decades < 3. { &[1., 2., 5.] } else { &[1.] };
    let stride = (decades / 8.).ceil().max(1.);
    let first = (range.start / stride).floor();
    let powers = (0..MOST_TICKS).map(|k| (first + k as f64) * stride);
    let ticks = powers.flat_map(|power| steps.iter().map(move |m| power + m.log10()));
    ticks.filter(|tick| range.contains(tick)).collect()
}

/// A number in as few characters as show it.
fn number(value: f64) -> String {
    // Ticks are short numbers, but for rounding errors.
    let short = format!("{value:.5e}").parse().unwrap_or(value);
    let size = short.abs();
    if size == 0. || (1e-3..1e6).contains(&size) { format!("{short}") } else { format!("{short:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], log: bool) -> Vec<String> {
        let axis = Axis::new(values.iter().filter_map(|v| Axis::position(*v, log)), log, 0.05);
        axis.ticks.iter().map(|tick| axis.format_ext(tick)).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(&[0., 1.], false), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&[-3., 7.], false), ["-2", "0", "2", "4", "6"]);
        assert_eq!(labels(&[0., 187_500.], false), ["0", "50000", "100000", "150000"]);
        assert_eq!(labels(&[0., 3e-4], false), ["0", "1e-4", "2e-4", "3e-4"]);
    }

    #[test]
    fn logarithmic_ticks_suit_the_range() {
        assert_eq!(labels(&[1e-4, 100.], true), ["1e-4", "0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(&[0.1, 1.], true), ["0.1", "0.2", "0.5", "1"]);
        assert_eq!(labels(&[3., 5.], true), ["3", "3.5", "4", "4.5", "5"]);
        let wide = labels(&[1e-30, 1e30], true);
        assert!((4..=10).contains(&wide.len()), "{wide:?}");
    }

    #[test]
    fn odd_ranges_have_finite_axes() {
        for values in
            [vec![], vec![0.], vec![-5., -5.], vec![1e99, -1e99], vec![1e16, 1e16 + 2.], vec![1e-300, 2e-300]]
        {
            for log in [false, true] {
                let axis = Axis::new(values.iter().filter_map(|v| Axis::position(*v, log)), log, 0.05);
                let length = axis.range.end - axis.range.start;
                assert!(length.is_finite() && length > 0., "{values:?}");
                assert!(axis.ticks.len() <= 3 * MOST_TICKS, "{values:?}");
            }
        }
        assert_eq!(Axis::position(f64::NAN, false), None);
        assert_eq!(Axis::position(f64::INFINITY, false), None);
        assert_eq!(Axis::position(0., true), None);
        assert_eq!(Axis::position(-1., true), None);
    }
}
