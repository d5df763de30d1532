//! Batch statistics by channel, and the coefficients of batch norm forward and backward.

use super::neuron::{Affine, Sums};
use crate::ops::chain::spec::Statistics;
use crate::ops::not_negative;
use crate::ops::simd::vectorised;

/// Mean and sum of squared deviations of each channel over a number of rows, in f64.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Rows that they are of.
    pub(super) fn count(&self) -> f64 {
        self.count
    }

    /// Of rows of channels.
    pub(super) fn of(rows: &[f32], channels: usize) -> Self {
        let count = (rows.len() / channels) as f64;
        // Around the first row, so that a large mean does not swallow a small variance.
        let pivot: Vec<f64> = rows[..channels].iter().map(|&x| f64::from(x)).collect();
        let (mut sum, mut square) = (vec![0f64; channels], vec![0f64; channels]);
        add_powers(rows, &pivot, &mut sum, &mut square);
        let squares = square.iter().zip(&sum).map(|(q, s)| not_negative(q - s * s / count)).collect();
        let mean = sum.iter().zip(&pivot).map(|(s, p)| p + s / count).collect();
        Self { count, mean, squares }
    }

    /// `[count, means.., squares..]`.
    pub(super) fn into_numbers(self) -> Vec<f64> {
        [vec![self.count], self.mean, self.squares].concat()
    }

    pub(super) fn from_numbers(numbers: &[f64]) -> Self {
        let (mean, squares) = numbers[1..].split_at(numbers.len() / 2);
        Self { count: numbers[0], mean: mean.to_vec(), squares: squares.to_vec() }
    }

    /// Of both lots of rows.
    pub(super) fn merge(mut self, other: &Self) -> Self {
        let total = self.count + other.count;
        let (share, cross) = (other.count / total, self.count * other.count / total);
        for c in 0..self.mean.len() {
            let d = other.mean[c] - self.mean[c];
            self.mean[c] += d * share;
            self.squares[c] += other.squares[c] + d * d * cross;
        }
        self.count = total;
        self
    }
}

vectorised! {
    /// `sum += x - pivot`, `square += (x - pivot)^2`, by channel.
    fn add_powers(rows: &[f32], pivot: &[f64], sum: &mut [f64], square: &mut [f64]) {
        let n = pivot.len();
        let (sum, square) = (&mut sum[..n], &mut square[..n]);
        for row in rows.chunks_exact(n) {
            for c in 0..n {
                let d = f64::from(row[c]) - pivot[c];
                sum[c] += d;
                square[c] += d * d;
            }
        }
    }
}

impl Statistics {
    pub(super) fn new(moments: &Moments) -> Self {
        let variance = moments.squares.iter().map(|q| q / moments.count).collect();
        Self { count: moments.count, mean: moments.mean.clone(), variance }
    }

    fn inverse_std(&self, c: usize, eps: f64) -> f64 {
        1. / (self.variance[c] + eps).sqrt()
    }

    /// What the centre, the mean in f32, lacks of the mean.
    fn rest(&self, c: usize) -> f64 {
        self.mean[c] - f64::from(self.mean[c] as f32)
    }

    /// `y -> weight (y - mean) / std + bias`.
    pub(super) fn affine(&self, weight: &[f32], bias: &[f32], eps: f64) -> Affine {
        let scale = |c: usize| f64::from(weight[c]) * self.inverse_std(c, eps);
        let channels = 0..self.mean.len();
        Affine {
            centre: self.mean.iter().map(|&mean| mean as f32).collect(),
            scale: channels.clone().map(|c| scale(c) as f32).collect(),
            shift: channels.map(|c| (f64::from(bias[c]) - scale(c) * self.rest(c)) as f32).collect(),
            rate: None,
        }
    }

    /// `sum g (y - mean)`, of sums that are taken around the centre.
    fn around_mean(&self, sums: &Sums, c: usize) -> f64 {
        sums.grad_current[c] - self.rest(c) * sums.grad[c]
    }

    /// Gradient of the weight.
    pub(super) fn weight_gradient(&self, sums: &Sums, eps: f64) -> Vec<f32> {
        let channels = 0..self.mean.len();
        channels.map(|c| (self.around_mean(sums, c) * self.inverse_std(c, eps)) as f32).collect()
    }

    /// The gradient of `y` as an affine map of the gradient `g` of the normalised current and of `y`, by
    /// channel: `weight/std (g - mean(g) - y^ mean(g y^)) = p g + q (y - centre) + r`.
    pub(super) fn gradient(&self, weight: &[f32], sums: &Sums, eps: f64) -> InputGradient {
        let centre = self.mean.iter().map(|&mean| mean as f32).collect();
        let (mut grad, mut current, mut constant) = (Vec::new(), Vec::new(), Vec::new());
        for (c, weight) in weight.iter().enumerate() {
            let inverse_std = self.inverse_std(c, eps);
            let scale = f64::from(*weight) * inverse_std;
            let slope = -scale * inverse_std * inverse_std * self.around_mean(sums, c) / self.count;
            grad.push(scale as f32);
            current.push(slope as f32);
            constant.push((-scale * sums.grad[c] / self.count - slope * self.rest(c)) as f32);
        }
        InputGradient { grad, rest: Some(OfBatch { current, centre, constant }) }
    }
}

/// See [`Statistics::gradient`].
#[derive(Debug)]
pub(super) struct InputGradient {
    grad: Vec<f32>,
    /// Of a map that depends on the batch.
    rest: Option<OfBatch>,
}

#[derive(Debug)]
struct OfBatch {
    current: Vec<f32>,
    centre: Vec<f32>,
    constant: Vec<f32>,
}

impl InputGradient {
    /// Of an affine map that does not depend on the batch.
    pub(super) fn fixed(affine: &Affine) -> Self {
        Self { grad: affine.scale.clone(), rest: None }
    }

    /// The gradient of each row of currents.
    pub(super) fn apply_in_place(&self, grads: &mut [f32], currents: &[f32]) {
        match &self.rest {
            None => scale(grads, &self.grad),
            Some(rest) => combine(grads, currents, &self.grad, &rest.current, &rest.centre, &rest.constant),
        }
    }
}

vectorised! {
    /// `g = p g`, by channel: of a current that is infinite, too, a number.
    fn scale(grads: &mut [f32], p: &[f32]) {
        for g in grads.chunks_exact_mut(p.len()) {
            g.iter_mut().zip(p).for_each(|(g, p)| *g *= p);
        }
    }
}

vectorised! {
    /// `g = p g + q (y - m) + r`, by channel.
    fn combine(grads: &mut [f32], currents: &[f32], p: &[f32], q: &[f32], m: &[f32], r: &[f32]) {
        let n = p.len();
        let (q, m, r) = (&q[..n], &m[..n], &r[..n]);
        for (g, y) in grads.chunks_exact_mut(n).zip(currents.chunks_exact(n)) {
            for c in 0..n {
                g[c] = p[c] * g[c] + q[c] * (y[c] - m[c]) + r[c];
            }
        }
    }
}
