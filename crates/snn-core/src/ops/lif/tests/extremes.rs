//! Currents and potentials that are huge, infinite or NaN.

use super::*;
use crate::ops::Real;

const INF: f64 = f64::INFINITY;

/// The largest number of the element type.
fn largest(dtype: DType) -> f64 {
    if dtype == DType::F32 { f32::MAX.into() } else { f64::MAX }
}

/// Distances to the threshold: infinite, huge (squares overflow), moderate.
fn distances(dtype: DType) -> Vec<f64> {
    let max = largest(dtype);
    let positive = [0., 1e-30, 0.3, 2., 88., 1e4, 1e15, 1e25, 1e38, max / 4., max, INF];
    positive.iter().flat_map(|&x| [-x, x]).collect()
}

fn check_surrogate<F: Real>(surrogate: Surrogate, x: f64) {
    let what = format!("{surrogate:?} of {:?} at {x}", F::DTYPE);
    let [value, slope] =
        [surrogate.value_of(F::from_f64(x)), surrogate.derivative_of(F::from_f64(x))].map(|y| y.to_f64());
    assert!((0. ..=1.).contains(&value), "{what}: {value}");
    assert!(slope >= 0. && slope.is_finite(), "{what}: slope {slope}");
    if x.is_infinite() {
        assert_eq!((value, slope), (if x > 0. { 1. } else { 0. }, 0.), "{what}");
    }
    if x.abs() > 1e15 {
        let step = if x > 0. { 1. } else { 0. };
        assert!(slope < 1e-29 && (value - step).abs() < 1e-6, "{what}: {value}, slope {slope}");
    }
}

#[test]
fn surrogates_are_defined_everywhere() {
    for surrogate in Surrogate::EACH {
        distances(DType::F32).into_iter().for_each(|x| check_surrogate::<f32>(surrogate, x));
        distances(DType::F64).into_iter().for_each(|x| check_surrogate::<f64>(surrogate, x));
        assert!(surrogate.value(f64::NAN).is_nan() && surrogate.derivative(f64::NAN).is_nan());
        let nan = f32::NAN;
        assert!(surrogate.value_of(nan).is_nan() && surrogate.derivative_of(nan).is_nan());
    }
}

#[test]
fn firing_is_defined_everywhere() -> Result<()> {
    for dtype in [DType::F16, DType::F32, DType::F64] {
        for surrogate in Surrogate::EACH {
            let xs = [distances(dtype), vec![f64::NAN, -f64::NAN]].concat();
            let x = candle_core::Var::from_tensor(&Tensor::new(&xs[..], &Device::Cpu)?.to_dtype(dtype)?)?;
            let spikes = surrogate.fire(&x)?;
            let wanted: Vec<f64> = flat(&x)?.iter().map(|&x| f64::from(x >= 0.)).collect();
            assert_eq!(flat(&spikes)?, wanted);
            let grads = (&spikes * 1e4)?.sum_all()?.backward()?;
            let grads = flat(grads.get(&x).expect("a gradient"))?;
            for (&x, grad) in flat(&x)?.iter().zip(grads) {
                let slope = surrogate.derivative(x) * 1e4;
                let slope = if slope.is_nan() { 0. } else { slope };
                // f16 is too coarse for more than this.
                let bound = if dtype == DType::F16 { 20. + slope / 100. } else { 1e-2 + slope * 1e-4 };
                assert!(
                    (grad - slope).abs() <= bound,
                    "{surrogate:?} at {x} in {dtype:?}: {grad}, not {slope}"
                );
                assert!(x.is_finite() || grad == 0.);
            }
        }
    }
    Ok(())
}

/// Every pair of these currents, then two moderate ones: `[4, pairs]`.
fn currents(dtype: DType) -> Result<Tensor> {
    let max = largest(dtype);
    let values = [0., 0.5, 2., -2., 1e25, -1e25, max / 4., -max / 4., INF, -INF, f64::NAN];
    let pairs = values.iter().flat_map(|&a| values.map(|b| (a, b)));
    let (first, second): (Vec<_>, Vec<_>) = pairs.unzip();
    let later = vec![1.5; first.len()];
    Tensor::new(vec![first, second, later.clone(), later], &Device::Cpu)?.to_dtype(dtype)
}

#[test]
fn twins_agree_on_any_current() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let xs = currents(dtype)?;
        for cfg in configs() {
            for cfg in [cfg, LifConfig { detach_reset: true, ..cfg }] {
                let (fused, slow) =
                    (run_on(&xs, |xs| lif(xs, &cfg))?, run_on(&xs, |xs| lif_reference(xs, &cfg))?);
                assert_identical(&format!("{cfg:?}, {dtype:?}: spikes"), &fused[0], &slow[0]);
                assert!(flat(&fused[0])?.iter().all(|&s| s == 0. || s == 1.), "{cfg:?}");
                for grads in [&fused[1], &slow[1]] {
                    assert!(flat(grads)?.iter().all(|g| g.is_finite()), "{cfg:?}, {dtype:?}: {grads}");
                }
                assert_relative(&format!("{cfg:?}: gradient"), &fused[1], &slow[1], rounding(dtype));
                let constant = run_on(&xs.get(0)?, |x| lif_constant(x, 4, &cfg))?;
                assert!(flat(&constant[1])?.iter().all(|g| g.is_finite()), "{cfg:?}, constant");
            }
        }
    }
    Ok(())
}

/// Spikes and gradient of `lif` and of its twin.
fn both(xs: &[[f32; 3]], cfg: &LifConfig) -> Result<[Vec<Vec<f64>>; 2]> {
    let xs = Tensor::new(xs.iter().map(|row| row.to_vec()).collect::<Vec<_>>(), &Device::Cpu)?;
    let flat = |out: Vec<Tensor>| out.iter().map(flat).collect::<Result<Vec<_>>>();
    Ok([flat(run_on(&xs, |xs| lif(xs, cfg))?)?, flat(run_on(&xs, |xs| lif_reference(xs, cfg))?)?])
}

#[test]
fn infinite_currents_fire_or_not_and_have_no_gradient() -> Result<()> {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for surrogate in Surrogate::EACH {
        for v_reset in RESETS {
            let cfg = LifConfig { surrogate, v_reset, ..Default::default() };
            for out in both(&[[inf, -inf, nan]], &cfg)? {
                assert_eq!(out, [vec![1., 0., 0.], vec![0.; 3]], "{cfg:?}");
            }
            // A hard reset clears the membrane; a soft one leaves it infinite.
            let later = if v_reset == Reset::Soft { 1. } else { 0. };
            for out in both(&[[inf, -inf, nan], [0.; 3], [0.; 3]], &cfg)? {
                assert_eq!(out[0], [1., 0., 0., later, 0., 0., later, 0., 0.], "{cfg:?}");
            }
        }
    }
    Ok(())
}
