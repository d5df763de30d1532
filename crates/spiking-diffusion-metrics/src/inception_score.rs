//! Inception score.

use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

use crate::input::{self, Rows};
use crate::spread::mean_and_std;
use crate::{Error, Result};

/// The result of [`inception_score`]: its mean and population standard deviation over the splits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct InceptionScore {
    /// The mean over the splits, which is the number to report; between 1 and the number of classes.
    pub mean: f64,
    /// The standard deviation over the splits (`ddof = 0`).
    pub std: f64,
}

/// Scores how clearly images belong to classes, and to how many of them: the Inception score of class logits (Salimans et
/// al., 2016).
///
/// With `p[n] = softmax(logits[n])` and `q` the mean of `p` over a split,
/// `IS = exp(mean over n of sum over c of p[n, c] (ln p[n, c] - ln q[c]))`, in `f64`.
///
/// Split `i` of `S` holds the rows `i N / S .. (i + 1) N / S`, rounded down, in the order given: shuffle the
/// rows first if their order means something (torch-fidelity does, by its own seed). The splits run in
/// parallel; the result does not depend on the number of threads.
///
/// # Shapes
/// `logits: [N, C]`, before the softmax.
///
/// # Errors
/// Returns an error if a logit is not finite, if `splits` is 0, or if there are fewer rows than splits.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::inception_score;
///
/// // Two classes, each certain and each as frequent: the best score there is.
/// let logits = Tensor::new(&[[1000.0, 0.0], [0.0, 1000.0]], &Device::Cpu)?;
/// assert!((inception_score(&logits, 1)?.mean - 2.0).abs() < 1e-12);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn inception_score(logits: &Tensor, splits: usize) -> Result<InceptionScore> {
    if splits == 0 {
        return Err(Error::config("splits", 0, "must be at least 1"));
    }
    let logits = input::features(logits, "logits", 0)?;
    if logits.rows < splits {
        return Err(Error::TooFew { what: "rows of logits", need: splits, got: logits.rows });
    }
    let bound = |i: usize| i * logits.rows / splits;
    let scores: Vec<f64> =
        (0..splits).into_par_iter().map(|i| score(&logits, bound(i), bound(i + 1))).collect();
    let (mean, std) = mean_and_std(&scores);
    Ok(InceptionScore { mean, std })
}

/// Score of the rows `start..end`.
fn score(logits: &Rows, start: usize, end: usize) -> f64 {
    let count = (end - start) as f64;
    let (mut marginal, mut negative_entropy) = (vec![0.0; logits.cols], 0.0);
    for n in start..end {
        let log_p = log_softmax(logits.row(n));
        for (q, log_p) in marginal.iter_mut().zip(&log_p) {
            let p = log_p.exp();
            *q += p / count;
            negative_entropy += x_log(p, *log_p);
        }
    }
    let entropy_of_mean: f64 = marginal.iter().map(|q| x_log(*q, q.ln())).sum();
    (negative_entropy / count - entropy_of_mean).exp()
}

/// `p ln p` with the limit 0 at `p = 0`.
fn x_log(p: f64, log_p: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * log_p }
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().fold(f64::NEG_INFINITY, |max, v| max.max(*v));
    let log_sum = row.iter().map(|v| (v - largest).exp()).sum::<f64>().ln();
    row.iter().map(|v| v - largest - log_sum).collect()
}
