use candle_core::{DType, Device};
use proptest::prelude::*;

use super::*;
use crate::ops::testing::{
    assert_identical, assert_relative, assert_within, check_gradients, check_threads, flat, in_shards,
    random, run,
};
use crate::{Drive, LifConfig, ParamStore, Seed, SpikingLayer, SpikingStack};

type Op = fn(&Tensor, &Tensor, &Tensor, f64) -> Result<BatchNormed>;

const EPS: f64 = 1e-5;

fn operands(shape: &[usize], dtype: DType) -> Result<[Tensor; 3]> {
    let c = shape[1];
    let spread = (random("spread", &[c], DType::F64)?.abs()? + 0.2)?;
    let centre = (random("centre", &[c], DType::F64)? * 2.)?;
    let by_channel: Vec<usize> = (0..shape.len()).map(|axis| if axis == 1 { c } else { 1 }).collect();
    let xs = random("x", shape, DType::F64)?
        .broadcast_mul(&spread.reshape(by_channel.as_slice())?)?
        .broadcast_add(&centre.reshape(by_channel.as_slice())?)?;
    Ok([xs.to_dtype(dtype)?, random("weight", &[c], dtype)?, random("bias", &[c], dtype)?])
}

/// `[y, gx, gweight, gbias, mean, variance]`.
fn everything(op: Op, inputs: &[Tensor; 3]) -> Result<Vec<Tensor>> {
    let mut out = run(|ops| Ok(op(&ops[0], &ops[1], &ops[2], EPS)?.ys), inputs)?;
    let BatchNormed { mean, variance, .. } = op(&inputs[0], &inputs[1], &inputs[2], EPS)?;
    out.extend([mean, variance]);
    Ok(out)
}

fn compare(inputs: &[Tensor; 3], got: &[Tensor], wanted: &[Tensor], bound: f64) -> Result<()> {
    let slope = (&inputs[1] / (&wanted[5] + EPS)?.sqrt()?)?;
    let by_channel = [vec![slope.elem_count()], vec![1; inputs[0].rank() - 2]].concat();
    // The input gradient is what is left of these terms; where a channel has two elements, nothing but eps/variance.
    let terms =
        random("upstream", inputs[0].dims(), DType::F64)?.broadcast_mul(&slope.reshape(by_channel)?)?;
    let sizes = [&wanted[0], &terms, &wanted[2], &wanted[3], &wanted[4], &wanted[5]];
    let names = ["y", "gx", "gweight", "gbias", "mean", "variance"];
    for (((name, got), wanted), size) in names.iter().zip(got).zip(wanted).zip(sizes) {
        assert_within(name, got, wanted, size, bound);
    }
    Ok(())
}

#[test]
fn gradients_are_finite_differences() -> Result<()> {
    for shape in [&[5, 3][..], &[4, 2, 3], &[3, 2, 2, 3], &[2, 3, 2, 1, 2]] {
        let f = |ops: &[Tensor]| Ok(batch_norm(&ops[0], &ops[1], &ops[2], EPS)?.ys);
        check_gradients(&format!("{shape:?}"), f, &operands(shape, DType::F64)?, 1e-5, 1e-8)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn twins_agree(
        m in 2usize..=40,
        c in 1usize..=9,
        rest in prop::collection::vec(1usize..=9, 0..=3),
    ) {
        let shape = [vec![m, c], rest].concat();
        let inputs = operands(&shape, DType::F64).unwrap();
        let wanted = everything(batch_norm_reference, &inputs).unwrap();
        compare(&inputs, &everything(batch_norm, &inputs).unwrap(), &wanted, 1e-11).unwrap();
    }
}

#[test]
fn twins_agree_over_many_tasks() -> Result<()> {
    for shape in [&[37, 5, 31, 13][..], &[9001, 7], &[3, 2, 40_001]] {
        let inputs = operands(shape, DType::F64)?;
        let wanted = everything(batch_norm_reference, &inputs)?;
        compare(&inputs, &everything(batch_norm, &inputs)?, &wanted, 1e-11)?;
        let single = [0, 1, 2].map(|i| inputs[i].to_dtype(DType::F32));
        let [a, b, c] = single;
        compare(&inputs, &everything(batch_norm, &[a?, b?, c?])?, &wanted, 1e-5)?;
    }
    Ok(())
}

#[test]
fn output_has_the_moments_asked_for() -> Result<()> {
    let [xs, weight, bias] = operands(&[31, 4, 5, 3], DType::F64)?;
    let out = batch_norm(&xs, &weight, &bias, 0.)?;
    let moments = batch_norm(&out.ys, &weight, &bias, 0.)?;
    assert_relative("mean", &moments.mean, &bias, 1e-13);
    assert_relative("variance", &moments.variance, &weight.sqr()?, 1e-13);
    Ok(())
}

#[test]
fn a_large_mean_does_not_swallow_the_variance() -> Result<()> {
    let xs = Seed(5).normal("x", (64, 1, 9), (4096., 0.5), DType::F32, &Device::Cpu)?;
    let (weight, bias) =
        (Tensor::ones(1, DType::F32, &Device::Cpu)?, Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    let out = batch_norm(&xs, &weight, &bias, EPS)?;
    let double = |t: &Tensor| t.to_dtype(DType::F64);
    let wanted = batch_norm_reference(&double(&xs)?, &double(&weight)?, &double(&bias)?, EPS)?;
    assert_relative("variance", &out.variance, &wanted.variance, 1e-6);
    assert_relative("mean", &out.mean, &wanted.mean, 1e-7);
    Ok(())
}

/// Normal columns around means of these sizes, in f32, and what the f64 twin makes of just those numbers.
fn check_scale(centre: f64, spread: f64, eps: f64, seed: u64) -> Result<()> {
    let what = format!("{centre} +- {spread}, eps = {eps}");
    let draw = |label: &str, shape: &[usize], (mean, std)| {
        Seed(seed).normal(label, shape, (mean, std), DType::F32, &Device::Cpu)
    };
    let inputs =
        [draw("x", &[40, 3, 7], (centre, spread))?, draw("w", &[3], (0., 1.))?, draw("b", &[3], (0., 1.))?];
    let double = [0, 1, 2].map(|i| inputs[i].to_dtype(DType::F64));
    let [xs, weight, bias] = double;
    let double = [xs?, weight?, bias?];
    let f = |op: Op| move |x: &[Tensor]| Ok(op(&x[0], &x[1], &x[2], eps)?.ys);
    let wanted = run(f(batch_norm_reference), &double)?;
    let got = run(f(batch_norm), &inputs)?;
    let twin = run(f(batch_norm_reference), &inputs)?;
    let out = batch_norm(&inputs[0], &inputs[1], &inputs[2], eps)?;
    let moments = batch_norm_reference(&double[0], &double[1], &double[2], eps)?;
    assert_relative(&format!("{what}: mean"), &out.mean, &moments.mean, 1e-6);
    assert_relative(&format!("{what}: variance"), &out.variance, &moments.variance, 1e-6);
    let inverse_std = ((&moments.variance + eps)?.sqrt()?.recip()? * &double[1])?.reshape((1, 3, 1))?;
    let terms =
        random("upstream", &[40, 3, 7], DType::F32)?.to_dtype(DType::F64)?.broadcast_mul(&inverse_std)?;
    for (ys, name, bound) in [(&got, "batch_norm", 1e-6), (&twin, "twin", 1e-5)] {
        let names = ["y", "gx", "gweight", "gbias"];
        for (i, size) in [&wanted[0], &terms, &wanted[2], &wanted[3]].into_iter().enumerate() {
            assert_within(&format!("{what}: {name}, {}", names[i]), &ys[i], &wanted[i], size, bound);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_mean_and_spread(ratio in -6.0..6.0f64, spread in -6.0..6.0f64, negative: bool, seed: u64) {
        let spread = 10f64.powf(spread);
        let centre = spread * 10f64.powf(ratio) * if negative { -1. } else { 1. };
        check_scale(centre, spread, EPS, seed).unwrap();
        check_scale(centre, spread, EPS * spread * spread, seed).unwrap();
    }

    #[test]
    fn constant_channels_become_their_biases(exponent in -20.0..30.0f64, rows in 2usize..3000, negative: bool) {
        let value = (10f64.powf(exponent) * if negative { -1. } else { 1. }) as f32;
        let xs = Tensor::full(value, (rows, 1), &Device::Cpu).unwrap();
        let (weight, bias) = (Tensor::new(&[1.3f32], &Device::Cpu).unwrap(), Tensor::new(&[0.7f32], &Device::Cpu).unwrap());
        let out = batch_norm(&xs, &weight, &bias, EPS).unwrap();
        prop_assert!(out.ys.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|y| *y == 0.7));
        prop_assert_eq!(flat(&out.variance).unwrap(), [0.]);
        prop_assert_eq!(out.mean.to_vec1::<f32>().unwrap(), [value]);
    }
}

#[test]
fn eight_rows_of_ten_thousand() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let xs = Tensor::full(1e4, (8, 1), &Device::Cpu)?.to_dtype(dtype)?;
        let (weight, bias) = (Tensor::ones(1, dtype, &Device::Cpu)?, Tensor::zeros(1, dtype, &Device::Cpu)?);
        for op in [batch_norm as Op, batch_norm_reference] {
            assert_eq!(flat(&op(&xs, &weight, &bias, EPS)?.ys)?, [0.; 8]);
        }
    }
    Ok(())
}

#[test]
fn a_constant_channel_becomes_its_bias() -> Result<()> {
    let xs = Tensor::full(3f64, (4, 2, 5), &Device::Cpu)?;
    let (weight, bias) = (Tensor::new(&[2f64, -1.], &Device::Cpu)?, Tensor::new(&[0.5, 0.25], &Device::Cpu)?);
    let out = batch_norm(&xs, &weight, &bias, EPS)?;
    assert_eq!(flat(&out.variance)?, [0., 0.]);
    let wanted = bias.reshape((1, 2, 1))?.broadcast_as((4, 2, 5))?;
    assert_relative("y", &out.ys, &wanted, 1e-12);
    Ok(())
}

#[test]
fn views_equal_their_copies() -> Result<()> {
    let [xs, weight, bias] = operands(&[7, 3, 5, 4], DType::F64)?;
    let swapped = xs.permute((3, 1, 0, 2))?.force_contiguous()?;
    let affine = Tensor::stack(&[&weight, &bias], 1)?; // columns: not contiguous
    let on = |copy: fn(Tensor) -> Result<Tensor>| {
        let f = |ops: &[Tensor]| {
            let column = |i| copy(ops[1].narrow(1, i, 1)?.squeeze(1)?);
            let out = batch_norm(&copy(ops[0].permute((2, 1, 3, 0))?)?, &column(0)?, &column(1)?, EPS)?;
            copy(out.ys.permute((1, 3, 0, 2))?)
        };
        run(f, &[swapped.clone(), affine.clone()])
    };
    for (a, b) in on(Ok)?.iter().zip(&on(|t| t.force_contiguous())?) {
        assert_identical("view", a, b);
    }
    Ok(())
}

#[test]
fn statistics_carry_no_gradient() -> Result<()> {
    let [xs, weight, bias] = operands(&[4, 3, 2], DType::F64)?;
    for op in [batch_norm as Op, batch_norm_reference] {
        let xs = candle_core::Var::from_tensor(&xs)?;
        let out = op(&xs, &weight, &bias, EPS)?;
        assert!(!out.mean.track_op() && !out.variance.track_op());
        // Nothing but the input wants a gradient here.
        let grads = out.ys.sqr()?.sum_all()?.backward()?;
        assert!(grads.get(&xs).is_some());
    }
    Ok(())
}

#[test]
fn wrong_inputs_are_errors() -> Result<()> {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    for (xs, weight, bias) in [
        (&[4][..], &[4][..], &[4][..]),
        (&[], &[1], &[1]),
        (&[4, 3, 2], &[2], &[3]),
        (&[4, 3, 2], &[3], &[4]),
        (&[4, 3, 2], &[3, 1], &[3]),
        (&[0, 3, 2], &[3], &[3]),
        (&[4, 3, 0], &[3], &[3]),
        (&[4, 0, 2], &[0], &[0]),
    ] {
        let (xs, weight, bias) =
            (zeros(xs, DType::F32)?, zeros(weight, DType::F32)?, zeros(bias, DType::F32)?);
        for op in [batch_norm as Op, batch_norm_reference] {
            assert!(op(&xs, &weight, &bias, EPS).is_err(), "{xs:?}");
        }
    }
    for (a, b) in [(DType::U8, DType::U8), (DType::F32, DType::F64), (DType::F64, DType::F32)] {
        assert!(batch_norm(&zeros(&[4, 3], a)?, &zeros(&[3], b)?, &zeros(&[3], b)?, EPS).is_err());
    }
    Ok(())
}

#[test]
fn threads_do_not_matter() -> Result<()> {
    check_threads(|| everything(batch_norm, &operands(&[61, 8, 17, 19], DType::F32)?))
}

#[test]
fn one_value_a_channel_is_an_error() -> Result<()> {
    let affine = Tensor::ones(3, DType::F32, &Device::Cpu)?;
    for dims in [&[1, 3][..], &[1, 3, 1], &[1, 3, 1, 1], &[0, 3], &[1, 3, 0]] {
        let xs = Tensor::ones(dims, DType::F32, &Device::Cpu)?;
        for op in [batch_norm as Op, batch_norm_reference] {
            let error = op(&xs, &affine, &affine, EPS).unwrap_err().to_string();
            let wanted = "expected more than 1 value per channel when training";
            assert!(error.contains(wanted) && error.contains(&format!("{dims:?}")), "{error}");
        }
        let error = batch_norm_of_copies(&xs, &affine, &affine, EPS, 0, None).unwrap_err().to_string();
        assert!(error.contains("more than 1 value"), "{error}");
    }
    // A value that stands for several is as good as several.
    let xs = Tensor::new(&[[7f32, -3., 1e4]], &Device::Cpu)?;
    let out = batch_norm_of_copies(&xs, &affine, &affine, EPS, 2, None)?.0;
    assert_eq!(flat(&out.variance)?, [0., 0., 0.]);
    for shape in [&[2, 3][..], &[1, 3, 2]] {
        assert!(batch_norm(&Tensor::ones(shape, DType::F32, &Device::Cpu)?, &affine, &affine, EPS).is_ok());
    }
    Ok(())
}

/// A linear layer's first lot of statistics: with one value a channel it does not train, and nothing moves.
#[test]
fn layers_do_not_train_on_one_value_a_channel() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
        let first = SpikingLayer::linear(3, 4, LifConfig::default(), store.builder().pp("first"))?;
        let second = SpikingLayer::linear(4, 2, LifConfig::default(), store.builder().pp("second"))?;
        let layers = [first.clone(), second];
        let ones = |shape: &[usize]| Tensor::ones(shape, dtype, &Device::Cpu);
        let before = store.snapshot("")?;
        let stack = SpikingStack::new(layers.to_vec());
        assert!(stack.forward(Drive::Spikes(&ones(&[1, 1, 3])?), true).is_err());
        assert!(stack.forward(Drive::Constant(&ones(&[1, 3])?, 1), true).is_err());
        let error = first.forward_t(&ones(&[1, 1, 3])?, true).unwrap_err().to_string();
        assert!(error.contains("more than 1 value per channel"), "{error}");
        assert!(first.forward_constant(&ones(&[1, 3])?, 1, true).is_err());
        assert!(first.forward_constant(&ones(&[5, 3])?, 0, true).is_err(), "no copies");
        for (name, value) in store.snapshot("")? {
            assert_identical(&name, &value, &before[&name]);
        }
        assert_eq!(first.forward_t(&ones(&[1, 1, 3])?, false)?.dims(), [1, 1, 4]);
        assert_eq!(first.forward_constant(&ones(&[1, 3])?, 2, true)?.dims(), [2, 1, 4]);
        assert_eq!(stack.forward(Drive::Constant(&ones(&[1, 3])?, 2), true)?.dims(), [2, 1, 2]);
        assert_eq!(stack.forward(Drive::Spikes(&ones(&[2, 1, 3])?), true)?.dims(), [2, 1, 2]);
    }
    Ok(())
}

/// A batch in shards, on this device and in this precision, against the whole of it on the CPU in f64.
pub(in crate::ops) fn check_shards(device: &Device, dtype: DType, bound: f64) -> Result<()> {
    for shape in [[12, 5, 3, 2], [12, 2, 53, 61], [4, 5, 1, 1]] {
        let inputs = operands(&shape, DType::F64)?;
        let wanted = everything(batch_norm, &inputs)?;
        let upstream = random("upstream", &shape, DType::F64)?;
        for shards in [1, 2, 3, 4].into_iter().filter(|shards| shape[0] % shards == 0) {
            let size = shape[0] / shards;
            let found = in_shards(shards, |shard| {
                let exchange = crate::exchange::current();
                let here = |t: &Tensor| t.to_dtype(dtype)?.to_device(device);
                let part = |t: &Tensor| here(&t.narrow(0, shard * size, size)?);
                let own = [part(&inputs[0])?, here(&inputs[1])?, here(&inputs[2])?];
                let [xs, weight, bias] = own.each_ref().map(candle_core::Var::from_tensor);
                let (xs, weight, bias) = (xs?, weight?, bias?);
                let (out, count) = batch_norm_of_copies(&xs, &weight, &bias, EPS, 1, exchange)?;
                assert_eq!(count, shape[0] * shape[2] * shape[3]);
                let grads = (&out.ys * part(&upstream)?)?.sum_all()?.backward()?;
                let of = |t: &Tensor| grads.get(t).cloned().map_or_else(|| t.zeros_like(), Ok);
                let all = [out.ys.detach(), of(&xs)?, of(&weight)?, of(&bias)?, out.mean, out.variance];
                all.iter().map(|tensor| tensor.to_device(&Device::Cpu)).collect::<Result<Vec<_>>>()
            })?;
            let column = |i: usize| found.iter().map(|shard| shard[i].clone()).collect::<Vec<_>>();
            let sum = |i: usize| Tensor::stack(&column(i), 0)?.sum(0);
            let mut got = vec![Tensor::cat(&column(0), 0)?, Tensor::cat(&column(1), 0)?, sum(2)?, sum(3)?];
            for i in [4, 5] {
                assert!(found.iter().all(|shard| flat(&shard[i]).ok() == flat(&found[0][i]).ok()));
                got.push(found[0][i].clone());
            }
            compare(&inputs, &got, &wanted, bound)?;
        }
    }
    Ok(())
}

#[test]
fn shards_make_the_whole_batch() -> Result<()> {
    check_shards(&Device::Cpu, DType::F64, 1e-11)?;
    check_shards(&Device::Cpu, DType::F32, 1e-5)
}

/// Moments say what the sums around any pivot are, as a second pass over the elements does.
#[test]
fn shards_may_give_their_moments() -> Result<()> {
    for centre in [0., 1e3] {
        let [xs, ..] = operands(&[12, 5, 3, 2], DType::F64)?;
        let xs = (xs + centre)?;
        let found = in_shards(3, |shard| {
            let exchange = crate::exchange::current().expect("a shard's");
            let xs = flat(&xs.narrow(0, 4 * shard, 4)?)?;
            let p = Planes { channels: 5, size: 6 };
            let around = |pivots: &[f64]| p.sum_around(&xs, pivots);
            let wanted = shards::moments_of_all(5, 24., around, &*exchange)?;
            let pivots: Vec<f64> = (0..5).map(|c| xs[6 * c]).collect();
            Ok((shards::merge_moments(24., &moments(&p, &xs, &pivots, 24.), &*exchange)?, wanted))
        })?;
        for (got, wanted) in &found {
            assert_eq!((got, got[10]), (&found[0].0, 72.));
            for (got, wanted) in got.iter().zip(wanted) {
                assert!((got - wanted).abs() <= 1e-12 * wanted.abs(), "{got} and {wanted}");
            }
        }
    }
    Ok(())
}
