//! Statistics of a batch that is computed in shards: from what one shard sums up to what all do.

use candle_core::Result;

use super::check_count_of_all;
use crate::exchange::{self, Exchange};
use crate::ops::not_negative;

/// The mean of each channel over all shards, the biased variance of each, and the number of their elements: the mean first, and
/// then what lies around it.
///
/// `sum_around`: this shard's `sum (x - pivot)` and `sum (x - pivot)^2` of each channel, of `n` elements.
pub(super) fn moments_of_all(
    channels: usize,
    n: f64,
    sum_around: impl Fn(&[f64]) -> Vec<(f64, f64)>,
    exchange: &dyn Exchange,
) -> Result<Vec<f64>> {
    let of_all = |pivots: &[f64]| {
        let (first, second): (Vec<_>, Vec<_>) = sum_around(pivots).into_iter().unzip();
        exchange.merge([vec![n], first, second].concat(), exchange::add)
    };
    let sums = of_all(&vec![0.; channels])?;
    check_count_of_all(sums[0])?;
    let mut means: Vec<f64> = sums[1..=channels].iter().map(|sum| sum / sums[0]).collect();
    let sums = of_all(&means)?;
    let (n, (rests, squares)) = (sums[0], sums[1..].split_at(channels));
    // What rounding left in the mean.
    means.iter_mut().zip(rests).for_each(|(mean, rest)| *mean += rest / n);
    let variances =
        squares.iter().zip(rests).map(|(square, rest)| not_negative(square / n - (rest / n).powi(2)));
    let variances: Vec<f64> = variances.collect();
    Ok([means, variances, vec![n]].concat())
}

/// [`moments_of_all`] where a GPU has given the shard's own moments, `[2, C]`, which say what the sums are.
#[cfg(any(test, feature = "cuda"))]
pub(crate) fn merge_moments(n: f64, own: &[f64], exchange: &dyn Exchange) -> Result<Vec<f64>> {
    let (means, variances) = own.split_at(own.len() / 2);
    let sums = |((mean, variance), pivot): ((&f64, &f64), &f64)| {
        let off = mean - pivot;
        (n * off, n * (variance + off * off))
    };
    let sum_around = |pivots: &[f64]| means.iter().zip(variances).zip(pivots).map(sums).collect();
    moments_of_all(means.len(), n, sum_around, exchange)
}
