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
