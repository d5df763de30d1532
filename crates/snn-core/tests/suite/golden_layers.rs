//! Layers with other norms than batch norm, and with none, against torch and SpikingJelly.

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{ConvConfig, LayerConfig, LifConfig, Norm, ParamStore, Seed, SpikingLayer, SpikingStack};

use crate::common::{Golden, Result, assert_close, assert_relative, flat};

const MAPS: [&str; 3] = ["conv", "transposed", "linear"];

/// A layer with the parameters of a golden case.
fn layer(golden: &Golden, case: &str, norm: Norm, dtype: DType) -> Result<(ParamStore, SpikingLayer)> {
    let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
    let config = LayerConfig::from(LifConfig { v_threshold: 0.5, ..LifConfig::default() }).with_norm(norm);
    let conv = ConvConfig::new(3, 2, 1);
    let layer = match case.rsplit('.').next() {
        Some("conv") => SpikingLayer::conv(2, 4, conv, config, store.builder())?,
        Some("transposed") => {
            SpikingLayer::conv_transpose(2, 4, conv.with_output_padding(1), config, store.builder())?
        }
        _ => SpikingLayer::linear(9, 4, config, store.builder())?,
    };
    for (name, var) in store.vars() {
        var.set(&golden.get(&format!("{case}.{}", theirs(&name)))?.to_dtype(dtype)?)?;
    }
    Ok((store, layer))
}

/// The golden name of a parameter.
fn theirs(name: &str) -> String {
    match name.split_once('.') {
        Some(("bn", "weight" | "bias")) => name.replace('.', "_"),
        Some((_, rest)) => rest.to_owned(),
        None => name.to_owned(),
    }
}

/// Spikes and all gradients of one training pass, within `bound`.
fn check(golden: &Golden, case: &str, norm: Norm, dtype: DType, bound: f64) -> Result {
    let (store, layer) = layer(golden, case, norm, dtype)?;
    let xs = golden.var(&format!("{case}.x"), dtype)?;
    let spikes = layer.forward_t(&xs, true)?;
    assert_close(case, &spikes, golden.get(&format!("{case}.s"))?, 0.);
    let upstream = golden.get(&format!("{case}.gs"))?.to_dtype(dtype)?;
    let grads = (&spikes * upstream)?.sum_all()?.backward()?;
    let wanted = |name: &str| golden.get(&format!("{case}.g_{name}"));
    assert_relative(case, grads.get(&xs).ok_or("no gradient of the input")?, wanted("x")?, bound);
    for (name, got) in store.gradients(&grads)? {
        if norm != Norm::None && name.ends_with(".bias") && !name.starts_with("bn") {
            continue; // The norm takes it away.
        }
        assert_relative(&format!("{case}: {name}"), &got, wanted(&theirs(&name))?, bound);
    }
    for (name, var) in store.vars() {
        if let Some(statistic) = name.strip_prefix("bn.running_") {
            assert_relative(&name, &var, golden.get(&format!("{case}.after_{statistic}"))?, bound);
        }
    }
    // What is prepared, and what is not, evaluate alike; both fire.
    let (stack, readout) = (SpikingStack::new(vec![layer]), snn_core::Readout::Mean);
    let drive = snn_core::Drive::Spikes(&xs);
    let rates = stack.readout(drive, readout, false)?;
    let prepared = stack.prepare(&xs.dims()[2..])?.readout(drive, readout)?;
    assert_relative("prepared", &prepared, &rates, 1e-6);
    assert!(flat(&rates)?.iter().any(|r| *r > 0.));
    Ok(())
}

#[test]
fn without_a_norm() -> Result {
    let golden = Golden::load("layers")?;
    for map in MAPS {
        check(&golden, &format!("none.{map}"), Norm::None, DType::F64, 1e-12)?;
        check(&golden, &format!("none.{map}"), Norm::None, DType::F32, 1e-5)?;
    }
    Ok(())
}

#[test]
fn threshold_dependent_batch_norm() -> Result {
    let golden = Golden::load("layers")?;
    let norm = Norm::ThresholdDependent { alpha: 0.7, v_threshold: 0.5 };
    for map in MAPS {
        check(&golden, &format!("tdbn.{map}"), norm, DType::F64, 1e-10)?;
        check(&golden, &format!("tdbn.{map}"), norm, DType::F32, 1e-4)?;
    }
    Ok(())
}

#[test]
fn a_layer_without_a_norm_has_no_parameters_of_one() -> Result {
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let config = LayerConfig::from(LifConfig::default()).with_norm(Norm::None);
    let layer = SpikingLayer::linear(2, 3, config, store.builder())?;
    let names: Vec<_> = store.vars().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["linear.bias", "linear.weight"]);
    // A single value a channel has no statistics, and needs none.
    let xs = Var::from_tensor(&Tensor::ones((1, 1, 2), DType::F32, &Device::Cpu)?)?;
    assert_eq!(layer.forward_t(&xs, true)?.dims(), [1, 1, 3]);
    Ok(())
}
