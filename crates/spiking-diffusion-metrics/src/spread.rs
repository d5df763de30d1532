//! Mean and spread over subsets or splits.

/// Mean and population standard deviation (`ddof = 0`); `values` is not empty.
pub(crate) fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    (mean, variance.sqrt())
}
