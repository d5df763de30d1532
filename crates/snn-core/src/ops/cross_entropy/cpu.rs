//! The cross entropy and its gradient on the CPU, row by row.

use rayon::prelude::*;

use crate::ops::Real;
use crate::ops::simd::vectorised;

/// Rows a task.
const ROWS: usize = 16;

/// `ln sum_k e^(x_k - x_truth)` of each row.
pub(super) fn nats<F: Weights>(logits: &[F], truth: &[u32]) -> Vec<F> {
    let classes = logits.len() / truth.len().max(1);
    let of_row = |weights: &mut Vec<F>, (row, &class): (&[F], &u32)| {
        let (largest, sum) = F::weights(row, weights);
        sum.ln() - (row[class as usize] - largest)
    };
    let rows = logits.par_chunks(classes.max(1)).zip(truth).with_min_len(ROWS);
    rows.map_init(|| vec![F::from_f64(0.); classes], of_row).collect()
}

/// `grad (softmax - 1 at the truth)` of each row.
pub(super) fn slopes<F: Weights>(logits: &[F], grad: &[F], truth: &[u32]) -> Vec<F> {
    let classes = (logits.len() / truth.len().max(1)).max(1);
    let mut slopes = vec![F::from_f64(0.); logits.len()];
    let rows = slopes.par_chunks_mut(classes).zip(logits.par_chunks(classes)).with_min_len(ROWS);
    rows.zip(truth).zip(grad).for_each(|(((slopes, row), &class), &grad)| {
        let scale = grad / F::weights(row, slopes).1;
        slopes.iter_mut().for_each(|slope| *slope *= scale);
        slopes[class as usize] -= grad;
    });
    slopes
}

/// A softmax before it is divided by its sum.
pub(super) trait Weights: Real {
    /// Writes `e^(x - largest)` of each number of a row, and returns the largest and the sum of these. The sum is NaN if a number is,
    /// or if the largest is infinite.
    fn weights(row: &[Self], weights: &mut [Self]) -> (Self, Self);
}

impl Weights for f64 {
    fn weights(row: &[f64], weights: &mut [f64]) -> (f64, f64) {
        weights.copy_from_slice(row);
        double(weights, 1.)
    }
}

impl Weights for f32 {
    fn weights(row: &[f32], weights: &mut [f32]) -> (f32, f32) {
        single(row, weights)
    }
}

vectorised! {
    fn single(row: &[f32], weights: &mut [f32]) -> (f32, f32) {
        let largest = fold(row, f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest });
        weights.iter_mut().zip(row).for_each(|(weight, x)| *weight = exp(x - largest));
        (largest, fold(weights, 0., |sum, x| sum + x))
    }
}

vectorised! {
    pub(super) fn double(row: &mut [f64], temperature: f64) -> (f64, f64) {
        let largest = fold(row, f64::NEG_INFINITY, |largest, x| if x > largest { x } else { largest });
        row.iter_mut().for_each(|x| *x = exp_double((*x - largest) / temperature));
        (largest, fold(row, 0., |sum, x| sum + x))
    }
}

/// A sum, or a maximum, in sixteen lanes whatever the machine's, so that it is the same on all.
#[inline(always)]
fn fold<F: Copy>(values: &[F], start: F, f: impl Fn(F, F) -> F) -> F {
    let mut lanes = [start; 16];
    for sixteen in values.chunks(16) {
        lanes.iter_mut().zip(sixteen).for_each(|(lane, &x)| *lane = f(*lane, x));
    }
    lanes.into_iter().fold(start, f)
}

/// `e^x` of `x <= 0` as `2^n e^r`, where `n` is the integer nearest to `x / ln 2`, by seven terms of the series of `e^r`. The relative error
/// is below 2e-7; below `e^-87` it is 0, and of NaN it is NaN. The library's function calls for each number alone.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // A number of this size has no places behind the point, and its lowest bits count units.
    const UNITS: f32 = 12_582_912.; // 1.5 * 2^23
    // ln 2 in two parts, the first of so few bits that its product with n is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = x * std::f32::consts::LOG2_E + UNITS;
    let n = shifted - UNITS;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let series = [1. / 5040., 1. / 720., 1. / 120., 1. / 24., 1. / 6., 0.5, 1., 1.];
    let of_r = series.into_iter().fold(0., |sum, term| sum * r + term);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87. { 0. } else { of_r * power }
}

/// The same of a double, by fourteen terms: the relative error is below 4.5e-16, and below `e^-708` it is 0.
#[inline(always)]
fn exp_double(x: f64) -> f64 {
    const UNITS: f64 = 6_755_399_441_055_744.; // 1.5 * 2^52
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    let shifted = x * std::f64::consts::LOG2_E + UNITS;
    let n = shifted - UNITS;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let of_r = SERIES.into_iter().fold(0., |sum, term| sum * r + term);
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x < -708. { 0. } else { of_r * power }
}

/// `1 / 13!`, .., `1 / 1!`, `1 / 0!`.
const SERIES: [f64; 14] = {
    let (mut terms, mut factorial, mut k) = ([1.; 14], 1., 1);
    while k < 14 {
        factorial *= k as f64;
        terms[13 - k] = 1. / factorial;
        k += 1;
    }
    terms
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_roundings() {
        for i in 0..=870_000 {
            let x = i as f32 * -1e-4;
            let error = exp(x) as f64 / (x as f64).exp() - 1.;
            assert!(error.abs() < 2e-7, "e^{x}: relative error {error:e}");
        }
        assert_eq!([exp(0.), exp(-87.001), exp(-1e30), exp(f32::NEG_INFINITY)], [1., 0., 0., 0.]);
        assert!(exp(f32::NAN).is_nan());
        for i in 0..=708_000 {
            let x = i as f64 * -1e-3;
            let error = exp_double(x) / x.exp() - 1.;
            assert!(error.abs() < 4.5e-16, "e^{x}: relative error {error:e}");
        }
        assert_eq!([exp_double(0.), exp_double(-708.1), exp_double(f64::NEG_INFINITY)], [1., 0., 0.]);
        assert!(exp_double(f64::NAN).is_nan());
    }
}
