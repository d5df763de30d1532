//! Columns of images: with them a matrix product is the CPU's convolution. Small whole numbers, so that no sum rounds.

use candle_core::{Device, Result, Tensor};

use super::Cases;
use super::host::bytes;
use crate::ops::Real;
use crate::ops::conv::cuda::add;
use crate::ops::conv::sizes;
use crate::ops::testing::{assert_identical, random};
use crate::{ConvConfig, conv2d};

fn whole<F: Real>(label: &str, shape: &[usize]) -> Result<Tensor> {
    (random(label, shape, F::DTYPE)? * 4.)?.round()
}

/// The three products of the CPU, and for each of our kernels what it must make of its operand for them to be right.
fn check<F: Real>() -> Result<()> {
    let mut cases = Cases::<F>::new();
    for (i, ([m, c, h, w], o, kernel, stride, padding)) in [
        ([1, 1, 1, 1], 1, 1, 1, 0),
        ([3, 2, 7, 7], 5, 3, 1, 1),
        ([2, 3, 9, 6], 4, 3, 2, 1),
        ([2, 2, 8, 5], 3, 4, 3, 2),
        ([5, 1, 4, 11], 2, 2, 1, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let (xs, weight) =
            (whole::<F>(&format!("xs {i}"), &[m, c, h, w])?, whole::<F>("w", &[o, c, kernel, kernel])?);
        let cfg = ConvConfig::new(kernel, stride, padding);
        let g = sizes(&xs, &weight, &cfg)?;
        let what = format!("{:?} {kernel} {stride} {padding}", xs.dims());
        // The columns are the convolutions with each tap's own kernel.
        let taps = c * kernel * kernel;
        let each = Tensor::eye(taps, F::DTYPE, &Device::Cpu)?.reshape((taps, c, kernel, kernel))?;
        let columns = conv2d(&xs, &each, &cfg)?.transpose(0, 1)?.contiguous()?;
        let operands = vec![bytes::<F>(&xs), Cases::<F>::empty(columns.elem_count())];
        cases.add(
            &format!("{what} columns"),
            g.columns_of_image::<F>(m)?,
            operands,
            vec![(1, columns.clone(), 0.)],
        );
        // With them, the product is the convolution.
        let product = weight.reshape((o, taps))?.matmul(&columns.reshape((taps, ()))?)?;
        let maps = conv2d(&xs, &weight, &cfg)?;
        let gathered = maps.transpose(0, 1)?.contiguous()?;
        assert_identical(&what, &product, &gathered.flatten_from(1)?);
        for (from, to, back) in [(&maps, &gathered, false), (&gathered, &maps, true)] {
            let operands = vec![bytes::<F>(from), Cases::<F>::empty(to.elem_count())];
            let wanted = vec![(1, to.clone(), 0.)];
            cases.add(&format!("{what} {back}"), g.exchange::<F>(m, back)?, operands, wanted);
        }
        // The adjoint: the gradient of the columns in the image, summed with whole numbers.
        let upstream = whole::<F>("upstream of columns", columns.dims())?;
        let gradient = pulled(&xs, &each, &cfg, &upstream)?;
        let operands = vec![bytes::<F>(&upstream), Cases::<F>::empty(xs.elem_count())];
        cases.add(&format!("{what} image"), g.image_of_columns::<F>(m)?, operands, vec![(1, gradient, 0.)]);
    }
    let (sum, part) = (random("sum", &[1000], F::DTYPE)?, random("part", &[1000], F::DTYPE)?);
    let operands = vec![bytes::<F>(&sum), bytes::<F>(&part)];
    cases.add("add", add::<F>(1000)?, operands, vec![(0, (&sum + &part)?, 0.)]);
    cases.check();
    Ok(())
}

/// The gradient in the image of `sum(columns * upstream)`.
fn pulled(xs: &Tensor, each: &Tensor, cfg: &ConvConfig, upstream: &Tensor) -> Result<Tensor> {
    let var = candle_core::Var::from_tensor(xs)?;
    let columns = conv2d(var.as_tensor(), each, cfg)?.transpose(0, 1)?;
    let grads = (columns * upstream)?.sum_all()?.backward()?;
    Ok(grads.get(&var).cloned().unwrap_or(xs.zeros_like()?))
}

#[test]
fn columns_are_the_cpus_in_both_precisions() -> Result<()> {
    check::<f32>()?;
    check::<f64>()
}
