//! Batch norm against PyTorch: as an op, and inside of a layer.

use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use snn_core::{
    BatchNormed, LifConfig, ParamStore, Seed, SpikingLayer, batch_norm, batch_norm_reference, lif_reference,
};

use crate::common::{Golden, Result, assert_close, assert_relative, gradients};

type Op = fn(&Tensor, &Tensor, &Tensor, f64) -> CandleResult<BatchNormed>;

fn check(op: Op, dtype: DType, bound: f64) -> Result {
    let golden = Golden::load("conv")?;
    let [xs, weight, bias] = ["bn.x", "bn.weight", "bn.bias"].map(|name| golden.var(name, dtype));
    let (xs, weight, bias) = (xs?, weight?, bias?);
    let out = op(&xs, &weight, &bias, 1e-5)?;
    assert_relative("y", &out.ys, golden.get("bn.y")?, bound);
    let grads = gradients(&out.ys, golden.get("bn.gy")?, &[&xs, &weight, &bias])?;
    for (got, name) in grads.iter().zip(["bn.gx", "bn.gweight", "bn.gbias"]) {
        assert_relative(name, got, golden.get(name)?, bound);
    }
    // PyTorch's running statistics: momentum 0.1, the variance unbiased.
    let n = (xs.elem_count() / xs.dim(1)?) as f64;
    let moved = |name: &str, batch: &Tensor| -> Result<Tensor> {
        Ok(((golden.get(name)? * 0.9)? + (batch.to_dtype(DType::F64)? * 0.1)?)?)
    };
    let mean = moved("bn.running_mean.0", &out.mean)?;
    let variance = moved("bn.running_var.0", &(out.variance * (n / (n - 1.)))?)?;
    assert_relative("running mean", &mean, golden.get("bn.running_mean.1")?, bound);
    assert_relative("running variance", &variance, golden.get("bn.running_var.1")?, bound);
    Ok(())
}

#[test]
fn fused_agrees() -> Result {
    check(batch_norm, DType::F64, 1e-9)?;
    check(batch_norm, DType::F32, 1e-5)
}

#[test]
fn reference_agrees() -> Result {
    check(batch_norm_reference, DType::F64, 1e-9)
}

/// A linear layer whose synapse is the identity, with the affine map and the statistics of the golden file.
struct Identity {
    store: ParamStore,
    layer: SpikingLayer,
}

impl Identity {
    fn new(golden: &Golden) -> Result<Self> {
        let store = ParamStore::new(Seed(0), DType::F64, &Device::Cpu);
        let layer = SpikingLayer::linear(3, 3, LifConfig::default(), store.builder())?;
        let this = Self { store, layer };
        this.var("linear.weight")?.set(&Tensor::eye(3, DType::F64, &Device::Cpu)?)?;
        let bias = this.var("linear.bias")?;
        bias.set(&bias.zeros_like()?)?;
        for (name, source) in [
            ("bn.weight", "bn.weight"),
            ("bn.bias", "bn.bias"),
            ("bn.running_mean", "bn.running_mean.0"),
            ("bn.running_var", "bn.running_var.0"),
        ] {
            this.var(name)?.set(golden.get(source)?)?;
        }
        Ok(this)
    }

    fn var(&self, name: &str) -> Result<Var> {
        let found = self.store.vars().into_iter().find(|(key, _)| key == name);
        Ok(found.ok_or_else(|| format!("no variable {name}"))?.1)
    }
}

/// `[M, C, H, W]` -> `[1, M*H*W, C]`.
fn rows(xs: &Tensor) -> Result<Tensor> {
    Ok(xs.permute((0, 2, 3, 1))?.reshape((1, (), xs.dim(1)?))?)
}

#[test]
fn layer_moves_its_statistics_and_normalises_like_pytorch() -> Result {
    let golden = Golden::load("conv")?;
    let identity = Identity::new(&golden)?;
    let xs = rows(golden.get("bn.x")?)?;

    let spikes = identity.layer.forward_t(&xs, true)?;
    let wanted = lif_reference(&rows(golden.get("bn.y")?)?, &LifConfig::default())?;
    assert_close("spikes in training", &spikes, &wanted, 0.);
    for name in ["running_mean", "running_var"] {
        let wanted = golden.get(&format!("bn.{name}.1"))?;
        assert_close(name, identity.var(&format!("bn.{name}"))?.as_tensor(), wanted, 1e-12);
    }

    let spikes = identity.layer.forward_t(&xs, false)?;
    let wanted = lif_reference(&rows(golden.get("bn.eval.y")?)?, &LifConfig::default())?;
    assert_close("spikes in evaluation", &spikes, &wanted, 0.);
    Ok(())
}
