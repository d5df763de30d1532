//! One training step, an evaluation pass and samples, as PyTorch makes them (`scripts/golden/fsvae.py`).

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use fsvae::{Divergence, Draws, FsvaeConfig, Output};
use snn_core::{Checkpoint, ParamStore};

use crate::{Fixture, assert_relative, assert_same, norm, tiny};

/// An element type, and how far values and gradients may be off.
pub(crate) type Precision = (DType, f64, f64);
pub(crate) const F64: Precision = (DType::F64, 1e-9, 1e-9);
/// More than 1e-3 would be a flipped spike.
pub(crate) const F32: Precision = (DType::F32, 1e-5, 1e-4);

const KLD: Divergence = Divergence::Kld { weight: 1e-4, floor: 1e-2 };

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

    /// The tensors `<prefix><name>`, by name.
    pub(crate) fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let named = self.0.iter().filter_map(|(key, xs)| Some((key.strip_prefix(prefix)?, xs)));
        named.map(|(name, xs)| (name.to_owned(), xs.clone())).collect()
    }

    pub(crate) fn images(&self, dtype: DType) -> Tensor {
        self.get("in.images").to_dtype(dtype).unwrap()
    }

    fn draws(&self) -> Draws {
        let scheduled = self.get("in.scheduled").to_vec1::<i64>().unwrap();
        let noise = self.get("in.noise");
        let at = |(t, scheduled): (usize, &i64)| (*scheduled == 1).then(|| noise.get(t).unwrap());
        let picks = self.get("in.picks").to_dtype(DType::U32).unwrap();
        Draws { picks, scheduled: scheduled.iter().enumerate().map(at).collect() }
    }

    /// Sets the parameters to those of the file, which must be exactly ours.
    pub(crate) fn restore(&self, params: &ParamStore) {
        let mut checkpoint = Checkpoint::new("golden", &()).unwrap();
        checkpoint.tensors = self.under("param.");
        let ours: Vec<_> = params.vars().into_iter().map(|(name, _)| name).collect();
        assert!(checkpoint.tensors.keys().eq(&ours), "parameters: {:?}", checkpoint.tensors.keys());
        params.restore(&checkpoint, "").unwrap();
    }

    /// Every gradient of a loss. A norm takes away the bias of the synapse in front of it, whose gradient is therefore 0, and rounding noise
    /// in PyTorch.
    pub(crate) fn check_gradients(&self, params: &ParamStore, loss: &Tensor, prefix: &str, bound: f64) {
        let grads = params.gradients(&loss.backward().unwrap()).unwrap();
        let wanted = self.under(prefix);
        assert!(grads.keys().eq(wanted.keys()) && grads.len() > 20);
        for (name, grad) in &grads {
            let layer = name.strip_suffix("conv.bias").or_else(|| name.strip_suffix("linear.bias"));
            match layer.filter(|layer| grads.contains_key(&format!("{layer}bn.weight"))) {
                Some(_) => assert!(norm(grad) <= 1e-6 && norm(&wanted[name]) <= 1e-6, "{name}: not 0"),
                None => assert_relative(&format!("{prefix}{name}"), grad, &wanted[name], bound),
            }
        }
    }

    /// The running statistics that the training pass left.
    pub(crate) fn check_statistics(&self, params: &ParamStore, bound: f64) {
        let (after, vars) = (self.under("after."), params.vars().into_iter().collect::<BTreeMap<_, _>>());
        for (name, wanted) in &after {
            assert_relative(name, vars[name].as_tensor(), wanted, bound);
        }
        assert_eq!(after.len(), vars.keys().filter(|name| name.contains("running")).count());
    }
}

fn check_pass(golden: &Golden, prefix: &str, out: &Output, bound: f64) {
    let wanted = |name: &str| golden.get(&format!("{prefix}.{name}"));
    let named = [("q_z", &out.q_z), ("p_z", &out.p_z), ("z", &out.z)];
    named.iter().for_each(|(name, got)| assert_same(&format!("{prefix}.{name}"), got, wanted(name)));
    assert_relative(
        &format!("{prefix}.reconstruction"),
        &out.reconstruction,
        wanted("reconstruction"),
        bound,
    );
}

fn check(file: &str, cfg: &FsvaeConfig, (dtype, of_values, of_gradients): Precision) {
    let golden = Golden::load(file);
    let (images, draws) = (golden.images(dtype), golden.draws());
    for (divergence, name) in [(cfg.divergence, "mmd"), (KLD, "kld")] {
        let cfg = FsvaeConfig { divergence, ..cfg.clone() };
        let fixture = Fixture::new(&cfg, 0, dtype);
        golden.restore(&fixture.params);
        let out = fixture.model.forward_t(&images, &draws, true).unwrap();
        check_pass(&golden, "out", &out, of_values);
        let losses = fixture.model.losses(&images, &out).unwrap();
        for (got, name) in [(&losses.reconstruction, "reconstruction"), (&losses.divergence, name)] {
            assert_relative(name, got, golden.get(&format!("loss.{name}")), of_values);
        }
        let total = losses.total().unwrap();
        golden.check_gradients(&fixture.params, &total, &format!("grad.{name}."), of_gradients);
        golden.check_statistics(&fixture.params, of_values);

        let tested = fixture.model.forward_t(&images, &draws, false).unwrap();
        check_pass(&golden, "eval", &tested, of_values);
        assert_same("encoded", &fixture.model.encode(&images, &draws.picks).unwrap(), &tested.z);
        let decoded = fixture.model.decode(&tested.z).unwrap();
        assert_relative("decoded", &decoded, golden.get("eval.reconstruction"), of_values);
        let samples = fixture.model.sample(&draws.picks).unwrap();
        assert_relative("samples", &samples, golden.get("sample.images"), of_values);
        let again = fixture.model.decode(&golden.get("sample.z").to_dtype(dtype).unwrap()).unwrap();
        assert_relative("samples of the golden spikes", &again, golden.get("sample.images"), of_values);
    }
}

#[test]
fn table1_in_f64() {
    check("table1", &tiny(FsvaeConfig::table1()), F64);
}

#[test]
fn table1_in_f32() {
    check("table1", &tiny(FsvaeConfig::table1()), F32);
}

#[test]
fn original_in_f64() {
    check("original", &tiny(FsvaeConfig::original(1)), F64);
}

#[test]
fn original_in_f32() {
    check("original", &tiny(FsvaeConfig::original(1)), F32);
}
