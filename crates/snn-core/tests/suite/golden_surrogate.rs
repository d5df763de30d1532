//! Surrogates against SpikingJelly (ATan, sigmoid, its `Erf` for the normal density) and autograd (rectangle, triangle, window).

use candle_core::{DType, Device, Tensor};
use snn_core::Surrogate;

use crate::common::{Golden, Result, assert_close, flat, gradients};

const CASES: [(&str, Surrogate); 7] = [
    ("atan2", Surrogate::Atan { alpha: 2. }),
    ("atan3.5", Surrogate::Atan { alpha: 3.5 }),
    ("sigmoid4", Surrogate::Sigmoid { alpha: 4. }),
    ("rectangle1", Surrogate::Rectangle { width: 1. }),
    ("triangle1", Surrogate::Triangle { width: 1. }),
    ("gaussian0.4", Surrogate::Gaussian { sigma: 0.4 }),
    ("window", Surrogate::Window { centre: 0.25, width: 1.5, height: 0.3 }),
];

#[test]
fn value_and_derivative_agree() -> Result {
    let golden = Golden::load("surrogate")?;
    let xs = flat(golden.get("x")?)?;
    for (name, surrogate) in CASES {
        let evaluate = |f: &dyn Fn(f64) -> f64| {
            Tensor::from_iter(xs.iter().map(|&x| f(x)).collect::<Vec<_>>(), &Device::Cpu)
        };
        let values = evaluate(&|x| surrogate.value(x))?;
        assert_close(name, &values, golden.get(&format!("{name}.value"))?, 1e-12);
        let slopes = evaluate(&|x| surrogate.derivative(x))?;
        assert_close(name, &slopes, golden.get(&format!("{name}.grad"))?, 1e-12);
    }
    Ok(())
}

#[test]
fn firing_is_a_step_with_that_derivative() -> Result {
    let golden = Golden::load("surrogate")?;
    for (name, surrogate) in CASES {
        let xs = golden.var("x", DType::F64)?;
        let spikes = surrogate.fire(&xs)?;
        let step = golden.get("x")?.ge(0.)?.to_dtype(DType::F64)?;
        assert_close(name, &spikes, &step, 0.);
        if let Ok(theirs) = golden.get(&format!("{name}.spike")) {
            assert_close(name, &spikes, theirs, 0.);
        }
        let grad = gradients(&spikes, &spikes.ones_like()?, &[&xs])?.remove(0);
        assert_close(name, &grad, golden.get(&format!("{name}.grad"))?, 1e-12);
    }
    Ok(())
}
