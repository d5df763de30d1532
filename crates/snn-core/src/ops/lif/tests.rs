mod extremes;
mod threshold;

use candle_core::{DType, Device};
use proptest::prelude::*;

use super::*;
use crate::ops::testing::{
    assert_identical, assert_relative, check_gradients, check_threads, flat, random, relative_error, run,
};
use crate::{Seed, Surrogate, direct_encode};

const RESETS: [Reset; 3] = [Reset::Hard(0.), Reset::Hard(-0.25), Reset::Soft];
/// `tau` and `decay_input`: an undecayed LIF, the paper's, an integrate-and-fire neuron.
const LEAKS: [(Option<f64>, bool); 3] = [(Some(2.), true), (Some(3.7), false), (None, true)];

fn configs() -> impl Iterator<Item = LifConfig> {
    let all = RESETS.into_iter().flat_map(|v_reset| LEAKS.map(|leak| (v_reset, leak)));
    all.flat_map(|(v_reset, (tau, decay_input))| {
        Surrogate::EACH.map(|surrogate| LifConfig {
            tau,
            decay_input,
            v_reset,
            surrogate,
            ..Default::default()
        })
    })
}

/// Currents in eighths between -1 and 2.5: sums and halvings are exact, and ties with the threshold are common.
fn dyadic(seed: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let xs = Seed(seed).uniform("x", shape, (-8., 20.), DType::F64, &Device::Cpu)?;
    (xs.round()? / 8.)?.to_dtype(dtype)
}

/// `[f(x), gradient of x]`.
fn run_on(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    run(|xs| f(&xs[0]), std::slice::from_ref(x))
}

/// Gradients of the twins differ by rounding alone.
fn rounding(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-12 } else { 1e-5 }
}

fn compare_twins(cfg: &LifConfig, xs: &Tensor) -> Result<()> {
    let fused = run_on(xs, |xs| lif(xs, cfg))?;
    let slow = run_on(xs, |xs| lif_reference(xs, cfg))?;
    assert_identical("spikes", &fused[0], &slow[0]);
    assert_relative("gradient", &fused[1], &slow[1], rounding(xs.dtype()));
    Ok(())
}

#[test]
fn gradients_are_those_of_the_smooth_neuron() -> Result<()> {
    for cfg in configs() {
        let xs = (random("x", &[6, 2, 3], DType::F64)? + 0.6)?;
        let what = format!("{cfg:?}");
        let x = xs.get(0)?;
        check_gradients(&what, |xs| lif_smooth(&xs[0], &cfg, None), &[xs], 1e-6, 1e-7)?;
        let constant = format!("constant, {what}");
        check_gradients(&constant, |x| lif_smooth(&x[0], &cfg, Some(5)), &[x], 1e-6, 1e-7)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn twins_agree(
        time_steps in 1usize..=12,
        neurons in prop_oneof![Just(1usize), 2usize..40, 255usize..=257, 1000usize..=3000],
        reset in 0usize..3,
        leak in prop_oneof![Just((Some(2.), true)), Just((Some(2.), false)), Just((None, true))],
        surrogate in 0usize..Surrogate::EACH.len(),
        flags in [any::<bool>(), any::<bool>(), any::<bool>()],

        seed: u64,
    ) {
        let (v_reset, surrogate) = (RESETS[reset], Surrogate::EACH[surrogate]);
        let [detach_reset, double, strict_threshold] = flags;
        let cfg =
            LifConfig { tau: leak.0, decay_input: leak.1, v_reset, surrogate, detach_reset, ..Default::default() };
        let cfg = LifConfig { strict_threshold, ..cfg };
        let dtype = if double { DType::F64 } else { DType::F32 };
        compare_twins(&cfg, &dyadic(seed, &[time_steps, neurons], dtype).unwrap()).unwrap();
    }

    #[test]
    fn constant_input_equals_direct_encoding(
        time_steps in 1usize..=12,
        neurons in prop_oneof![1usize..40, 255usize..=257, 1000usize..=2000],
        detach_reset: bool,
        seed: u64,
    ) {
        let cfg = LifConfig { detach_reset, ..Default::default() };
        let x = Seed(seed).normal("x", (neurons, 1, 1), (1., 1.), DType::F64, &Device::Cpu).unwrap();
        let once = run_on(&x, |xs| lif_constant(xs, time_steps, &cfg)).unwrap();
        let encoded = run_on(&x, |xs| lif(&direct_encode(xs, time_steps)?, &cfg)).unwrap();
        assert_identical("spikes", &once[0], &encoded[0]);
        assert_relative("gradient", &once[1], &encoded[1], 1e-14);
    }
}

#[test]
fn few_spikes_differ_on_any_input() -> Result<()> {
    let cfg = LifConfig { tau: Some(3.3), ..Default::default() };
    let xs = ((random("x", &[16, 20_000], DType::F32)? * 2.)? + 1.)?;
    let (fused, slow) = (lif(&xs, &cfg)?, lif_reference(&xs, &cfg)?);
    let differ: f64 = flat(&(&fused - &slow)?.abs()?)?.iter().sum();
    // Rounding (1e-7) against a density of potentials around the threshold below 1: a few in 320,000 at most.
    assert!(differ <= 3., "{differ} spikes differ");
    assert!(flat(&fused)?.iter().all(|&s| s == 0. || s == 1.));
    Ok(())
}

#[test]
fn fires_at_the_threshold_exactly() -> Result<()> {
    let below = 2f64.next_down();
    let xs = Tensor::new(&[[2., below]], &Device::Cpu)?; // H = X / 2
    assert_eq!(flat(&lif(&xs, &LifConfig::default())?)?, [1., 0.]);
    Ok(())
}

#[test]
fn detached_reset_changes_the_gradient() -> Result<()> {
    let xs = dyadic(3, &[8, 50], DType::F64)?;
    for v_reset in RESETS {
        let through = LifConfig { v_reset, ..Default::default() };
        let detached = LifConfig { detach_reset: true, ..through };
        compare_twins(&through, &xs)?;
        compare_twins(&detached, &xs)?;
        let gradient = |cfg| Ok::<_, candle_core::Error>(run_on(&xs, |xs| lif(xs, &cfg))?.remove(1));
        assert!(relative_error(&gradient(detached)?, &gradient(through)?)? > 0.01);
    }
    Ok(())
}

#[test]
fn views_equal_their_copies() -> Result<()> {
    let cfg = LifConfig::default();
    let xs = dyadic(4, &[9, 5, 7], DType::F64)?; // [N, T, C]
    let view = run_on(&xs, |xs| lif(&xs.transpose(0, 1)?, &cfg)?.transpose(0, 1))?;
    let copy = run_on(&xs, |xs| {
        lif(&xs.transpose(0, 1)?.force_contiguous()?, &cfg)?.transpose(0, 1)?.force_contiguous()
    })?;
    let part = run_on(&xs, |xs| lif(&xs.narrow(2, 1, 3)?, &cfg))?;
    let part_copy = run_on(&xs, |xs| lif(&xs.narrow(2, 1, 3)?.force_contiguous()?, &cfg))?;
    let x = xs.narrow(1, 2, 1)?.squeeze(1)?;
    let constant = run_on(&x, |x| lif_constant(&x.t()?, 6, &cfg))?;
    let constant_copy = run_on(&x, |x| lif_constant(&x.t()?.force_contiguous()?, 6, &cfg))?;
    for (a, b) in [(view, copy), (part, part_copy), (constant, constant_copy)] {
        assert_identical("spikes", &a[0], &b[0]);
        assert_identical("gradient", &a[1], &b[1]);
    }
    Ok(())
}

#[test]
fn wrong_inputs_are_errors() -> Result<()> {
    let cfg = LifConfig::default();
    for dtype in [DType::U8, DType::U32, DType::I64, DType::F16, DType::BF16] {
        let error = lif(&Tensor::zeros((3, 2), dtype, &Device::Cpu)?, &cfg).unwrap_err().to_string();
        assert!(error.contains("lif") && error.contains("f32 or f64"), "{error}");
        assert!(lif_constant(&Tensor::zeros(2, dtype, &Device::Cpu)?, 3, &cfg).is_err());
    }
    assert!(lif(&Tensor::new(1f32, &Device::Cpu)?, &cfg).is_err());
    assert!(lif_reference(&Tensor::new(1f32, &Device::Cpu)?, &cfg).is_err());
    Ok(())
}

#[test]
fn empty_inputs_are_fine() -> Result<()> {
    let cfg = LifConfig::default();
    for shape in [vec![4, 0], vec![4, 0, 3], vec![4, 2, 0], vec![0, 3], vec![0, 0], vec![0]] {
        let xs = Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?;
        let out = run_on(&xs, |xs| lif(xs, &cfg))?;
        assert_eq!((out[0].dims(), out[1].dims()), (&shape[..], &shape[..]));
    }
    for (shape, time_steps) in [(vec![0], 4), (vec![0, 3], 4), (vec![5], 0)] {
        let x = Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?;
        let out = run_on(&x, |x| lif_constant(x, time_steps, &cfg))?;
        assert_eq!(out[0].dims(), [vec![time_steps], shape.clone()].concat());
        assert_eq!(flat(&out[1])?, vec![0.; shape.iter().product()]);
    }
    Ok(())
}

#[test]
fn one_axis_is_one_neuron() -> Result<()> {
    let xs = Tensor::new(&[1.5f32, 1.5, 1.5, 1.5], &Device::Cpu)?;
    assert_eq!(lif(&xs, &LifConfig::default())?.to_vec1::<f32>()?, [0., 1., 0., 1.]);
    Ok(())
}

#[test]
fn threads_do_not_matter() -> Result<()> {
    let cfg = LifConfig { tau: Some(2.7), ..Default::default() };
    check_threads(|| {
        let xs = random("x", &[9, 5003], DType::F32)?;
        let varying = run_on(&xs, |xs| lif(xs, &cfg))?;
        let constant = run(|x| lif_constant(&x[0], 9, &cfg), &[(xs.get(0)? + 1.)?])?;
        Ok([varying, constant].concat())
    })
}
