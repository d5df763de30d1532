//! The distance of two distributions from samples of both.

use candle_core::{DType, Result, Tensor, bail};

/// The squared maximum mean discrepancy of samples under a sum of Gaussian kernels: `mean k(a, a') + mean k(b, b') - 2 mean k(a, b)`, with
/// `k(x, y) = sum_i exp(-|x - y|^2 / w_i)` and `w_i = 2^(i - count/2) w`, where `w`, which passes no gradient, is the mean of
/// `|x - y|^2` over all pairs of different samples of both.
///
/// # Shapes
/// `a: [N, C]`, `b: [M, C]` -> a scalar.
pub(super) fn rbf(a: &Tensor, b: &Tensor, count: usize) -> Result<Tensor> {
    let (n, m) = (a.dim(0)?, b.dim(0)?);
    let total = n + m;
    if n == 0 || m == 0 {
        bail!("esvae: a distance between {n} and {m} samples")
    }
    let all = Tensor::cat(&[a, b], 0)?;
    let squares = all.unsqueeze(0)?.broadcast_sub(&all.unsqueeze(1)?)?.sqr()?.sum(2)?;
    let sum = squares.detach().sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    // Where all samples are equal any width will do, whose inverse is a number in f32.
    let width = (sum / (total * total - total) as f64 / 2f64.powi((count / 2) as i32)).max(1e-30);
    let mut kernels = squares.zeros_like()?;
    for i in 0..count {
        kernels = (kernels + (&squares * (-1. / (width * 2f64.powi(i as i32))))?.exp()?)?;
    }
    let mean = |row: usize, rows: usize, column: usize, columns: usize| {
        kernels.narrow(0, row, rows)?.narrow(1, column, columns)?.mean_all()
    };
    (mean(0, n, 0, n)? + mean(n, m, n, m)?)? - (mean(0, n, n, m)? * 2.)?
}
