//! The ESVAE against PyTorch (`scripts/golden/esvae.py`), and what its parts do.

use candle_core::{DType, Device, Tensor};
use fsvae::{Esvae, EsvaeConfig, EsvaeDraws, EsvaeOutput};
use snn_core::{Model, ParamStore, Seed};

use crate::golden::{F32, F64, Golden, Precision};
use crate::{assert_relative, assert_same, flat, images, norm, rejects, tiny_body};

fn tiny() -> EsvaeConfig {
    let cfg = EsvaeConfig::original(1);
    EsvaeConfig { body: tiny_body(cfg.body), ..cfg }
}

fn built(cfg: &EsvaeConfig, dtype: DType) -> (ParamStore, Esvae) {
    let params = ParamStore::new(Seed(0), dtype, &Device::Cpu);
    let model = Esvae::new(cfg, params.builder()).unwrap();
    (params, model)
}

fn check((dtype, of_values, of_gradients): Precision) {
    let (golden, (params, model)) = (Golden::load("esvae"), built(&tiny(), dtype));
    golden.restore(&params);
    let images = golden.images(dtype);
    let draws =
        EsvaeDraws { uniform: golden.get("in.uniform").clone(), noise: golden.get("in.noise").clone() };
    let pass = |prefix: &str, train| {
        let out = model.forward_t(&images, &draws, train).unwrap();
        let wanted = |name: &str| golden.get(&format!("{prefix}.{name}"));
        assert_same(&format!("{prefix}.z"), &out.z, wanted("z"));
        assert_relative("r_q", &out.r_q, wanted("r_q"), 1e-7);
        assert_relative("r_p", &out.r_p, wanted("r_p"), of_values);
        assert_relative("reconstruction", &out.reconstruction, wanted("reconstruction"), of_values);
        out
    };
    let losses = model.losses(&images, &pass("out", true)).unwrap();
    assert_relative("reconstruction", &losses.reconstruction, golden.get("loss.reconstruction"), of_values);
    assert_relative("divergence", &losses.divergence, golden.get("loss.divergence"), of_values);
    golden.check_gradients(&params, &losses.total().unwrap(), "grad.", of_gradients);
    golden.check_statistics(&params, of_values);
    let tested = pass("eval", false);
    assert_same("encoded", &model.encode(&images, &draws.uniform).unwrap(), &tested.z);
    assert_relative("decoded", &model.decode(&tested.z).unwrap(), &tested.reconstruction, of_values);
    assert_relative("samples", &model.sample(&draws).unwrap(), golden.get("sample.images"), of_values);
}

#[test]
fn one_training_step_in_f64() {
    check(F64);
}

#[test]
fn one_training_step_in_f32() {
    check(F32);
}

#[test]
fn equal_rates_are_no_distance_apart() {
    let (_, model) = built(&tiny(), DType::F64);
    let images = images(3, DType::F64);
    let draws = EsvaeDraws::new(&tiny(), 3, Seed(1), "a", &Device::Cpu).unwrap();
    let mut out = model.forward_t(&images, &draws, true).unwrap();
    let distance =
        |out: &EsvaeOutput| model.losses(&images, out).unwrap().divergence.to_scalar::<f64>().unwrap();
    assert!(distance(&out) > 0.);
    out.r_p = out.r_q.clone();
    assert!(distance(&out).abs() < 1e-15);
    // Even where all samples are one: no width is 0.
    out.r_q = Tensor::full(0.5, (3, 5), &Device::Cpu).unwrap();
    out.r_p = out.r_q.clone();
    assert_eq!(distance(&out), 0.);
}

#[test]
fn a_rate_is_how_often_a_variable_spikes() {
    let mut cfg = tiny();
    cfg.body.time_steps = 4000;
    let (params, model) = built(&cfg, DType::F32);
    let draws = EsvaeDraws::new(&cfg, 1, Seed(2), "a", &Device::Cpu).unwrap();
    let out = model.forward_t(&images(1, DType::F32), &draws, false).unwrap();
    let frequency = flat(&out.z.mean(0).unwrap());
    let rates = flat(&out.r_q);
    assert!(frequency.iter().zip(&rates).all(|(f, r)| (f - r).abs() < 0.03), "{frequency:?}, {rates:?}");
    let vars = params.vars();
    let bias = vars.iter().find(|(name, _)| name == "prior.bias").unwrap();
    bias.1.set(&Tensor::full(40f32, 5, &Device::Cpu).unwrap()).unwrap();
    let out = model.forward_t(&images(1, DType::F32), &draws, false).unwrap();
    assert!(flat(&out.r_p).iter().all(|rate| *rate == 1.) && norm(&out.r_p) > 0.);
}

#[test]
fn a_model_is_saved_and_loaded_and_what_does_not_fit_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, cfg) = (folder.path().join("esvae.safetensors"), tiny());
    let (params, model) = built(&cfg, DType::F32);
    model.checkpoint(&params).unwrap().save(&path).unwrap();
    let loaded = Esvae::load(&path, &Device::Cpu).unwrap();
    let draws = EsvaeDraws::new(&cfg, 2, Seed(1), "a", &Device::Cpu).unwrap();
    assert_eq!(loaded.config(), &cfg);
    assert_same("samples", &loaded.sample(&draws).unwrap(), &model.sample(&draws).unwrap());
    rejects(
        model.forward_t(&images(3, DType::F32), &draws, true),
        &["uniform numbers", "[8, 2, 5]", "[8, 3, 5]"],
    );
    rejects(
        fsvae::Fsvae::load(&path, &Device::Cpu),
        &["esvae.safetensors", "holds a `esvae`, not a `fsvae`"],
    );
    rejects(EsvaeConfig { bandwidths: 0, ..tiny() }.validate(), &["esvae.bandwidths", "0"]);
    rejects(EsvaeConfig { weight: -1., ..tiny() }.validate(), &["esvae.weight", "-1"]);
    let mut deep = tiny();
    deep.body.decoder = vec![1];
    rejects(deep.validate(), &["esvae.body.decoder"]);
}
