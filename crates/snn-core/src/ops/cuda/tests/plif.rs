//! Parametric LIF, against its steps one by one.

use candle_core::{DType, Result, Tensor};

use super::host::{self, bytes, tensor};
use super::lif::configs;
use super::{Cases, shapes};
use crate::ops::Real;
use crate::ops::lif::cuda::{Current, backward, forward, weight_gradient};
use crate::ops::testing::{assert_within, random, run};
use crate::{LifConfig, plif_step};

fn steps(xs: &Tensor, w: &Tensor, cfg: &LifConfig) -> Result<Tensor> {
    let mut v = (xs.get(0)?.zeros_like()? + cfg.v_reset.potential())?;
    let mut spikes = Vec::new();
    for t in 0..xs.dim(0)? {
        let (s, next) = plif_step(&xs.get(t)?, &v, w, cfg)?;
        spikes.push(s);
        v = next;
    }
    Tensor::stack(&spikes, 0)
}

/// Spikes bit for bit; gradients, whose sums Candle forms in another order, within the precision.
fn check<F: Real>(bound: f64) -> Result<()> {
    let (mut passes, mut weights) = (Cases::<F>::new(), Vec::new());
    for (i, shape) in shapes().into_iter().enumerate() {
        let xs = (random(&format!("xs {i}"), &shape, F::DTYPE)? * 1.5)?;
        let w = Tensor::new(0.3 - i as f64 / 5., xs.device())?.to_dtype(F::DTYPE)?;
        let cfg = configs()[i % 6];
        // Every other current is the same at all times.
        let constant = (i % 2 == 1).then_some(shape[0]);
        let xs = if constant.is_some() { xs.get(0)? } else { xs };
        let wanted = run(|x| steps(&x[0].broadcast_as(&shape)?, &x[1], &cfg), &[xs.clone(), w.clone()])?;
        let upstream = random("upstream", &shape, F::DTYPE)?;
        let current = Current { layout: xs.layout(), constant, learned: true };
        let (elements, spikes) = (xs.elem_count(), wanted[0].elem_count());
        passes.add(
            &format!("{cfg:?}, {shape:?}"),
            forward::<F>(&cfg, current)?,
            vec![bytes::<F>(&xs), bytes::<F>(&w), Cases::<F>::empty(spikes)],
            vec![(2, wanted[0].clone(), 0.)],
        );
        let launch = backward::<F>(&cfg, current, upstream.layout())?;
        let parts = vec![0xff; launch.grid as usize * DType::F64.size_in_bytes()];
        let operands =
            vec![bytes::<F>(&xs), bytes::<F>(&w), bytes::<F>(&upstream), Cases::<F>::empty(elements), parts];
        weights.push((launch.clone(), operands.clone(), w, wanted[2].clone()));
        passes.add(
            &format!("{cfg:?}, {shape:?}, backward"),
            launch,
            operands,
            vec![(3, wanted[1].clone(), bound)],
        );
    }
    passes.check();

    let first: Vec<_> =
        weights.iter().map(|(launch, operands, ..)| (launch.clone(), operands.clone())).collect();
    let Some(first) = host::run(&first) else { return Ok(()) };
    let mut second = Vec::new();
    for (left, (launch, _, w, _)) in first.iter().zip(&weights) {
        let sum = weight_gradient::<F>(launch.grid as usize)?;
        second.push((sum, vec![left[4].clone(), bytes::<F>(w), Cases::<F>::empty(1)]));
    }
    let results = host::run(&second).unwrap();
    for (left, (launch, _, _, wanted)) in results.iter().zip(&weights) {
        let got = tensor::<F>(&left[2], &[])?;
        // A sum of terms of both signs: to be measured by their size, which is that of their number's root and more.
        let size = (wanted.abs()? + 1.)?;
        assert_within(&launch.kernel, &got, wanted, &size, bound);
    }
    Ok(())
}

#[test]
fn single_precision_is_the_twins() -> Result<()> {
    check::<f32>(1e-5)
}

#[test]
fn double_precision_is_the_twins() -> Result<()> {
    check::<f64>(1e-13)
}
