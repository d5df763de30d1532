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
    // One by one, then all in one launch.
    let shapes: Vec<Vec<usize>> = shapes().into_iter().map(Vec::from).chain([vec![], vec![1000]]).collect();
    for shapes in shapes.chunks(1).chain([&shapes[..]]) {
        let random = |what: &str, i: usize| random(&format!("{what} {i}"), &shapes[i], F::DTYPE);
        let params = (0..shapes.len()).map(|i| random("param", i)).collect::<Result<Vec<_>>>()?;
        let params = params.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let moments = (0..shapes.len())
            .map(|i| Tensor::stack(&[random("first", i)?, random("second", i)?.sqr()?], 0))
            .collect::<Result<Vec<_>>>()?;
        let grads = (0..shapes.len()).map(|i| random("grad", i)).collect::<Result<Vec<_>>>()?;
        let all = |i: usize| [params[i].as_tensor(), &moments[i], &grads[i]];
        let layouts: Vec<_> = (0..shapes.len()).map(|i| all(i).map(Tensor::layout)).collect();
        let launch = adamw::cuda::launch::<F>(&layouts, by)?;
        let in_order = || (0..3).flat_map(|kind| (0..shapes.len()).map(move |i| (kind, i)));
        let operands = in_order().map(|(kind, i)| bytes::<F>(all(i)[kind])).collect();
        for i in 0..shapes.len() {
            adamw::step(&params[i], &moments[i], &grads[i], by)?;
        }
        let wanted = in_order().enumerate().map(|(place, (kind, i))| Ok((place, all(i)[kind].copy()?, 0.)));
        cases.add(&format!("adamw {shapes:?}"), launch, operands, wanted.collect::<Result<_>>()?);
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
