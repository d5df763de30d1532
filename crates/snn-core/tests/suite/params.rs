//! Parameters, optimiser state and learning rates.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Init;
use snn_core::{AdamW, AdamWConfig, Checkpoint, LrSchedule, ParamStore, Seed, clip_gradients, statistic};

use crate::common::{Result, assert_close, flat};

pub(crate) const UNIFORM: Init = Init::Uniform { lo: -1., up: 1. };

pub(crate) fn store(seed: u64, names: &[&str]) -> Result<ParamStore> {
    let store = ParamStore::new(Seed(seed), DType::F32, &Device::Cpu);
    for name in names {
        // As a norm asks.
        if name.starts_with("bn.") {
            statistic(&store.builder(), (2, 3), name, Init::Const(2.))?;
        } else {
            store.builder().get_with_hints((2, 3), name, UNIFORM)?;
        }
    }
    Ok(store)
}

pub(crate) fn values(store: &ParamStore) -> Result<BTreeMap<String, Vec<f64>>> {
    store.vars().iter().map(|(name, var)| Ok((name.clone(), flat(var)?))).collect()
}

fn checkpoint(store: &ParamStore, prefix: &str) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::new("test", &())?;
    checkpoint.tensors = store.snapshot(prefix)?;
    Ok(checkpoint)
}

#[test]
fn values_follow_from_seed_and_name_alone() -> Result {
    let first = values(&store(1, &["a", "b", "c.d"])?)?;
    assert_eq!(first, values(&store(1, &["c.d", "b", "a"])?)?);
    assert_eq!(first["b"], values(&store(1, &["b"])?)?["b"]);
    let other = values(&store(2, &["a", "b", "c.d"])?)?;
    assert!(first.iter().all(|(name, values)| &other[name] != values));
    assert!(first["a"] != first["b"] && first["a"] != first["c.d"]);
    Ok(())
}

#[test]
fn a_name_is_one_variable() -> Result {
    let store = store(1, &["a", "bn.running_mean", "bn.running_var"])?;
    let vb = store.builder();
    let again = vb.get_with_hints((2, 3), "a", Init::Const(7.))?;
    assert_eq!(flat(&again)?, values(&store)?["a"]);
    store.vars()[0].1.set(&again.ones_like()?)?;
    assert_eq!(flat(&vb.get((2, 3), "a")?)?, [1.; 6], "the builder hands out the variable itself");
    assert!(vb.contains_tensor("a") && !vb.contains_tensor("b"));

    let error = vb.get((3, 2), "a").unwrap_err().to_string();
    assert!(error.contains('a') && error.contains("[3, 2]") && error.contains("[2, 3]"), "{error}");
    assert!(vb.get_with_hints_dtype(2, "d", UNIFORM, DType::F64).is_err());

    assert_eq!(store.vars().len(), 3);
    assert_eq!(store.trainable().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.parameter_count(), 6);
    Ok(())
}

#[test]
fn threads_that_ask_at_once_get_one_variable() -> Result {
    let store = store(1, &[])?;
    let ask = || store.builder().get_with_hints((50, 50), "w", UNIFORM);
    for tensor in std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    }) {
        assert_eq!(tensor?.id(), store.vars()[0].1.id());
    }
    Ok(())
}

#[test]
fn unused_parameters_have_zero_gradients() -> Result {
    let store = store(1, &["used", "unused", "bn.running_mean"])?;
    let used = store.builder().get((2, 3), "used")?;
    let grads = store.gradients(&(used.sum_all()? * 3.)?.backward()?)?;
    assert_eq!(grads.keys().map(String::as_str).collect::<Vec<_>>(), ["unused", "used"]);
    assert_eq!((flat(&grads["used"])?, flat(&grads["unused"])?), (vec![3.; 6], vec![0.; 6]));
    Ok(())
}

#[test]
fn snapshot_is_a_copy_and_restores() -> Result {
    let source = store(1, &["a", "b", "bn.running_var"])?;
    let before = values(&source)?;
    let mut checkpoint = checkpoint(&source, "model.")?;
    // Tensors outside of the prefix are none of the store's business.
    checkpoint.tensors.insert("optimiser.m.a".into(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    for (_, var) in source.vars() {
        var.set(&var.zeros_like()?)?;
    }
    let target = store(2, &["a", "b", "bn.running_var"])?;
    for store in [&source, &target] {
        store.restore(&checkpoint, "model.")?;
        assert_eq!(values(store)?, before);
    }
    Ok(())
}

#[test]
fn restore_is_strict_and_all_or_nothing() -> Result {
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu);
    let target = store(2, &["a", "b", "z"])?;
    let before = values(&target)?;
    type Damage = fn(&mut BTreeMap<String, Tensor>, Tensor);
    let cases: [(Damage, &[usize], &[&str]); 4] = [
        (|t, _| drop(t.remove("m.z")), &[1], &["`m.z`", "missing"]),
        (|t, new| drop(t.insert("m.extra".into(), new)), &[1], &["`m.extra`", "unexpected"]),
        (|t, new| drop(t.insert("m.z".into(), new)), &[3, 2], &["`m.z`", "[3, 2]", "[2, 3]"]),
        (|t, new| drop(t.insert("m.z".into(), new)), &[6], &["`m.z`", "[6]", "[2, 3]"]),
    ];
    for (damage, shape, words) in cases {
        let mut checkpoint = checkpoint(&store(1, &["a", "b", "z"])?, "m.")?;
        damage(&mut checkpoint.tensors, tensor(shape)?);
        let error = target.restore(&checkpoint, "m.").unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(values(&target)?, before, "something was set after all");
    }
    Ok(())
}

/// A quadratic bowl around 1 in every parameter.
fn train(store: &ParamStore, optimiser: &mut AdamW, steps: usize) -> Result {
    for _ in 0..steps {
        let terms = store.trainable().into_iter().map(|(_, var)| (var.as_tensor() - 1.)?.sqr()?.sum_all());
        let loss = Tensor::stack(&terms.collect::<candle_core::Result<Vec<_>>>()?, 0)?.sum_all()?;
        let mut grads = store.gradients(&loss.backward()?)?;
        clip_gradients(&mut grads, Some(1.))?;
        optimiser.step(&grads, LrSchedule::Cosine { floor: 0.1 }.factor(optimiser.steps(), 20))?;
    }
    Ok(())
}

fn optimiser(store: &ParamStore) -> Result<AdamW> {
    Ok(AdamW::new(store.trainable(), AdamWConfig { lr: 0.05, ..Default::default() })?)
}

#[test]
fn optimiser_continues_bit_by_bit() -> Result {
    let names = ["a", "b", "bn.running_mean"];
    let straight = store(1, &names)?;
    train(&straight, &mut optimiser(&straight)?, 20)?;

    let (half, folder) = (store(1, &names)?, tempfile::tempdir()?);
    let mut first = optimiser(&half)?;
    train(&half, &mut first, 9)?;
    let mut saved = checkpoint(&half, "model.")?;
    saved.tensors.extend(first.snapshot("optimiser.")?);
    assert_eq!(saved.tensors.len(), 3 + 2 * 2);
    let path = folder.path().join("run.safetensors");
    saved.save(&path)?;

    let (resumed, loaded) = (store(99, &names)?, Checkpoint::load(&path, "test", &Device::Cpu)?);
    let mut second = optimiser(&resumed)?;
    resumed.restore(&loaded, "model.")?;
    second.restore(&loaded, "optimiser.", 9)?;
    assert_eq!(second.steps(), 9);
    train(&resumed, &mut second, 11)?;
    assert_eq!(values(&resumed)?, values(&straight)?);
    assert!(values(&straight)?["a"].iter().all(|v| (v - 1.).abs() < 1.5), "it went the right way");
    Ok(())
}

#[test]
fn optimiser_restores_strictly() -> Result {
    let store = store(1, &["a", "b"])?;
    let mut trained = optimiser(&store)?;
    train(&store, &mut trained, 2)?;
    let mut good = Checkpoint::new("test", &())?;
    good.tensors = trained.snapshot("o.")?;
    let mut missing = good.clone();
    missing.tensors.remove("o.v.b");
    let mut misshapen = good;
    misshapen.tensors.insert("o.v.b".into(), Tensor::zeros(6, DType::F32, &Device::Cpu)?);

    for (damaged, words) in [(missing, ["`o.v.b`", "missing"]), (misshapen, ["`o.v.b`", "[6]"])] {
        let mut fresh = optimiser(&store)?;
        let error = fresh.restore(&damaged, "o.", 2).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(fresh.steps(), 0);
        for (name, moment) in fresh.snapshot("")? {
            assert_eq!(flat(&moment)?, [0.; 6], "{name} was set after all");
        }
    }
    Ok(())
}

#[test]
fn parameters_without_gradient_stay() -> Result {
    let var = |value: f64| Var::new(&[value], &Device::Cpu);
    let params = vec![("a".to_owned(), var(2.)?), ("b".to_owned(), var(2.)?), ("c".to_owned(), var(2.)?)];
    let cfg = AdamWConfig { weight_decay: 0.5, ..Default::default() };
    let mut optimiser = AdamW::new(params.clone(), cfg)?;
    let gradient = |g: f64| Tensor::new(&[g], &Device::Cpu);
    let grads = BTreeMap::from([("a".to_owned(), gradient(3.)?), ("b".to_owned(), gradient(0.)?)]);
    optimiser.step(&grads, 0.1)?;
    let after: Vec<f64> = params.iter().map(|(_, var)| Ok(flat(var)?[0])).collect::<Result<_>>()?;
    // The first step moves by the learning rate, here a tenth of 1e-3, and the decay takes its half of it off.
    let decayed = 2. * (1. - 1e-4 * 0.5);
    assert!((after[0] - (decayed - 1e-4)).abs() < 1e-12, "{}", after[0]);
    assert_eq!((after[1], after[2]), (decayed, 2.));
    Ok(())
}

#[test]
fn clipping_scales_the_joint_norm() -> Result {
    let grads = || -> Result<BTreeMap<String, Tensor>> {
        let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu);
        Ok(BTreeMap::from([("a".into(), tensor(&[3., 0.])?), ("b".into(), tensor(&[4.])?)]))
    };
    for (max, factor) in [(None, 1.), (Some(5.1), 1.), (Some(1.), 1. / (5. + 1e-6))] {
        let mut clipped = grads()?;
        assert_eq!(clip_gradients(&mut clipped, max)?, 5.);
        for (name, grad) in grads()? {
            assert_close(&name, &clipped[&name], &(grad * factor)?, 1e-15);
        }
    }
    assert_eq!(clip_gradients(&mut BTreeMap::new(), Some(1.))?, 0.);
    Ok(())
}

#[test]
fn learning_rate_schedules() {
    assert_eq!((0..5).map(|s| LrSchedule::Constant.factor(s, 4)).collect::<Vec<_>>(), [1.; 5]);
    let cosine = LrSchedule::Cosine { floor: 0.2 };
    for (step, wanted) in [(0, 1.), (25, 0.2 + 0.4 * (1. + 0.5f64.sqrt())), (50, 0.6), (100, 0.2), (150, 0.2)]
    {
        assert!((cosine.factor(step, 100) - wanted).abs() < 1e-12, "step {step}");
    }
    let factors: Vec<f64> = (0..=100).map(|step| cosine.factor(step, 100)).collect();
    assert!(factors.windows(2).all(|pair| pair[0] > pair[1]));
    assert!(cosine.factor(0, 0).is_finite());
}

#[test]
fn candles_own_layers_get_their_init_from_the_seed() -> Result {
    let layer = |seed: u64| -> Result<Tensor> {
        let store = ParamStore::new(Seed(seed), DType::F64, &Device::Cpu);
        Ok(candle_nn::linear(50, 400, store.builder())?.weight().clone())
    };
    let weight = layer(1)?;
    assert_close("the same seed", &layer(1)?, &weight, 0.);
    assert!(flat(&layer(2)?)? != flat(&weight)?);
    // Normal, its standard deviation sqrt(2 / 50).
    let values = flat(&weight)?;
    let variance = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
    assert!((variance - 0.04).abs() < 0.002, "{variance}");

    let store = ParamStore::new(Seed(1), DType::F64, &Device::Cpu);
    let uniform = store.builder().get_with_hints((400, 50), "u", candle_nn::init::DEFAULT_KAIMING_UNIFORM)?;
    let (bound, largest) = (0.12f64.sqrt(), flat(&uniform)?.into_iter().fold(0f64, |a, x| a.max(x.abs())));
    assert!((0.99 * bound..=bound).contains(&largest), "{largest} of {bound}");
    Ok(())
}
