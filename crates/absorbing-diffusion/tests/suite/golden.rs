//! One SDID training step and an evaluation pass against PyTorch and SpikingJelly (`scripts/golden/sdid.py`).
//! The step takes the path of training, whose layers are fused; another model runs them one by one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use absorbing_diffusion::{
    AbsorbingProcess, Denoiser, NoisyCodes, Sdid, SdidConfig, TokenInput, Weighting, from_fn, loss,
};
use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, Model, ParamStore, Seed};

const WEIGHTINGS: [(Weighting, &str); 3] =
    [(Weighting::Elbo, "elbo"), (Weighting::Released, "released"), (Weighting::Uniform, "uniform")];
const CASES: [(&str, TokenInput); 2] =
    [("sdid_raw", TokenInput::Raw), ("sdid_embedding", TokenInput::Embedding { dim: 6 })];

struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    fn load(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let file = folder.join(format!("{name}.safetensors"));
        Self(candle_core::safetensors::load(file, &Device::Cpu).unwrap().into_iter().collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor `{name}`"))
    }

    fn tokens(&self, name: &str) -> Tensor {
        self.get(name).to_dtype(DType::U32).unwrap()
    }

    /// The tensors named `<prefix><name>`, by name.
    fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let strip =
            |(name, value): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.into(), value.clone()));
        self.0.iter().filter_map(strip).collect()
    }

    /// The model with the parameters and statistics of before the step.
    fn model(&self, token_input: TokenInput, dtype: DType) -> (ParamStore, Sdid) {
        let channels = [8, 16, 24, 32, 16];
        let cfg =
            SdidConfig { channels: channels.to_vec(), token_input, ..SdidConfig::released_code(20, (7, 7)) };
        self.model_of(&cfg, dtype)
    }

    fn model_of(&self, cfg: &SdidConfig, dtype: DType) -> (ParamStore, Sdid) {
        let params = ParamStore::new(Seed(0), dtype, &Device::Cpu);
        let sdid = Sdid::new(cfg, params.builder()).unwrap();
        let mut checkpoint = Checkpoint::new(Sdid::KIND, cfg).unwrap();
        checkpoint.tensors = self.under("param.");
        params.restore(&checkpoint, "").unwrap();
        (params, sdid)
    }
}

fn flat(xs: &Tensor) -> Vec<f64> {
    xs.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn norm(xs: impl IntoIterator<Item = f64>) -> f64 {
    xs.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The largest element by size; NaN if there is one.
fn largest(xs: impl IntoIterator<Item = f64>) -> f64 {
    xs.into_iter().map(f64::abs).fold(0., |a, x| if a >= x { a } else { x })
}

#[track_caller]
fn differences(what: &str, got: &Tensor, wanted: &Tensor) -> Vec<f64> {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    flat(got).iter().zip(flat(wanted)).map(|(x, y)| x - y).collect()
}

/// Asserts that no element is off by more than `bound` times the largest.
#[track_caller]
fn assert_values(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    let error = largest(differences(what, got, wanted)) / largest(flat(wanted));
    assert!(error <= bound, "{what}: off by {error:e} of the largest, allowed {bound:e}");
}

/// Asserts `|got - wanted| <= bound |wanted|`, in the Euclidean norm.
#[track_caller]
fn assert_gradient(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    let error = norm(differences(what, got, wanted)) / norm(flat(wanted));
    assert!(error <= bound, "{what}: relative error {error:e}, allowed {bound:e}");
}

/// The spike count of every layer, one by one, and that the logits are those of the fused pass.
fn check_observed(what: impl Fn(&str) -> String, golden: &Golden, sdid: &Sdid, fused: &Tensor) {
    let (h_t, t, rates) = (golden.tokens("out.h_t"), golden.tokens("in.t"), golden.under("rate."));
    let mut layers = BTreeSet::new();
    let mut observe = |layer: &str, spikes: &Tensor| {
        let wanted = flat(&rates[layer])[0] * spikes.elem_count() as f64;
        assert!((wanted - wanted.round()).abs() < 1e-6, "{wanted} is no number of spikes");
        assert_eq!(flat(spikes).iter().sum::<f64>(), wanted.round(), "{}", what(layer));
        layers.insert(layer.to_owned());
        Ok(())
    };
    let logits = sdid.logits_observed(&NoisyCodes::new(&h_t, &t, &[]), true, &mut observe).unwrap();
    assert!(layers.iter().eq(rates.keys()) && rates.len() == 5);
    let bound = if fused.dtype() == DType::F64 { 1e-9 } else { 1e-5 };
    assert_values(&what("observed logits"), &logits, fused, bound);
}

/// The step under one weighting, in one type: everything that the golden file holds of it.
fn check(name: &str, token_input: TokenInput, weighting: (Weighting, &str), dtype: DType) {
    let (of_values, of_gradients) = if dtype == DType::F64 { (1e-9, 1e-9) } else { (1e-4, 1e-3) };
    let what = |part: &str| format!("{name}, {}, {dtype:?}: {part}", weighting.1);
    let golden = Golden::load(name);
    let (params, sdid) = golden.model(token_input, dtype);
    let process = AbsorbingProcess::new(sdid.config().codes, sdid.config().steps).unwrap();
    let (h0, t) = (golden.tokens("in.h0"), golden.tokens("in.t"));
    let u = golden.get("in.u").to_dtype(dtype).unwrap();

    // What the denoiser was given, and made of it.
    let seen = RefCell::new(None);
    let denoiser = from_fn(|h_t, t, train| {
        let logits = sdid.forward_t(h_t, t, train)?;
        seen.replace(Some((h_t.clone(), logits.clone())));
        Ok(logits)
    });
    let total = loss(&process, &denoiser, &h0, &t, &u, weighting.0, true).unwrap();
    let (given, logits) = seen.take().unwrap();

    let h_t = golden.tokens("out.h_t");
    assert_eq!(flat(&given), flat(&h_t), "{}", what("h_t"));
    assert_values(&what("logits"), &logits, golden.get("out.logits"), of_values);
    check_observed(what, &golden, &golden.model(token_input, dtype).1, &logits);
    assert_values(&what("loss"), &total, golden.get(&format!("loss.{}", weighting.1)), of_values);

    let gradients = params.gradients(&total.backward().unwrap()).unwrap();
    let wanted = golden.under(&format!("grad.{}.", weighting.1));
    assert!(gradients.keys().eq(wanted.keys()));
    for (parameter, gradient) in &gradients {
        let what = what(&format!("gradient of {parameter}"));
        match parameter.strip_suffix("conv.bias") {
            // 0 in exact arithmetic, before a norm that takes the mean away; exactly 0 here.
            Some(layer) => {
                let scale = norm(flat(&wanted[&format!("{layer}conv.weight")]));
                assert!(norm(flat(&wanted[parameter])) <= 1e-6 * scale, "{what}");
                assert!(scale > 0. && flat(gradient).iter().all(|&x| x == 0.), "{what}");
            }
            None => assert_gradient(&what, gradient, &wanted[parameter], of_gradients),
        }
    }

    let logits = sdid.forward_t(&h_t, &t, false).unwrap();
    assert_values(&what("logits in evaluation"), &logits, golden.get("eval.logits"), of_values);
    // Moved once, by the training pass; not by that of evaluation.
    let vars: BTreeMap<_, _> = params.vars().into_iter().collect();
    let after = golden.under("after.");
    assert_eq!(after.len(), 10);
    after.iter().for_each(|(name, wanted)| assert_values(&what(name), &vars[name], wanted, of_values));
}

fn check_all((name, token_input): (&str, TokenInput), dtype: DType) {
    WEIGHTINGS.iter().for_each(|&weighting| check(name, token_input, weighting, dtype));
}

#[test]
fn raw_numbers_in_double_precision() {
    check_all(CASES[0], DType::F64);
}

#[test]
fn raw_numbers_in_single_precision() {
    check_all(CASES[0], DType::F32);
}

#[test]
fn embeddings_in_double_precision() {
    check_all(CASES[1], DType::F64);
}

#[test]
fn embeddings_in_single_precision() {
    check_all(CASES[1], DType::F32);
}

#[test]
fn names_are_those_of_pytorch() {
    for (name, token_input) in CASES {
        let golden = Golden::load(name);
        let (params, _) = golden.model(token_input, DType::F32);
        let names = |vars: Vec<(String, _)>| vars.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
        let keys = |prefix: &str| golden.under(prefix).into_keys().collect::<BTreeSet<_>>();
        assert_eq!(names(params.vars()), keys("param."));
        let statistics = &names(params.vars()) - &names(params.trainable());
        assert_eq!(statistics, keys("after."));
        for (_, weighting) in WEIGHTINGS {
            assert_eq!(names(params.trainable()), keys(&format!("grad.{weighting}.")));
        }
    }
}

/// The twin without spikes (`scripts/golden/analog.py`): a training step and an evaluation pass, with what is prepared.
#[test]
fn the_twin_without_spikes() {
    for (dtype, bound) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
        let golden = Golden::load("sdid_twin");
        let cfg = SdidConfig {
            channels: vec![5, 6, 4],
            token_input: TokenInput::Embedding { dim: 3 },
            ..SdidConfig::released_code(7, (4, 4)).twin()
        };
        let (params, sdid) = golden.model_of(&cfg, dtype);
        let process = AbsorbingProcess::new(7, 16).unwrap();
        let (h0, t) = (golden.tokens("in.h0"), golden.tokens("in.t"));
        let (h_t, u) = (golden.tokens("out.h_t"), golden.get("in.u").to_dtype(dtype).unwrap());
        let denoiser = from_fn(|h_t, t, train| sdid.forward_t(h_t, t, train));
        let total = loss(&process, &denoiser, &h0, &t, &u, Weighting::Elbo, true).unwrap();
        assert_values("loss", &total, golden.get("loss.elbo"), bound);
        let (gradients, wanted) =
            (params.gradients(&total.backward().unwrap()).unwrap(), golden.under("grad."));
        assert!(gradients.keys().eq(wanted.keys()) && wanted.len() == 3 + 3 * 4 + 2);
        for (name, gradient) in &gradients {
            if name.ends_with("conv.bias") {
                assert!(
                    flat(gradient).iter().all(|&x| x == 0.) && norm(flat(&wanted[name])) < 1e-12,
                    "{name}"
                );
            } else {
                assert_gradient(&format!("{dtype:?}, gradient of {name}"), gradient, &wanted[name], bound);
            }
        }
        let logits = sdid.forward_t(&h_t, &t, false).unwrap();
        assert_values("logits in evaluation", &logits, golden.get("eval.logits"), bound);
        let mut unseen = |layer: &str, _: &Tensor| candle_core::bail!("{layer} has no spikes");
        let observed = sdid.logits_observed(&NoisyCodes::new(&h_t, &t, &[]), false, &mut unseen).unwrap();
        assert_eq!(flat(&observed), flat(&logits));
        let all: Vec<Vec<u32>> = vec![(0..16).collect(); 3];
        let at = sdid.prepare().unwrap().logits_at(&NoisyCodes::new(&h_t, &t, &[0, 1, 2]), &all).unwrap();
        let rows = logits.flatten_from(2).unwrap().transpose(1, 2).unwrap().reshape((48, 7)).unwrap();
        assert_values(
            "logits of a prepared network",
            &at,
            &rows,
            if dtype == DType::F64 { 1e-12 } else { 1e-5 },
        );
    }
}
