//! What reaches the threshold exactly fires, whatever the time constant.

use super::*;
use crate::ops::Real;
use crate::{Drive, ParamStore, Readout, SpikingLayer, SpikingStack};

/// Where 1/tau and tau both are rounded, and where neither is.
fn taus() -> impl Iterator<Item = f64> {
    (1..=1030).map(f64::from).chain([1.25, 1.3, 2.5, 3.3, 3.7, 10.1, 99.9, 1e3 + 0.1, 65_537., 1e6 + 3.])
}

/// Spikes of one time step in all ways that there are.
fn all_ways(xs: &[f64], cfg: &LifConfig, dtype: DType) -> Result<Vec<Vec<f64>>> {
    let x = Tensor::new(xs, &Device::Cpu)?.to_dtype(dtype)?;
    let v = (x.zeros_like()? + cfg.v_reset.potential())?;
    let (once, train) = (lif_step(&x, &v, cfg)?.0, x.unsqueeze(0)?);
    [lif(&train, cfg)?, lif_reference(&train, cfg)?, lif_constant(&x, 1, cfg)?, once]
        .iter()
        .map(flat)
        .collect()
}

#[test]
fn a_current_of_tau_reaches_a_threshold_of_one() -> Result<()> {
    for tau in taus() {
        let cfg = LifConfig { tau: Some(tau), ..Default::default() };
        let single = f64::from(tau as f32);
        let below = f64::from((tau as f32).next_down());
        for spikes in all_ways(&[single, below], &cfg, DType::F32)? {
            assert_eq!(spikes, [1., 0.], "f32, tau = {tau}");
        }
        for spikes in all_ways(&[tau, tau.next_down()], &cfg, DType::F64)? {
            assert_eq!(spikes, [1., 0.], "f64, tau = {tau}");
        }
    }
    Ok(())
}

#[test]
fn other_resets_reach_it_too() -> Result<()> {
    for tau in taus().filter(|tau| *tau < 1e5) {
        for dtype in [DType::F32, DType::F64] {
            // `V = V_reset` does not leak: `H = X + V_reset`.
            for v_reset in [Reset::Hard(0.), Reset::Hard(-0.25), Reset::Soft] {
                let cfg = LifConfig { tau: Some(tau), decay_input: false, v_reset, ..Default::default() };
                let x = 1. - v_reset.potential();
                for spikes in all_ways(&[x, x - 1e-6], &cfg, dtype)? {
                    assert_eq!(spikes, [1., 0.], "{cfg:?}, {dtype:?}");
                }
            }
            // `H = V_reset + X / tau`; whole numbers and a quarter are exact.
            let cfg = LifConfig { tau: Some(tau.ceil()), v_reset: Reset::Hard(-0.25), ..Default::default() };
            for spikes in all_ways(&[1.25 * tau.ceil()], &cfg, dtype)? {
                assert_eq!(spikes, [1.], "{cfg:?}, {dtype:?}");
            }
        }
    }
    Ok(())
}

/// Layers whose norm is a constant: its weight is 0 and its bias the current.
#[test]
fn layers_and_stacks_reach_it() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for tau in [2., 41., 47., 49., 55., 61., 82., 83., 98., 103.] {
            let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
            let cfg = LifConfig { tau: Some(tau), ..Default::default() };
            let layer = SpikingLayer::linear(3, 2, cfg, store.builder())?;
            for (name, var) in store.vars() {
                match name.as_str() {
                    "bn.weight" => var.set(&var.zeros_like()?)?,
                    "bn.bias" => var.set(&(var.ones_like()? * tau)?)?,
                    _ => {}
                }
            }
            let x = random("x", &[5, 3], dtype)?;
            let (spikes, constant) = (x.unsqueeze(0)?, Drive::Constant(&x, 1));
            let stack = SpikingStack::new(vec![layer.clone()]);
            let prepared = stack.prepare(&[3])?;
            for ys in [
                layer.forward_t(&spikes, false)?,
                layer.forward_t(&spikes, true)?,
                layer.forward_constant(&x, 1, false)?,
                layer.forward_constant(&x, 1, true)?,
                stack.readout(constant, Readout::Mean, false)?,
                stack.readout(constant, Readout::Mean, true)?,
                prepared.readout(constant, Readout::Mean)?,
                prepared.readout(Drive::Spikes(&spikes), Readout::Mean)?,
            ] {
                assert_eq!(flat(&ys)?, [1.; 10], "tau = {tau}, {dtype:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn twins_are_identical_where_they_divide() -> Result<()> {
    for (tau, decay_input) in [(41., true), (3.3, true), (41., false), (3.7, false)] {
        for v_reset in RESETS {
            let cfg = LifConfig { tau: Some(tau), decay_input, v_reset, ..Default::default() };
            for dtype in [DType::F32, DType::F64] {
                let wide = ((random("x", &[16, 2000], dtype)? * tau)? + 1.)?;
                let xs = if decay_input { wide } else { random("x", &[16, 2000], dtype)? };
                compare_twins(&cfg, &xs)?;
            }
        }
    }
    Ok(())
}

/// A power of two multiplies, as it always did.
fn check_powers<F: Real>() {
    for exponent in 0..8 {
        let tau = f64::from(1 << exponent);
        let neuron = Neuron::<F>::new(&LifConfig { tau: Some(tau), ..Default::default() });
        assert!(!neuron.divides, "{tau}");
        for i in 0..1000 {
            let (v, x) = (F::from_f64(f64::from(i) * 0.013 - 6.), F::from_f64(f64::from(i * i % 97) * 0.07));
            let (leak, drive) = (F::from_f64(1. - 1. / tau), F::from_f64(1. / tau));
            assert!(neuron.charge::<false>(v, x) == leak * v + drive * x);
            assert!(neuron.discharge::<false>(x) == (drive * x, leak * x));
        }
    }
    for tau in [1.5, 3., 41., 2f64.next_up(), 2f64.next_down(), 1e300] {
        assert!(Neuron::<F>::new(&LifConfig { tau: Some(tau), ..Default::default() }).divides, "{tau}");
    }
}

#[test]
fn powers_of_two_multiply() {
    check_powers::<f32>();
    check_powers::<f64>();
}

#[test]
fn gradients_are_divided_too() -> Result<()> {
    for tau in [41f32, 47., 3.3] {
        let cfg = LifConfig { tau: Some(tau.into()), ..Default::default() };
        let x = candle_core::Var::new(&[[tau]], &Device::Cpu)?; // the slope at the threshold is 1
        for neuron in [lif as fn(&Tensor, &LifConfig) -> Result<Tensor>, lif_reference] {
            let grads = (neuron(&x, &cfg)? * 0.7)?.sum_all()?.backward()?;
            let grad = grads.get(&x).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(grad, [0.7 / tau], "tau = {tau}");
        }
    }
    Ok(())
}
