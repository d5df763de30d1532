//! LIF.

use candle_core::{DType, Result, Tensor};

use super::host::bytes;
use super::{Cases, shapes};
use crate::ops::Real;
use crate::ops::lif::cuda::{Current, backward, forward};
use crate::ops::testing::{random, run};
use crate::{LifConfig, Reset, Surrogate, lif, lif_constant};

/// Resets, leaks with and without a division, thresholds: each with a surrogate of its own.
pub(super) fn configs() -> Vec<LifConfig> {
    let base = LifConfig::default();
    let neurons = [
        base,
        LifConfig { tau: Some(3.), v_reset: Reset::Hard(-0.25), ..base },
        LifConfig { tau: Some(4. / 3.), decay_input: false, strict_threshold: true, ..base },
        LifConfig { tau: Some(2.5), v_reset: Reset::Soft, decay_input: false, ..base },
        LifConfig { tau: None, v_reset: Reset::Soft, detach_reset: true, ..base },
        LifConfig { tau: Some(2.), v_threshold: 0.5, detach_reset: true, ..base },
    ];
    let with = |(neuron, surrogate)| LifConfig { surrogate, ..neuron };
    neurons.into_iter().zip(Surrogate::EACH).map(with).collect()
}

/// 0, the same bits, but for the exponential function, of which every library has its own last bit.
pub(super) fn bound(cfg: &LifConfig, dtype: DType) -> f64 {
    match cfg.surrogate {
        Surrogate::Sigmoid { .. } | Surrogate::Gaussian { .. } if dtype == DType::F32 => 1e-6,
        Surrogate::Sigmoid { .. } | Surrogate::Gaussian { .. } => 1e-14,
        _ => 0.,
    }
}

fn add<F: Real>(cases: &mut Cases<F>, cfg: &LifConfig, xs: &Tensor, constant: Option<usize>) -> Result<()> {
    let what = format!("{cfg:?}, {:?}, {constant:?}", xs.dims());
    let cpu = |x: &[Tensor]| match constant {
        Some(steps) => lif_constant(&x[0], steps, cfg),
        None => lif(&x[0], cfg),
    };
    let wanted = run(cpu, std::slice::from_ref(xs))?;
    let current = Current { layout: xs.layout(), constant, learned: false };
    let (launch, spikes) = (forward::<F>(cfg, current)?, wanted[0].elem_count());
    let operands = vec![bytes::<F>(xs), Cases::<F>::empty(spikes)];
    cases.add(&what, launch, operands, vec![(1, wanted[0].clone(), 0.)]);

    let upstream = random("upstream", wanted[0].dims(), F::DTYPE)?;
    let launch = backward::<F>(cfg, current, upstream.layout())?;
    let operands = vec![bytes::<F>(xs), bytes::<F>(&upstream), Cases::<F>::empty(xs.elem_count())];
    cases.add(&what, launch, operands, vec![(2, wanted[1].clone(), bound(cfg, F::DTYPE))]);
    Ok(())
}

fn check<F: Real>() -> Result<()> {
    let mut cases = Cases::<F>::new();
    for (i, shape) in shapes().into_iter().enumerate() {
        let xs = (random(&format!("xs {i}"), &shape, F::DTYPE)? * 1.5)?;
        // All neurons on two shapes, one on each other.
        let configs = configs();
        let chosen = if i == 1 || i == 3 { &configs[..] } else { &configs[i % configs.len()..][..1] };
        for cfg in chosen {
            add(&mut cases, cfg, &xs, None)?;
            if i % 2 == 1 {
                add(&mut cases, cfg, &xs.get(0)?, Some(shape[0] + 2))?;
            }
        }
    }
    cases.check();
    Ok(())
}

#[test]
fn single_precision_is_the_cpus() -> Result<()> {
    check::<f32>()
}

#[test]
fn double_precision_is_the_cpus() -> Result<()> {
    check::<f64>()
}

#[test]
fn infinite_currents_are_the_cpus() -> Result<()> {
    let mut cases = Cases::<f32>::new();
    let xs = Tensor::new(
        &[[f32::INFINITY, -f32::INFINITY, 0.5], [1., f32::INFINITY, f32::MAX], [2., 1., 1.5]],
        &candle_core::Device::Cpu,
    )?;
    for cfg in configs().iter().filter(|cfg| matches!(cfg.v_reset, Reset::Hard(_))) {
        let spikes = lif(&xs, cfg)?;
        let launch = forward::<f32>(cfg, Current { layout: xs.layout(), constant: None, learned: false })?;
        cases.add("infinite", launch, vec![bytes::<f32>(&xs), Cases::<f32>::empty(9)], vec![(1, spikes, 0.)]);
    }
    cases.check();
    Ok(())
}
