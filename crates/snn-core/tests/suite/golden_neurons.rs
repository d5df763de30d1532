//! Neurons other than the paper's, against torch and SpikingJelly.

use candle_core::{DType, Device, Tensor};
use snn_core::{
    LayerConfig, LifConfig, Norm, ParamStore, Reset, Seed, SpikingLayer, Surrogate, lif, lif_reference,
};

use crate::common::{Golden, Result, assert_close, assert_relative, flat, gradients};

/// The neuron of the original FSVAE: `u_t = u_{t-1} (1 - o_{t-1}) / 4 + x_t`, `o_t = u_t > 0.2`, derivative 1 where `|u_t| < 1/2`.
fn fsvae() -> LifConfig {
    LifConfig {
        tau: Some(4. / 3.),
        v_threshold: 0.2,
        v_reset: Reset::Hard(0.),
        decay_input: false,
        detach_reset: false,
        surrogate: Surrogate::Window { centre: 0., width: 1., height: 1. },
        strict_threshold: true,
    }
}

#[test]
fn the_neuron_of_fsvae_bit_for_bit() -> Result {
    let golden = Golden::load("layers")?;
    for (name, dtype) in [("fsvae.f64", DType::F64), ("fsvae.f32", DType::F32)] {
        let get = |part: &str| golden.get(&format!("{name}.{part}"));
        let xs = golden.var(&format!("{name}.x"), dtype)?;
        let spikes = lif(&xs, &fsvae())?;
        assert_eq!(flat(&spikes)?, flat(get("s")?)?, "{name}");
        assert_eq!(flat(&gradients(&spikes, get("gs")?, &[&xs])?[0])?, flat(get("gx")?)?, "{name}");
        let twin = lif_reference(&xs, &fsvae())?;
        assert_close(name, &twin, get("s")?, 0.);
        let bound = if dtype == DType::F64 { 1e-14 } else { 1e-6 };
        assert_relative(name, &gradients(&twin, get("gs")?, &[&xs])?[0], get("gx")?, bound);
    }
    Ok(())
}

/// A chain whose synapse is the identity.
#[test]
fn the_neuron_of_fsvae_bit_for_bit_in_a_chain() -> Result {
    let golden = Golden::load("layers")?;
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let config = LayerConfig::from(fsvae()).with_norm(Norm::None);
    let layer = SpikingLayer::linear(8, 8, config, store.builder())?;
    for (name, var) in store.vars() {
        let identity = name.ends_with("weight");
        var.set(&if identity { Tensor::eye(8, DType::F32, &Device::Cpu)? } else { var.zeros_like()? })?;
    }
    let xs = golden.var("fsvae.f32.x", DType::F32)?;
    for train in [true, false] {
        let spikes = layer.forward_t(&xs, train)?;
        assert_eq!(flat(&spikes)?, flat(golden.get("fsvae.f32.s")?)?);
        let grad = gradients(&spikes, golden.get("fsvae.f32.gs")?, &[&xs])?.remove(0);
        assert_eq!(flat(&grad)?, flat(golden.get("fsvae.f32.gx")?)?);
    }
    Ok(())
}

#[test]
fn the_gaussian_surrogate() -> Result {
    let golden = Golden::load("layers")?;
    let sigma = flat(golden.get("gaussian.sigma")?)?[0];
    let gaussian = Surrogate::Gaussian { sigma };
    let xs = golden.var("gaussian.x", DType::F64)?;
    let points = flat(&xs)?;
    let values: Vec<f64> = points.iter().map(|x| gaussian.value(*x)).collect();
    let slopes: Vec<f64> = points.iter().map(|x| gaussian.derivative(*x)).collect();
    assert_close("value", &Tensor::new(values, &Device::Cpu)?, golden.get("gaussian.value")?, 1e-14);
    assert_close("derivative", &Tensor::new(slopes, &Device::Cpu)?, golden.get("gaussian.grad")?, 1e-14);
    let fired = gaussian.fire(&xs)?;
    let grad = gradients(&fired, &fired.ones_like()?, &[&xs])?.remove(0);
    assert_close("fired", &grad, golden.get("gaussian.grad")?, 1e-14);
    Ok(())
}

/// The config of a golden case of SpikingJelly's parametric LIF.
fn plif(case: &str) -> LifConfig {
    let v_reset = match case.split('.').nth(1) {
        Some("hard0") => Reset::Hard(0.),
        Some("hard_m01") => Reset::Hard(-0.1),
        _ => Reset::Soft,
    };
    LifConfig { v_reset, decay_input: case.contains("decay1"), ..LifConfig::default() }
}

/// A layer of the kernel in f32 and of its twin in f64, whose synapse is the identity.
#[test]
fn parametric_neurons_agree_with_spikingjelly() -> Result {
    let golden = Golden::load("layers")?;
    let cases: Vec<_> = golden.cases(".gw").into_iter().filter(|case| case.starts_with("plif")).collect();
    assert_eq!(cases.len(), 7);
    for case in cases {
        for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
            let config = LayerConfig::from(plif(&case)).with_norm(Norm::None).with_learned_tau();
            let layer = SpikingLayer::linear(7, 7, config, store.builder())?;
            let vars = store.vars();
            assert!(vars.iter().any(|(name, var)| name == "plif.w" && var.dims().is_empty()));
            for (name, var) in &vars {
                var.set(&match name.as_str() {
                    "linear.weight" => Tensor::eye(7, dtype, &Device::Cpu)?,
                    "plif.w" => golden.get(&format!("{case}.w"))?.to_dtype(dtype)?,
                    _ => var.zeros_like()?,
                })?;
            }
            let w = &vars.iter().find(|(name, _)| name == "plif.w").ok_or("no w")?.1;
            let xs = golden.var(&format!("{case}.x"), dtype)?;
            for train in [true, false] {
                let spikes = layer.forward_t(&xs, train)?;
                assert_close(&case, &spikes, golden.get(&format!("{case}.s"))?, 0.);
                let grads = gradients(&spikes, golden.get(&format!("{case}.gs"))?, &[&xs, w])?;
                assert_relative(&case, &grads[0], golden.get(&format!("{case}.gx"))?, bound);
                assert_relative(&case, &grads[1], golden.get(&format!("{case}.gw"))?, bound);
            }
        }
    }
    Ok(())
}

#[test]
fn a_learned_time_constant_begins_where_the_config_says_and_trains() -> Result {
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let lif = LifConfig { tau: Some(3.), ..LifConfig::default() };
    let layer = SpikingLayer::linear(4, 5, LayerConfig::from(lif).with_learned_tau(), store.builder())?;
    let w = || Ok::<_, Box<dyn std::error::Error>>(flat(&store.vars().last().ok_or("no w")?.1)?[0]);
    assert!((1. / (1. + (-w()?).exp()) - 1. / 3.).abs() < 1e-7);
    let before = w()?;
    let mut optimiser = snn_core::AdamW::new(store.trainable(), snn_core::AdamWConfig::default())?;
    let xs = Seed(1).normal("x", (6, 3, 4), (0., 1.), DType::F32, &Device::Cpu)?;
    let loss = layer.forward_t(&xs, true)?.sqr()?.sum_all()?;
    optimiser.step(&store.gradients(&loss.backward()?)?, 1.)?;
    assert_ne!(w()?, before);
    for tau in [None, Some(1.)] {
        let config = LayerConfig::from(LifConfig { tau, ..lif }).with_learned_tau();
        let error = SpikingLayer::linear(4, 5, config, store.builder()).unwrap_err().to_string();
        assert!(error.contains("neuron.tau"), "{error}");
    }
    Ok(())
}
