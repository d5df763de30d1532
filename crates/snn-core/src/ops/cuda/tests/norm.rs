//! Batch norm, kernel after kernel, as `batch_norm/cuda/run.rs` launches them.

use candle_core::{DType, Result, Tensor};

use super::Cases;
use super::host::{self, bytes, tensor};
use crate::batch_norm;
use crate::exchange;
use crate::ops::Real;
use crate::ops::batch_norm::cuda::Planes;
use crate::ops::batch_norm::shards::merge_moments;
use crate::ops::cuda::launch::{Argument, Launch};
use crate::ops::testing::{assert_within, flat, in_shards, random, run};

pub(super) const EPS: f64 = 1e-5;

/// One channel, one image, maps of one position and of odd sizes, and channels of several parts, on maps and side by side.
fn shapes() -> Vec<Vec<usize>> {
    vec![
        vec![5, 1],
        vec![1, 3, 2],
        vec![2, 4, 3, 3],
        vec![7, 17, 1],
        vec![3, 2, 53, 61],
        vec![17, 5, 7, 7],
        vec![1300, 41],
    ]
}

/// The size of the terms that batch norm's gradient of its input is a sum of, `scale (|g| + mean |g| + |n| mean |g n|)` with `n` the
/// normalised input and `g` the gradient of what it is mapped to. Of few elements a channel they all but cancel.
pub(super) fn size_of_input_gradient([xs, weight]: [&Tensor; 2], g: &Tensor) -> Result<Tensor> {
    let c = xs.dim(1)?;
    let rows = |t: &Tensor| t.to_dtype(DType::F64)?.transpose(0, 1)?.contiguous()?.reshape((c, ()));
    let (x, g) = (rows(xs)?, rows(g)?.abs()?);
    let x = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let spread = (x.sqr()?.mean_keepdim(1)? + EPS)?.sqrt()?;
    let n = x.broadcast_div(&spread)?.abs()?;
    let terms = g.broadcast_add(&g.mean_keepdim(1)?)?;
    let terms = (terms + n.broadcast_mul(&(&g * &n)?.mean_keepdim(1)?)?)?;
    let terms = terms.broadcast_mul(&(weight.to_dtype(DType::F64)?.abs()?.unsqueeze(1)? / spread)?)?;
    let dims = [&[c, xs.dim(0)?], &xs.dims()[2..]].concat();
    terms.reshape(dims)?.transpose(0, 1)?.contiguous()?.to_dtype(xs.dtype())
}

/// One of the kernels on all shapes: its operands as it leaves them. `grid`, where the launch has more.
fn launch(all: &[(Launch, Vec<Vec<u8>>)], grid: u32) -> Option<Vec<Vec<Vec<u8>>>> {
    let small = |(launch, operands): &(Launch, Vec<Vec<u8>>)| {
        (Launch { grid: launch.grid.min(grid), ..launch.clone() }, operands.clone())
    };
    host::run(&all.iter().map(small).collect::<Vec<_>>())
}

fn empty(launch: &Launch) -> Vec<u8> {
    let last = launch.arguments.iter().rev().find_map(|argument| match argument {
        Argument::Operand { bytes, .. } => Some(*bytes),
        _ => None,
    });
    vec![0xff; last.unwrap_or(0)]
}

fn check<F: Real>(grid: u32, bound: f64) -> Result<()> {
    let shapes = shapes();
    let inputs: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let c = shape[1];
            // A mean that is large beside the spread.
            let xs = (random(&format!("xs {i}"), shape, F::DTYPE)? + if i % 2 == 0 { 30. } else { 0. })?;
            Ok([xs, random("weight", &[c], F::DTYPE)?, random("bias", &[c], F::DTYPE)?])
        })
        .collect::<Result<_>>()?;
    let planes: Vec<_> =
        inputs.iter().map(|[xs, ..]| Planes::new("norm", "xs", xs.layout())).collect::<Result<_>>()?;
    let make = |f: &dyn Fn(usize) -> Result<(Launch, Vec<Vec<u8>>)>| {
        (0..shapes.len())
            .map(|i| {
                let (launch, mut operands) = f(i)?;
                operands.push(empty(&launch));
                Ok((launch, operands))
            })
            .collect::<Result<Vec<_>>>()
    };
    let of = |i: usize, which: usize| bytes::<F>(&inputs[i][which]);

    let sums = make(&|i| Ok((planes[i].sum::<F>()?, vec![of(i, 0)])))?;
    let Some(sums) = launch(&sums, grid) else { return Ok(()) };
    let moments = make(&|i| Ok((planes[i].moments::<F>()?, vec![of(i, 0), sums[i][1].clone()])))?;
    let moments = launch(&moments, grid).unwrap();
    let by =
        make(&|i| Ok((planes[i].coefficients::<F>(EPS)?, vec![moments[i][2].clone(), of(i, 1), of(i, 2)])))?;
    let by = launch(&by, grid).unwrap();
    let ys =
        launch(&make(&|i| Ok((planes[i].affine::<F>()?, vec![of(i, 0), by[i][3].clone()])))?, grid).unwrap();

    let upstream: Vec<_> =
        shapes.iter().map(|shape| random("upstream", shape, F::DTYPE)).collect::<Result<_>>()?;
    let sums = make(&|i| {
        let operands = vec![of(i, 0), bytes::<F>(&upstream[i]), moments[i][2].clone()];
        Ok((planes[i].gradient_sums::<F>()?, operands))
    })?;
    let sums = launch(&sums, grid).unwrap();
    let gradients = make(&|i| {
        let grads = Cases::<F>::empty(2 * shapes[i][1]);
        let operands = vec![sums[i][3].clone(), moments[i][2].clone(), of(i, 1), grads];
        Ok((planes[i].gradients::<F>(EPS)?, operands))
    })?;
    let gradients = launch(&gradients, grid).unwrap();
    let grad_xs = make(&|i| {
        let operands = vec![of(i, 0), bytes::<F>(&upstream[i]), gradients[i][4].clone()];
        Ok((planes[i].input_gradient::<F>()?, operands))
    })?;
    let grad_xs = launch(&grad_xs, grid).unwrap();

    for i in 0..shapes.len() {
        let (what, c) = (format!("{:?}", shapes[i]), shapes[i][1]);
        let out = batch_norm(&inputs[i][0], &inputs[i][1], &inputs[i][2], EPS)?;
        let wanted = run(|x| Ok(batch_norm(&x[0], &x[1], &x[2], EPS)?.ys), &inputs[i])?;
        let statistics = tensor::<f64>(&moments[i][2], &[2, c])?.to_dtype(F::DTYPE)?;
        let grads = tensor::<F>(&gradients[i][3], &[2, c])?;
        let upstream_size = upstream[i].sqr()?.sum_all()?.sqrt()?.broadcast_as(c)?;
        for (name, got, wanted, size) in [
            ("mean", statistics.get(0)?, &out.mean, out.mean.clone()),
            ("variance", statistics.get(1)?, &out.variance, out.variance.clone()),
            ("ys", tensor::<F>(&ys[i][2], &shapes[i])?, &wanted[0], wanted[0].clone()),
            (
                "grad_xs",
                tensor::<F>(&grad_xs[i][3], &shapes[i])?,
                &wanted[1],
                size_of_input_gradient([&inputs[i][0], &inputs[i][1]], &upstream[i])?,
            ),
            ("grad_weight", grads.get(1)?, &wanted[2], upstream_size.clone()),
            ("grad_bias", grads.get(0)?, &wanted[3], upstream_size),
        ] {
            assert_within(&format!("{what}: {name}, grid {grid}"), &got, wanted, &size, bound);
        }
    }
    Ok(())
}

/// The operands as one launch leaves them, the last of which it makes.
pub(super) fn launched(kernel: Launch, mut operands: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    operands.push(empty(&kernel));
    Some(host::run(&[(kernel, operands)])?.remove(0))
}

/// The inputs of the norm and what its output's gradient is, whole or of a shard.
type Inputs = [Tensor; 4];

/// `[y, gx, gweight, gbias]` of a shard, kernel after kernel as `batch_norm/cuda/run.rs` launches them for one.
fn shard<F: Real>([xs, weight, bias, upstream]: &Inputs) -> Result<Option<Vec<Tensor>>> {
    let exchange = exchange::current().expect("a shard's");
    let (planes, dims, c) = (Planes::new("norm", "xs", xs.layout())?, xs.dims(), xs.dim(1)?);
    let [xs, weight, bias, upstream] = [xs, weight, bias, upstream].map(bytes::<F>);
    let doubles = |bytes: &[u8]| flat(&tensor::<f64>(bytes, &[bytes.len() / 8])?);
    let to_bytes = |numbers: &[f64]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();

    let Some(mut left) = launched(planes.sum::<F>()?, vec![xs.clone()]) else { return Ok(None) };
    let left = launched(planes.moments::<F>()?, vec![xs.clone(), left.remove(1)]).unwrap();
    let n = (xs.len() / F::DTYPE.size_in_bytes() / c) as f64;
    let all = merge_moments(n, &doubles(&left[2])?, &*exchange)?;
    let (moments, count) = (to_bytes(&all[..2 * c]), all[2 * c] as usize);
    let left = launched(planes.coefficients::<F>(EPS)?, vec![moments.clone(), weight.clone(), bias]).unwrap();
    let ys = launched(planes.affine::<F>()?, vec![xs.clone(), left[3].clone()]).unwrap().remove(2);

    let operands = vec![xs.clone(), upstream.clone(), moments.clone()];
    let parts = launched(planes.gradient_sums::<F>()?, operands).unwrap().remove(3);
    let gradients = |planes: Planes, parts: Vec<u8>| {
        let operands = vec![parts, moments.clone(), weight.clone(), Cases::<F>::empty(2 * c)];
        Ok::<_, candle_core::Error>(launched(planes.gradients::<F>(EPS)?, operands).unwrap())
    };
    let grads = tensor::<F>(&gradients(planes, parts.clone())?[3], &[2, c])?;
    let sums = exchange.merge(planes.total(&doubles(&parts)?), exchange::add)?;
    let by = gradients(planes.of_all(count)?, to_bytes(&sums))?.remove(4);
    let grad_xs = launched(planes.input_gradient::<F>()?, vec![xs, upstream, by]).unwrap().remove(3);
    Ok(Some(vec![tensor::<F>(&ys, dims)?, tensor::<F>(&grad_xs, dims)?, grads.get(1)?, grads.get(0)?]))
}

fn check_shards<F: Real>(shape: &[usize], shards: usize, bound: f64) -> Result<()> {
    let (c, size) = (shape[1], shape[0] / shards);
    let xs = (random("xs", shape, F::DTYPE)? + 30.)?;
    let inputs = [xs, random("weight", &[c], F::DTYPE)?, random("bias", &[c], F::DTYPE)?];
    let wanted = run(|x| Ok(batch_norm(&x[0], &x[1], &x[2], EPS)?.ys), &inputs)?;
    let [xs, weight, bias] = inputs;
    let upstream = random("upstream", shape, F::DTYPE)?;
    let size_of_grad_xs = size_of_input_gradient([&xs, &weight], &upstream)?;
    let found = in_shards(shards, |i| {
        let own = |t: &Tensor| t.narrow(0, i * size, size)?.force_contiguous();
        shard::<F>(&[own(&xs)?, weight.clone(), bias.clone(), own(&upstream)?])
    })?;
    let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else { return Ok(()) };
    let column = |i: usize| found.iter().map(|shard| shard[i].clone()).collect::<Vec<_>>();
    let sum = |i: usize| Tensor::stack(&column(i), 0)?.sum(0);
    let got = [Tensor::cat(&column(0), 0)?, Tensor::cat(&column(1), 0)?, sum(2)?, sum(3)?];
    let size_of_sums = upstream.sqr()?.sum_all()?.sqrt()?.broadcast_as(c)?;
    let sizes = [&wanted[0], &size_of_grad_xs, &size_of_sums, &size_of_sums];
    for (((name, got), wanted), size) in
        ["ys", "grad_xs", "grad_weight", "grad_bias"].iter().zip(&got).zip(&wanted).zip(sizes)
    {
        assert_within(&format!("{shape:?} in {shards} shards: {name}"), got, wanted, size, bound);
    }
    Ok(())
}

/// One shard, several, and channels of several parts.
#[test]
fn shards_make_the_whole_batch() -> Result<()> {
    for (shape, shards) in [(&[5, 3, 2][..], 1), (&[12, 5, 3, 2], 3), (&[6, 2, 53, 61], 2), (&[2, 4], 2)] {
        check_shards::<f32>(shape, shards, 1e-6)?;
        check_shards::<f64>(shape, shards, 1e-11)?;
    }
    Ok(())
}

#[test]
fn more_elements_than_32_bits_count_are_refused() -> Result<()> {
    let planes = Planes::new("norm", "xs", random("xs", &[3, 4], DType::F32)?.layout())?;
    assert!(
        planes.of_all(1 << 31).unwrap_err().to_string().contains("2147483648 elements in a channel of all")
    );
    Ok(())
}

#[test]
fn single_precision_is_the_cpus() -> Result<()> {
    [u32::MAX, 2].into_iter().try_for_each(|grid| check::<f32>(grid, 1e-6))
}

#[test]
fn double_precision_is_the_cpus() -> Result<()> {
    [u32::MAX, 1].into_iter().try_for_each(|grid| check::<f64>(grid, 1e-11))
}

#[test]
fn what_has_no_channels_is_refused() -> Result<()> {
    let xs: Tensor = random("xs", &[3], DType::F32)?;
    assert!(Planes::new("norm", "xs", xs.layout()).unwrap_err().to_string().contains("no channels"));
    let xs = random("xs", &[3, 4], DType::F32)?.t()?;
    assert!(Planes::new("norm", "xs", xs.layout()).unwrap_err().to_string().contains("not contiguous"));
    Ok(())
}
