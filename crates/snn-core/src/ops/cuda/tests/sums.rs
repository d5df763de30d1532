//! AdamW and the sums over time, bit for bit.

use candle_core::{Result, Tensor, Var};

use super::host::bytes;
use super::{Cases, shapes};
use crate::ops::Real;
use crate::ops::adamw::{self, Step};
use crate::ops::testing::{random, run};
use crate::ops::time::{cuda, weighted_sums};

fn adamw_is_the_cpus<F: Real>() -> Result<()> {
    let mut cases = Cases::<F>::new();
    let by = Step { beta1: 0.9, beta2: 0.999, eps: 1e-8, step_size: 0.013, root: 0.21, keep: 0.999 };
    for shape in shapes().iter().map(|shape| &shape[..]).chain([&[][..], &[1000]]) {
        let param = Var::from_tensor(&random("param", shape, F::DTYPE)?)?;
        let first = random("first", shape, F::DTYPE)?;
        let moments = Tensor::stack(&[&first, &random("second", shape, F::DTYPE)?.sqr()?], 0)?;
        let grad = random("grad", shape, F::DTYPE)?;
        let launch = adamw::cuda::step::<F>(param.layout(), moments.layout(), grad.layout(), by)?;
        let operands = vec![bytes::<F>(&param), bytes::<F>(&moments), bytes::<F>(&grad)];
        adamw::step(&param, &moments, &grad, by)?;
        let wanted = vec![(0, param.as_tensor().copy()?, 0.), (1, moments, 0.), (2, grad, 0.)];
        cases.add(&format!("adamw {shape:?}"), launch, operands, wanted);
    }
    cases.check();
    Ok(())
}

fn sums_are_the_cpus<F: Real>() -> Result<()> {
    let mut cases = Cases::<F>::new();
    for (i, shape) in shapes().into_iter().enumerate() {
        let ([steps, _], rows) = (shape, 1 + i % 3);
        let xs = random(&format!("xs {i}"), &shape, F::DTYPE)?;
        let weights = random("weights", &[rows, steps], F::DTYPE)?;
        let numbers = weights.to_dtype(candle_core::DType::F64)?.to_vec2()?;
        let wanted = run(|x| weighted_sums(&x[0], numbers.clone()), std::slice::from_ref(&xs))?;
        let upstream = random("upstream", wanted[0].dims(), F::DTYPE)?;
        for (xs, weights, ys) in
            [(&xs, weights.clone(), &wanted[0]), (&upstream, weights.t()?.contiguous()?, &wanted[1])]
        {
            let launch = cuda::weighted_sums::<F>(xs.layout(), ys.dim(0)?)?;
            let operands = vec![bytes::<F>(xs), bytes::<F>(&weights), Cases::<F>::empty(ys.elem_count())];
            cases.add(&format!("sums {:?}", xs.dims()), launch, operands, vec![(2, ys.clone(), 0.)]);
        }
    }
    cases.check();
    Ok(())
}

#[test]
fn adamw_in_both_precisions() -> Result<()> {
    adamw_is_the_cpus::<f32>()?;
    adamw_is_the_cpus::<f64>()
}

#[test]
fn sums_in_both_precisions() -> Result<()> {
    sums_are_the_cpus::<f32>()?;
    sums_are_the_cpus::<f64>()
}
