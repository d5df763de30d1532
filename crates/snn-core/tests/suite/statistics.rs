//! Running statistics among the parameters: said by who asks, never by a name.

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{AdamW, AdamWConfig, LifConfig, SpikingLayer, VarBuilder, statistic};

use crate::common::{Result, flat};
use crate::params::{UNIFORM, store, values};

fn names(vars: Vec<(String, Var)>) -> Vec<String> {
    vars.into_iter().map(|(name, _)| name).collect()
}

/// What a parameter is called says nothing; what a layer asks for does.
#[test]
fn parameters_are_trained_whatever_their_names() -> Result {
    let all = ["gate.init_running_var", "my_running_mean", "norm.running_mean", "running_var"];
    let store = store(1, &all)?;
    let layer = SpikingLayer::linear(2, 3, LifConfig::default(), store.builder().pp("layer"))?;
    let own = ["bn.bias", "bn.weight", "linear.bias", "linear.weight"].map(|name| format!("layer.{name}"));
    let mut wanted: Vec<String> = all.iter().map(|name| (*name).to_owned()).chain(own).collect();
    wanted.sort();
    assert_eq!(names(store.trainable()), wanted);
    assert_eq!(store.parameter_count(), 4 * 6 + 2 * 3 + 3 * 3);
    assert_eq!(store.snapshot("")?.len(), 4 + 6, "statistics are saved with the rest");

    let before = values(&store)?;
    let xs = Tensor::ones((4, 2, 2), DType::F32, &Device::Cpu)?;
    let spikes = layer.forward_t(&xs, true)?.sum_all()?;
    let mine = store.builder().get((2, 3), "my_running_mean")?;
    let loss = (mine.sqr()?.sum_all()? + spikes)?;
    let grads = store.gradients(&loss.backward()?)?;
    assert!(grads.keys().eq(&wanted), "{:?}", grads.keys());
    AdamW::new(store.trainable(), AdamWConfig::default())?.step(&grads, 1.)?;
    let after = values(&store)?;
    for name in all {
        assert_ne!(after[name], before[name], "{name} is moved, if only by its decay");
    }
    assert_eq!(after["layer.bn.running_mean"].len(), 3);
    Ok(())
}

#[test]
fn a_name_is_a_parameter_or_a_statistic() -> Result {
    let store = store(1, &["a", "bn.b"])?;
    let vb = store.builder();
    let error = vb.get((2, 3), "bn.b").unwrap_err().to_string();
    assert!(error.contains("bn.b") && error.contains("exists as a running statistic"), "{error}");
    let error = statistic(&vb, (2, 3), "a", UNIFORM).unwrap_err().to_string();
    assert!(error.contains("a: ") && error.contains("exists as a parameter"), "{error}");
    // A layer that finds a parameter where its statistic should be moves nothing.
    vb.pp("layer.bn").get(3, "running_mean")?;
    let error = SpikingLayer::linear(2, 3, LifConfig::default(), vb.pp("layer")).unwrap_err().to_string();
    assert!(error.contains("layer.bn.running_mean"), "{error}");
    // The question ends with the answer, also where it is an error.
    assert!(statistic(&vb, 7, "bn.b", UNIFORM).is_err());
    vb.get(2, "c")?;
    let trainable = names(store.trainable());
    assert!(trainable.contains(&"c".to_owned()) && !trainable.contains(&"bn.b".to_owned()), "{trainable:?}");
    // The same statistic again, by the layer built a second time, is the same variable.
    let again = statistic(&vb, (2, 3), "bn.b", UNIFORM)?;
    assert_eq!(flat(&again)?, [2.; 6]);
    again.set(&again.ones_like()?)?;
    assert_eq!(values(&store)?["bn.b"], [1.; 6]);
    Ok(())
}

/// A layer of somebody else's does not say what its statistics are; whoever builds it can.
#[test]
fn statistics_can_be_declared() -> Result {
    let store = store(1, &["a"])?;
    let norm = || candle_nn::batch_norm(3, 1e-5, store.builder().pp("norm"));
    norm()?;
    for name in ["norm.running_mean", "norm.running_var"] {
        store.declare_statistic(name)?;
        store.declare_statistic(name)?;
    }
    norm()?;
    assert_eq!(names(store.trainable()), ["a", "norm.bias", "norm.weight"]);
    assert_eq!(store.vars().len(), 5);
    let error = store.declare_statistic("norm.running").unwrap_err().to_string();
    assert!(error.contains("norm.running: no such"), "{error}");
    Ok(())
}

/// On another backend a statistic is a tensor like any other, found by its name.
#[test]
fn statistics_are_found_in_a_file() -> Result {
    let (store, folder) = (store(1, &[])?, tempfile::tempdir()?);
    let build = |vb| SpikingLayer::linear(2, 3, LifConfig::default(), vb);
    let layer = build(store.builder())?;
    let xs = Tensor::ones((4, 2, 2), DType::F32, &Device::Cpu)?;
    layer.forward_t(&xs, true)?;
    let path = folder.path().join("layer.safetensors");
    candle_core::safetensors::save(&store.snapshot("")?.into_iter().collect(), &path)?;
    let bytes = std::fs::read(&path)?;
    let loaded = build(VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?)?;
    assert_eq!(flat(&loaded.forward_t(&xs, false)?)?, flat(&layer.forward_t(&xs, false)?)?);
    loaded.forward_t(&xs, true)?;
    Ok(())
}
