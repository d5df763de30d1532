//! Twenty steps of AdamW against `torch.optim.AdamW`, plain and clipped.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use snn_core::{AdamW, AdamWConfig, clip_gradients};

use crate::common::{Golden, Result, assert_close, flat};

const NAMES: [&str; 2] = ["a", "b"];

fn run(prefix: &str, max_norm: Option<f64>, mut see_norm: impl FnMut(usize, f64)) -> Result {
    let golden = Golden::load("adamw")?;
    let params: Vec<(String, Var)> = NAMES
        .iter()
        .map(|name| Ok((name.to_string(), golden.var(&format!("{name}.0"), DType::F64)?)))
        .collect::<Result<_>>()?;
    let mut optimiser = AdamW::new(params.clone(), AdamWConfig::default())?;
    for step in 0..20 {
        let mut grads: BTreeMap<String, Tensor> = NAMES
            .iter()
            .map(|name| Ok((name.to_string(), golden.get(&format!("{name}.grad"))?.get(step)?)))
            .collect::<Result<_>>()?;
        see_norm(step, clip_gradients(&mut grads, max_norm)?);
        optimiser.step(&grads, 1.)?;
        for (name, param) in &params {
            let wanted = golden.get(&format!("{prefix}{name}.after"))?.get(step)?;
            assert_close(&format!("{prefix}{name}, step {step}"), param.as_tensor(), &wanted, 1e-12);
        }
    }
    assert_eq!(optimiser.steps(), 20);
    Ok(())
}

#[test]
fn plain_steps_agree() -> Result {
    run("", None, |_, _| ())
}

#[test]
fn clipped_steps_and_norms_agree() -> Result {
    let norms = flat(Golden::load("adamw")?.get("clip.norm")?)?;
    run("clip.", Some(0.5), |step, norm| {
        assert!((norm - norms[step]).abs() <= 1e-12, "step {step}: {norm} and {}", norms[step]);
    })
}
