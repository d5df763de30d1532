//! Eight steps of Muon against `torch.optim.Muon`, and its state.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{Checkpoint, Muon, MuonConfig, Seed};

use crate::common::{Golden, Result, assert_close, assert_relative, flat};

const NAMES: [&str; 3] = ["wide", "tall", "square"];
const STEPS: usize = 8;

fn config() -> MuonConfig {
    MuonConfig { weight_decay: 0.1, ..MuonConfig::default() }
}

fn start(golden: &Golden) -> Result<Vec<(String, Var)>> {
    NAMES.iter().map(|name| Ok((name.to_string(), golden.var(&format!("{name}.0"), DType::F64)?))).collect()
}

fn gradients(golden: &Golden, step: usize) -> Result<BTreeMap<String, Tensor>> {
    let of = |name: &&str| Ok((name.to_string(), golden.get(&format!("{name}.grad"))?.get(step)?));
    NAMES.iter().map(of).collect()
}

#[test]
fn steps_agree_with_pytorch() -> Result {
    let golden = Golden::load("muon")?;
    let params = start(&golden)?;
    let mut muon = Muon::new(params.clone(), &config())?;
    for step in 0..STEPS {
        muon.step(&gradients(&golden, step)?, 1.)?;
        for (name, param) in &params {
            let wanted = golden.get(&format!("{name}.after"))?.get(step)?;
            assert_close(&format!("{name}, step {step}"), param.as_tensor(), &wanted, 1e-12);
        }
    }
    Ok(())
}

#[test]
fn a_kernel_is_a_matrix_of_output_channels_by_all_else() -> Result {
    let golden = Golden::load("muon")?;
    let grad = golden.get("wide.grad")?.get(0)?;
    let [flat_weight, kernel] = [vec![4, 9], vec![4, 1, 3, 3]].map(|shape| -> Result<_> {
        let weight = Var::zeros(shape.clone(), DType::F64, &Device::Cpu)?;
        let mut muon = Muon::new(vec![("w".into(), weight.clone())], &config())?;
        muon.step(&[("w".into(), grad.reshape(shape)?)].into(), 0.5)?;
        flat(weight.as_tensor())
    });
    assert_eq!(flat_weight?, kernel?);
    Ok(())
}

#[test]
fn singular_values_of_four_decades_survive_single_precision() -> Result {
    let normal = |label, shape| Seed(3).normal(label, shape, (0., 1.), DType::F64, &Device::Cpu);
    let scales = Tensor::arange(0u32, 64, &Device::Cpu)?
        .to_dtype(DType::F64)?
        .affine(-4. / 63. * 10f64.ln(), 0.)?
        .exp()?;
    let grad = normal("left", (64, 64))?.broadcast_mul(&scales)?.matmul(&normal("right", (64, 600))?)?;
    let [double, single] = [DType::F64, DType::F32].map(|dtype| -> Result<_> {
        let weight = Var::zeros((64, 600), dtype, &Device::Cpu)?;
        let mut muon = Muon::new(vec![("w".into(), weight.clone())], &config())?;
        muon.step(&[("w".into(), grad.to_dtype(dtype)?)].into(), 1.)?;
        Ok(weight.as_tensor().clone())
    });
    // In bfloat16, which PyTorch computes in, every product alone is off by up to 4e-3.
    assert_relative("weight", &single?, &double?, 1e-3);
    Ok(())
}

#[test]
fn it_goes_on_from_its_state() -> Result {
    let golden = Golden::load("muon")?;
    let (params, twins) = (start(&golden)?, start(&golden)?);
    let mut muon = Muon::new(params.clone(), &config())?;
    muon.step(&gradients(&golden, 0)?, 1.)?;
    let mut checkpoint = Checkpoint::new("state", &0)?;
    checkpoint.tensors = muon.snapshot("muon.");
    for ((_, twin), (_, param)) in twins.iter().zip(&params) {
        twin.set(&param.as_tensor().copy()?)?;
    }
    let mut other = Muon::new(twins.clone(), &config())?;
    other.restore(&checkpoint, "muon.")?;
    muon.step(&gradients(&golden, 1)?, 1.)?;
    other.step(&gradients(&golden, 1)?, 1.)?;
    for ((name, twin), (_, param)) in twins.iter().zip(&params) {
        assert_eq!(flat(twin.as_tensor())?, flat(param.as_tensor())?, "{name}");
    }
    checkpoint.tensors.remove("muon.tall");
    assert!(other.restore(&checkpoint, "muon.").unwrap_err().to_string().contains("muon.tall"));
    Ok(())
}

#[test]
fn what_it_does_not_take_is_refused_by_name() -> Result {
    let vector = Var::zeros(3, DType::F32, &Device::Cpu)?;
    let refused = Muon::new(vec![("bias".into(), vector.clone())], &config()).unwrap_err();
    assert!(refused.to_string().contains("`bias` is [3]"), "{refused}");
    assert!(!MuonConfig::default().moves("layers.0.bias", &vector));
    let matrix = Var::zeros((2, 3), DType::F32, &Device::Cpu)?;
    assert!(MuonConfig::default().moves("layers.0.weight", &matrix));
    assert!(!MuonConfig::default().moves("head.weight", &matrix));
    for (cfg, field) in [
        (MuonConfig { lr: f64::NAN, ..config() }, "muon.lr"),
        (MuonConfig { weight_decay: -1., ..config() }, "muon.weight_decay"),
        (MuonConfig { lr: 2., weight_decay: 0.6, ..config() }, "muon.weight_decay"),
        (MuonConfig { momentum: 1., ..config() }, "muon.momentum"),
    ] {
        assert!(cfg.validate().unwrap_err().to_string().contains(field), "{cfg:?}");
    }
    config().validate()?;
    Ok(())
}
