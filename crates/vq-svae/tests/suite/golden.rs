//! One training step and an evaluation pass, as PyTorch and SpikingJelly make them (`scripts/golden/vqsvae.py`).
//! The step takes the path of training, whose layers are fused; another model runs them one by one.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, FiringRates, Model};
use vq_svae::{ImageSpec, Output, Reconstruction, Reduction, VqSvae, VqSvaeConfig};

use crate::{Fixture, assert_relative, assert_same, norm};

/// An element type, and how far values and gradients may be off.
type Precision = (DType, f64, f64);
/// Measured: below 3e-13, the worst a gradient.
const F64: Precision = (DType::F64, 1e-9, 1e-9);
/// Measured: below 2e-6, the worst a gradient. More than 1e-3 would be a flipped spike.
const F32: Precision = (DType::F32, 1e-5, 1e-4);

/// The tensors of a golden file.
pub(crate) struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    pub(crate) fn load(file: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let path = folder.join(format!("{file}.safetensors"));
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect())
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor `{name}`"))
    }

    fn scalar(&self, name: &str) -> f64 {
        self.get(name).to_scalar().unwrap()
    }

    /// The tensors `<prefix><name>`, by name.
    pub(crate) fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let named = self.0.iter().filter_map(|(key, xs)| Some((key.strip_prefix(prefix)?, xs)));
        named.map(|(name, xs)| (name.to_owned(), xs.clone())).collect()
    }

    pub(crate) fn images(&self, dtype: DType) -> Tensor {
        self.get("in.images").to_dtype(dtype).unwrap()
    }

    /// The model with the parameters of the file, which must be exactly ours.
    pub(crate) fn fixture(&self, cfg: &VqSvaeConfig, dtype: DType) -> Fixture {
        let fixture = Fixture::new(cfg, 0, dtype);
        let mut checkpoint = Checkpoint::new(VqSvae::KIND, cfg).unwrap();
        checkpoint.tensors = self.under("param.");
        let ours: Vec<_> = fixture.params.vars().into_iter().map(|(name, _)| name).collect();
        assert!(checkpoint.tensors.keys().eq(&ours), "parameters: {:?}", checkpoint.tensors.keys());
        fixture.params.restore(&checkpoint, "").unwrap();
        fixture
    }
}

fn paper() -> (Golden, VqSvaeConfig) {
    (Golden::load("paper"), VqSvaeConfig::paper(ImageSpec::MNIST))
}

/// The forward pass of `paper` under the printed form of Eq. 9.
fn paper_sum() -> (Golden, VqSvaeConfig) {
    let (mut golden, cfg) = paper();
    golden.0.retain(|name, _| !name.starts_with("loss.") && !name.starts_with("grad."));
    golden.0.extend(Golden::load("paper_sum").0);
    (golden, VqSvaeConfig { reduction: Reduction::Sum, ..cfg })
}

fn released_code() -> (Golden, VqSvaeConfig) {
    let (golden, cfg) = (Golden::load("released_code"), VqSvaeConfig::released_code(ImageSpec::MNIST));
    assert_eq!(cfg.reconstruction, Reconstruction::OverVariance { variance: golden.scalar("in.variance") });
    (golden, cfg)
}

/// The results of the training pass.
fn check_forward(golden: &Golden, fixture: &Fixture, (dtype, bound, _): Precision) -> Output {
    let out = fixture.model.forward_t(&golden.images(dtype), true).unwrap();
    assert_same("encoder spikes", &out.spikes_e, golden.get("out.spikes_e"));
    assert_same("generator spikes", &out.spikes_q, golden.get("out.spikes_q"));
    assert_same("codes", &out.codes, golden.get("out.codes"));
    assert_relative("z_E", &out.z_e, golden.get("out.z_e"), bound);
    assert_relative("reconstruction", &out.reconstruction, golden.get("out.reconstruction"), bound);
    out
}

/// The spike count of every layer, one by one, and that the results are those of the fused pass.
fn check_observed(golden: &Golden, fixture: &Fixture, fused: &Output, (dtype, bound, _): Precision) {
    let mut rates = FiringRates::default();
    let mut sizes = BTreeMap::new();
    let mut observe = |layer: &str, spikes: &Tensor| {
        sizes.insert(layer.to_owned(), spikes.elem_count() as f64);
        rates.record(layer, spikes)
    };
    let out = fixture.model.forward_observed(&golden.images(dtype), true, &mut observe).unwrap();
    assert_same("observed encoder spikes", &out.spikes_e, &fused.spikes_e);
    assert_same("observed generator spikes", &out.spikes_q, &fused.spikes_q);
    assert_same("observed codes", &out.codes, &fused.codes);
    assert_relative("observed reconstruction", &out.reconstruction, &fused.reconstruction, bound);
    assert!(rates.rates().keys().eq(golden.under("rate.").keys()));
    for (layer, rate) in rates.rates() {
        let count = |rate: f64| (rate * sizes[&layer]).round();
        assert_eq!(count(rate), count(golden.scalar(&format!("rate.{layer}"))), "spikes of {layer}");
    }
}

fn check_losses(golden: &Golden, fixture: &Fixture, out: &Output, (dtype, bound, _): Precision) -> Tensor {
    let losses = fixture.model.losses(&golden.images(dtype), out).unwrap();
    let names = ["reconstruction", "dense", "generator", "commitment"];
    let mut sum = 0.;
    for (name, value) in names.into_iter().zip(losses.values().unwrap()) {
        let wanted = golden.scalar(&format!("loss.{name}"));
        assert!((value - wanted).abs() <= bound * wanted, "{name}: {value}, not {wanted}");
        sum += wanted;
    }
    let total = losses.total().unwrap();
    assert_relative("total", &total, &Tensor::new(sum, &Device::Cpu).unwrap(), bound);
    total
}

/// Of every parameter. A norm takes away the bias of the convolution in front of it, whose gradient is therefore
/// 0, and rounding noise in PyTorch.
fn check_gradients(golden: &Golden, fixture: &Fixture, loss: &Tensor, (_, _, bound): Precision) {
    let grads = fixture.params.gradients(&loss.backward().unwrap()).unwrap();
    let wanted = golden.under("grad.");
    assert!(grads.keys().eq(wanted.keys()));
    let mut biases = 0;
    for (name, grad) in &grads {
        if let Some(layer) = name.strip_suffix("conv.bias") {
            let noise = 1e-6 * norm(&wanted[&format!("{layer}conv.weight")]);
            assert!(norm(grad) <= noise && norm(&wanted[name]) <= noise, "{name}: not 0");
            biases += 1;
        } else {
            assert_relative(&format!("gradient of {name}"), grad, &wanted[name], bound);
        }
    }
    assert_eq!((grads.len(), biases), (28, 6));
}

fn check_statistics(golden: &Golden, fixture: &Fixture, (_, bound, _): Precision) {
    let after = golden.under("after.");
    assert_eq!(after.len(), 12);
    for (name, wanted) in after {
        assert_relative(&name, fixture.var(&name).as_tensor(), &wanted, bound);
    }
}

/// With the statistics that the training pass left.
fn check_evaluation(golden: &Golden, fixture: &Fixture, (dtype, bound, _): Precision) {
    let (images, model) = (golden.images(dtype), &fixture.model);
    let (codes, reconstruction) = (golden.get("eval.codes"), golden.get("eval.reconstruction"));
    let out = model.forward_t(&images, false).unwrap();
    assert_same("codes of the pass", &out.codes, codes);
    assert_relative("reconstruction", &out.reconstruction, reconstruction, bound);
    let encoded = model.encode(&images).unwrap();
    assert_same("codes", &encoded, codes);
    assert_relative("decoded codes", &model.decode(&encoded).unwrap(), reconstruction, bound);
}

fn check((golden, cfg): (Golden, VqSvaeConfig), precision: Precision) {
    let fixture = golden.fixture(&cfg, precision.0);
    let out = check_forward(&golden, &fixture, precision);
    check_observed(&golden, &golden.fixture(&cfg, precision.0), &out, precision);
    check_statistics(&golden, &fixture, precision);
    let loss = check_losses(&golden, &fixture, &out, precision);
    check_gradients(&golden, &fixture, &loss, precision);
    check_evaluation(&golden, &fixture, precision);
}

#[test]
fn paper_in_f64() {
    check(paper(), F64);
}

#[test]
fn paper_in_f32() {
    check(paper(), F32);
}

#[test]
fn paper_sum_in_f64() {
    check(paper_sum(), F64);
}

#[test]
fn paper_sum_in_f32() {
    check(paper_sum(), F32);
}

#[test]
fn released_code_in_f64() {
    check(released_code(), F64);
}

#[test]
fn released_code_in_f32() {
    check(released_code(), F32);
}
