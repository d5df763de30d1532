//! LIF and IF neurons against SpikingJelly, step by step.

use candle_core::{DType, Tensor};
use snn_core::{LifConfig, Reset, lif, lif_reference, lif_step};

use crate::common::{Golden, Result, assert_close, assert_relative, gradients};

/// The config that a case is named after.
fn config(case: &str) -> Result<LifConfig> {
    let v_reset = match case.split('.').nth(1) {
        Some("hard0" | "tau3") => Reset::Hard(0.),
        Some("hard_m01") => Reset::Hard(-0.1),
        Some("soft") => Reset::Soft,
        _ => return Err(format!("unknown case {case}").into()),
    };
    let cfg = LifConfig {
        v_reset,
        decay_input: !case.contains("decay0"),
        detach_reset: case.contains("detach1"),
        ..LifConfig::default()
    };
    Ok(match case {
        "lif.tau3.7" => LifConfig { tau: Some(3.7), v_threshold: 0.6, ..cfg },
        _ if case.starts_with("if.") => LifConfig { tau: None, ..cfg },
        _ => cfg,
    })
}

type Neuron = fn(&Tensor, &LifConfig) -> candle_core::Result<Tensor>;

fn check(golden: &Golden, case: &str, neuron: Neuron, dtype: DType) -> Result<(Tensor, Tensor)> {
    let xs = golden.var(&format!("{case}.x"), dtype)?;
    let spikes = neuron(&xs, &config(case)?)?;
    assert_close(&format!("{case}: spikes"), &spikes, golden.get(&format!("{case}.s"))?, 0.);
    let grad = gradients(&spikes, golden.get(&format!("{case}.gs"))?, &[&xs])?.remove(0);
    Ok((grad, golden.get(&format!("{case}.gx"))?.clone()))
}

#[test]
fn both_twins_agree_in_f64() -> Result {
    let golden = Golden::load("lif")?;
    let cases = golden.cases(".gs");
    assert_eq!(cases.len(), 19);
    for case in &cases {
        for neuron in [lif as Neuron, lif_reference] {
            let (got, wanted) = check(&golden, case, neuron, DType::F64)?;
            assert_close(&format!("{case}: gradient"), &got, &wanted, 1e-9);
        }
    }
    Ok(())
}

#[test]
fn fused_agrees_in_f32() -> Result {
    let golden = Golden::load("lif")?;
    for case in golden.cases(".gs") {
        let (got, wanted) = check(&golden, &case, lif, DType::F32)?;
        // Measured: below 1e-6 for every case.
        assert_relative(&format!("{case}: gradient"), &got, &wanted, 1e-5);
    }
    Ok(())
}

#[test]
fn membrane_agrees_at_every_step() -> Result {
    let golden = Golden::load("lif")?;
    for case in golden.cases(".gs") {
        let (cfg, xs) = (config(&case)?, golden.get(&format!("{case}.x"))?);
        let (spikes, membrane) = (golden.get(&format!("{case}.s"))?, golden.get(&format!("{case}.v"))?);
        let rest = if let Reset::Hard(v) = cfg.v_reset { v } else { 0. };
        let mut v = (xs.get(0)?.zeros_like()? + rest)?;
        for t in 0..xs.dim(0)? {
            let (s, next) = lif_step(&xs.get(t)?, &v, &cfg)?;
            assert_close(&format!("{case}, t = {t}: spikes"), &s, &spikes.get(t)?, 0.);
            assert_close(&format!("{case}, t = {t}: membrane"), &next, &membrane.get(t)?, 1e-9);
            v = next;
        }
    }
    Ok(())
}
