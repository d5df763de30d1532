//! Stacks, as a user sees them: equal to their layers one by one, in f32 (the engine) and in f64 (its twin).

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{
    ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack, direct_encode,
    firing_rate,
};

use crate::common::{Result, assert_close, assert_relative, flat, gradients};

const TIME_STEPS: usize = 5;

/// Down, along, up: their store, the layers and the stack of the same layers.
fn model(dtype: DType) -> Result<(ParamStore, Vec<SpikingLayer>, SpikingStack)> {
    let store = ParamStore::new(Seed(3), dtype, &Device::Cpu);
    let (lif, vb) = (LifConfig::default(), store.builder());
    let (halve, same) = (ConvConfig::new(3, 2, 1), ConvConfig::new(3, 1, 1));
    let layers = vec![
        SpikingLayer::conv(2, 16, halve, lif, vb.pp(0))?,
        SpikingLayer::conv(16, 18, same, lif, vb.pp(1))?,
        SpikingLayer::conv_transpose(18, 3, halve.with_output_padding(1), lif, vb.pp(2))?,
    ];
    for (name, var) in store.vars() {
        // So that all of them fire, in training and in evaluation.
        let value = if name.ends_with("bn.bias") { 0.8 } else { 0.1 };
        if name.ends_with("bn.bias") || name.ends_with("running_var") {
            var.set(&(var.ones_like()? * value)?)?;
        }
    }
    let stack = SpikingStack::new(layers.clone());
    Ok((store, layers, stack))
}

fn images(dtype: DType) -> Result<Tensor> {
    Ok(Seed(4).normal("images", (3, 2, 8, 6), (0., 1.), dtype, &Device::Cpu)?)
}

fn upstream(like: &Tensor) -> Result<Tensor> {
    Ok(Seed(5).normal("upstream", like.shape(), (0., 1.), like.dtype(), &Device::Cpu)?)
}

/// The output of `run` on a fresh model, the gradients of the images and of all parameters, the statistics afterwards.
fn outcome(
    dtype: DType,
    run: impl Fn(&[SpikingLayer], &SpikingStack, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<(Tensor, Vec<(String, Tensor)>)> {
    let (store, layers, stack) = model(dtype)?;
    let images = Var::from_tensor(&images(dtype)?)?;
    let output = run(&layers, &stack, &images)?;
    let (params, upstream) = (store.trainable(), upstream(&output)?);
    let vars: Vec<&Var> = [&images].into_iter().chain(params.iter().map(|(_, var)| var)).collect();
    let names = ["images".to_owned()].into_iter().chain(params.iter().map(|(name, _)| name.clone()));
    let mut all: Vec<_> = names.zip(gradients(&output, &upstream, &vars)?).collect();
    assert!(flat(&all[0].1)?.iter().any(|g| *g != 0.), "no gradient reaches the images");
    let statistics = store.vars().into_iter().filter(|(name, _)| name.contains("running"));
    all.extend(statistics.map(|(name, var)| (name, var.as_tensor().clone())));
    Ok((output.detach(), all))
}

fn one_by_one(layers: &[SpikingLayer], images: &Tensor, train: bool) -> candle_core::Result<Tensor> {
    let first = layers[0].forward_constant(images, TIME_STEPS, train)?;
    layers[1..].iter().try_fold(first, |spikes, layer| layer.forward_t(&spikes, train))
}

#[test]
fn a_stack_is_its_layers_one_by_one() -> Result {
    for dtype in [DType::F32, DType::F64] {
        for train in [true, false] {
            let what = format!("{dtype:?}, train = {train}");
            let (wanted, all) = outcome(dtype, |layers, _, images| one_by_one(layers, images, train))?;
            let rate = firing_rate(&wanted)?;
            assert!((0.02..0.7).contains(&rate), "{what}: fires at {rate}");
            let (got, ours) =
                outcome(dtype, |_, stack, images| stack.forward(Drive::Constant(images, TIME_STEPS), train))?;
            // The same kernels in the same order: not a bit differs.
            assert_close(&what, &got, &wanted, 0.);
            for ((name, wanted), (_, got)) in all.iter().zip(&ours) {
                assert_close(&format!("{what}: {name}"), got, wanted, 0.);
            }
        }
    }
    Ok(())
}

#[test]
fn a_readout_is_the_sum_of_the_spikes() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let (bound, gradient_bound) = if dtype == DType::F64 { (1e-14, 1e-12) } else { (1e-6, 1e-4) };
        for readout in [Readout::Mean, Readout::Psp { tau: 3. }, Readout::ExponentialSum { decay: 0.8 }] {
            for train in [true, false] {
                let what = format!("{dtype:?}, {readout:?}, train = {train}");
                let (wanted, all) = outcome(dtype, |_, stack, images| {
                    readout.apply(&stack.forward(Drive::Constant(images, TIME_STEPS), train)?)
                })?;
                let (got, ours) = outcome(dtype, |_, stack, images| {
                    stack.readout(Drive::Constant(images, TIME_STEPS), readout, train)
                })?;
                assert_relative(&what, &got, &wanted, bound);
                for ((name, wanted), (_, got)) in all.iter().zip(&ours) {
                    assert_relative(&format!("{what}: {name}"), got, wanted, gradient_bound);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_constant_input_is_direct_encoding() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let bound = if dtype == DType::F64 { 1e-11 } else { 1e-4 };
        for train in [true, false] {
            let what = format!("{dtype:?}, train = {train}");
            let (wanted, all) = outcome(dtype, |_, stack, images| {
                stack.forward(Drive::Spikes(&direct_encode(images, TIME_STEPS)?), train)
            })?;
            let (got, ours) =
                outcome(dtype, |_, stack, images| stack.forward(Drive::Constant(images, TIME_STEPS), train))?;
            assert_close(&what, &got, &wanted, 0.);
            for ((name, wanted), (_, got)) in all.iter().zip(&ours) {
                assert_relative(&format!("{what}: {name}"), got, wanted, bound);
            }
        }
    }
    Ok(())
}

#[test]
fn f32_stays_close_to_f64() -> Result {
    for train in [true, false] {
        let run = |dtype| {
            outcome(dtype, |_, stack, images| stack.forward(Drive::Constant(images, TIME_STEPS), train))
        };
        let ((single, ours), (double, all)) = (run(DType::F32)?, run(DType::F64)?);
        // A flipped spike would show as 1.
        assert_close("spikes", &single, &double, 0.);
        for ((name, wanted), (_, got)) in all.iter().zip(&ours) {
            assert_relative(&format!("train = {train}: {name}"), got, wanted, 1e-4);
        }
    }
    Ok(())
}

#[test]
fn an_observer_sees_every_layer() -> Result {
    for train in [true, false] {
        let (_, layers, stack) = model(DType::F32)?;
        let (images, mut seen) = (images(DType::F32)?, Vec::new());
        let output =
            stack.forward_observed(Drive::Constant(&images, TIME_STEPS), train, &mut |i, spikes| {
                seen.push((i, spikes.detach()));
                Ok(())
            })?;
        let (_, fresh, _) = model(DType::F32)?;
        let mut wanted = fresh[0].forward_constant(&images, TIME_STEPS, train)?;
        assert_eq!(seen.len(), layers.len());
        for (i, (number, spikes)) in seen.iter().enumerate() {
            if i > 0 {
                wanted = fresh[i].forward_t(&wanted, train)?;
            }
            assert_eq!(*number, i);
            assert_close(&format!("layer {i}, train = {train}"), spikes, &wanted, 0.);
        }
        assert_close("output", &output, &wanted, 0.);
    }
    Ok(())
}

#[test]
fn an_observers_error_is_the_stacks() -> Result {
    let (_, _, stack) = model(DType::F32)?;
    let (images, mut calls) = (images(DType::F32)?, 0);
    let result = stack.forward_observed(Drive::Constant(&images, TIME_STEPS), false, &mut |i, _| {
        calls += 1;
        if i == 1 { candle_core::bail!("enough") } else { Ok(()) }
    });
    assert!(result.is_err_and(|e| e.to_string().contains("enough")));
    assert_eq!(calls, 2);
    Ok(())
}

#[test]
fn training_moves_the_statistics_and_evaluation_does_not() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let (store, _, stack) = model(dtype)?;
        let images = images(dtype)?;
        let moved_by = |train| -> Result<Vec<String>> {
            let before = store.snapshot("")?;
            stack.forward(Drive::Constant(&images, TIME_STEPS), train)?.sum_all()?.backward()?;
            let mut moved = Vec::new();
            for (name, var) in store.vars() {
                if flat(&var)? != flat(&before[&name])? {
                    moved.push(name);
                }
            }
            Ok(moved)
        };
        assert_eq!(moved_by(false)?, Vec::<String>::new(), "{dtype:?}");
        let wanted: Vec<String> =
            (0..3).flat_map(|i| ["mean", "var"].map(|name| format!("{i}.bn.running_{name}"))).collect();
        assert_eq!(moved_by(true)?, wanted, "{dtype:?}");
    }
    Ok(())
}

#[test]
fn wrong_inputs_are_errors() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let (_, _, stack) = model(dtype)?;
        for shape in [&[3, 1, 8, 6][..], &[3, 2, 8], &[2, 8, 6], &[5, 3, 2, 8, 6], &[3, 2]] {
            let xs = Tensor::ones(shape, dtype, &Device::Cpu)?;
            for train in [true, false] {
                let drive = Drive::Constant(&xs, TIME_STEPS);
                assert!(stack.forward(drive, train).is_err(), "{shape:?}");
                assert!(stack.readout(drive, Readout::Mean, train).is_err(), "{shape:?}");
                assert!(stack.forward_observed(drive, train, &mut |_, _| Ok(())).is_err(), "{shape:?}");
            }
        }
        let images = images(dtype)?;
        let empty = SpikingStack::new(Vec::new());
        assert!(empty.forward(Drive::Constant(&images, TIME_STEPS), true).is_err());
        assert!(empty.readout(Drive::Constant(&images, TIME_STEPS), Readout::Mean, true).is_err());
        assert!(stack.readout(Drive::Constant(&images, 0), Readout::Mean, false).is_err(), "no time");
        assert!(stack.forward(Drive::Constant(&images, 0), true).is_err(), "statistics of no time");
        let none = images.narrow(0, 0, 0)?;
        let spikes = stack.forward(Drive::Constant(&none, TIME_STEPS), false)?;
        assert_eq!(spikes.dims(), [TIME_STEPS, 0, 3, 8, 6]);
        assert!(stack.forward(Drive::Constant(&none, TIME_STEPS), true).is_err(), "statistics of no items");
    }
    Ok(())
}
