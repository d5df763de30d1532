//! Residual blocks against SpikingJelly's SEW ResNet, pooling against PyTorch.

use candle_core::{DType, Device, Var};
use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Pool, Seed, SewFunction, SpikingNetwork};

use crate::common::{Golden, Result, assert_close, assert_relative, gradients};

/// A block as SpikingJelly has it, in a network of its own.
fn network(join: SewFunction, down: bool, params: &ParamStore) -> Result<SpikingNetwork> {
    let builder = SpikingNetwork::builder(&[4, 6, 6], LifConfig::default(), params.builder());
    let same = ConvConfig::new(3, 1, 1);
    let builder = match down {
        false => builder.residual(join, |block| block.conv(4, same).conv(4, same)),
        true => builder.residual_with_shortcut(
            join,
            |block| block.conv(8, ConvConfig::new(3, 2, 1)).conv(8, same),
            |shortcut| shortcut.conv(8, ConvConfig::new(1, 2, 0)),
        ),
    };
    Ok(builder.build()?)
}

/// The golden's name of a parameter of ours; its convolutions have no bias.
fn theirs(ours: &str) -> Option<String> {
    if let Some(rest) = ours.strip_prefix("0.shortcut.0.0.") {
        let number = if rest.starts_with("conv") { 0 } else { 1 };
        return Some(format!("downsample.{number}.{}", rest.split_once('.')?.1));
    }
    let (layer, rest) = ours.strip_prefix("0.0.")?.split_once('.')?;
    let (kind, rest) = rest.split_once('.')?;
    Some(format!("{kind}{}.{rest}", layer.parse::<usize>().ok()? + 1))
}

fn check_block(golden: &Golden, case: &str, join: SewFunction, dtype: DType, bound: f64) -> Result {
    let params = ParamStore::new(Seed(0), dtype, &Device::Cpu);
    let network = network(join, case.ends_with("down"), &params)?;
    let get = |name: &str| golden.get(&format!("{case}.{name}"));
    for (name, var) in params.trainable() {
        let value = match theirs(&name) {
            _ if name.ends_with("conv.bias") => var.zeros_like()?,
            Some(theirs) => get(&format!("param.{theirs}"))?.to_dtype(dtype)?,
            None => return Err(name.into()),
        };
        var.set(&value)?;
    }
    let xs = golden.var(&format!("{case}.x"), dtype)?;
    let ys = network.forward(Drive::Spikes(&xs), true)?;
    assert_close(&format!("{case}: y"), &ys, get("y")?, 0.);
    let trainable = params.trainable();
    let vars: Vec<&Var> = [&xs].into_iter().chain(trainable.iter().map(|(_, var)| var)).collect();
    let grads = gradients(&ys, get("gy")?, &vars)?;
    assert_relative(&format!("{case}: gx"), &grads[0], get("gx")?, bound);
    for ((name, _), grad) in trainable.iter().zip(&grads[1..]) {
        if let Some(theirs) = theirs(name).filter(|_| !name.ends_with("conv.bias")) {
            assert_relative(&format!("{case}: {name}"), grad, get(&format!("grad.{theirs}"))?, bound);
        }
    }
    for (name, var) in params.vars().iter().filter(|(name, _)| name.contains("running")) {
        let theirs = theirs(name).ok_or("no such statistic")?;
        assert_relative(&format!("{case}: {name}"), var, get(&format!("after.{theirs}"))?, bound);
    }
    assert_close(&format!("{case}: eval"), &network.forward(Drive::Spikes(&xs), false)?, get("eval")?, 0.);
    assert_close(
        &format!("{case}: prepared"),
        &network.prepare()?.forward(Drive::Spikes(&xs))?,
        get("eval")?,
        0.,
    );
    Ok(())
}

#[test]
fn residual_blocks_are_those_of_spikingjelly() -> Result {
    let golden = Golden::load("network")?;
    for (name, join) in [("add", SewFunction::Add), ("and", SewFunction::And), ("iand", SewFunction::Iand)] {
        for case in [format!("sew.{name}"), format!("sew.{name}.down")] {
            check_block(&golden, &case, join, DType::F64, 1e-10)?;
            check_block(&golden, &case, join, DType::F32, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn pooling_is_that_of_pytorch() -> Result {
    let golden = Golden::load("network")?;
    for kernel in 1..=3 {
        for (name, pool) in [("average", Pool::Average { kernel }), ("max", Pool::Max { kernel })] {
            for (values, dtype, bound) in ["spikes", "real"]
                .into_iter()
                .flat_map(|values| [(values, DType::F32, 1e-6), (values, DType::F64, 1e-14)])
            {
                let case = format!("pool.{name}.{kernel}.{values}");
                let xs = golden.var(&format!("{case}.x"), dtype)?;
                let ys = pool.apply(&xs)?;
                let get = |name: &str| golden.get(&format!("{case}.{name}"));
                assert_close(&format!("{case}: y"), &ys, get("y")?, bound);
                let grads = gradients(&ys, get("gy")?, &[&xs])?;
                assert_close(&format!("{case}: gx"), &grads[0], get("gx")?, bound);
            }
        }
    }
    Ok(())
}
