//! One spiking layer, forward and backward, over the density of its input (the shapes are those of the two networks), and over
//! its sizes.
//!
//! `SNN_CORE_DENSE_ABOVE=0` and `=1` force matrix products and events; without it the engine chooses.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may stop")]

use std::time::Duration;

use candle_core::{DType, Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Seed, SpikingLayer, SpikingStack};
use spiking_diffusion::snn_core;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIME_STEPS: usize = 16;
const BATCH: usize = 32;

/// Source and target channels, stride, source map, transposed.
type Shape = (usize, usize, usize, usize, bool);

/// SDID's second and fourth layer, the autoencoder's strided and its transposed ones.
const SHAPES: [Shape; 4] =
    [(64, 128, 1, 7, false), (256, 512, 1, 7, false), (32, 64, 2, 14, false), (64, 32, 2, 7, true)];

fn layer((from, to, stride, _, transposed): Shape) -> candle_core::Result<(ParamStore, SpikingStack)> {
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let (conv, lif) = (ConvConfig::new(3, stride, 1), LifConfig::default());
    let layer = if transposed {
        SpikingLayer::conv_transpose(from, to, conv.with_output_padding(1), lif, store.builder())
    } else {
        SpikingLayer::conv(from, to, conv, lif, store.builder())
    };
    Ok((store, SpikingStack::new(vec![layer.map_err(candle_core::Error::wrap)?])))
}

/// Spikes of this density, independent of each other.
fn spikes((from, .., map, _): Shape, percent: usize) -> candle_core::Result<Tensor> {
    let shape = (TIME_STEPS, BATCH, from, map, map);
    let u = Seed(1).uniform("spikes", shape, (0., 1.), DType::F32, &Device::Cpu)?;
    u.lt(percent as f64 / 100.)?.to_dtype(DType::F32)
}

/// The time over one size at a time, the others as in SDID's second layer at 7 % of ones.
fn scaling(c: &mut Criterion) {
    let mut group = c.benchmark_group("scaling");
    let mut bench = |axis: &str, size: usize, (steps, batch, to): (usize, usize, usize)| {
        let (store, stack) = layer((64, to, 1, 7, false)).unwrap();
        let u =
            Seed(1).uniform("spikes", (steps, batch, 64, 7, 7), (0., 1.), DType::F32, &Device::Cpu).unwrap();
        let xs = Var::from_tensor(&u.lt(0.07).unwrap().to_dtype(DType::F32).unwrap()).unwrap();
        let step = || {
            let ys = stack.forward(Drive::Spikes(&xs), true).unwrap();
            store.gradients(&ys.sum_all().unwrap().backward().unwrap()).unwrap()
        };
        group.bench_function(BenchmarkId::new(axis, size), |b| b.iter(step));
    };
    for n in [8, 16, 32, 64] {
        bench("N", n, (TIME_STEPS, n, 128));
    }
    for t in [4, 8, 16, 32] {
        bench("T", t, (t, BATCH, 128));
    }
    for to in [64, 128, 256, 512] {
        bench("channels", to, (TIME_STEPS, BATCH, to));
    }
}

fn density(c: &mut Criterion) {
    for shape @ (from, to, stride, map, transposed) in SHAPES {
        let (store, stack) = layer(shape).unwrap();
        let kind = if transposed { "up" } else { "conv" };
        let name = format!("{kind}{from}-{to}s{stride}/T{TIME_STEPS}x{BATCH}x{map}x{map}");
        let forward = |xs: &Tensor, train| stack.forward(Drive::Spikes(xs), train).unwrap();
        let mut group = c.benchmark_group("layer");
        for percent in [1, 2, 5, 10, 20, 30, 40, 50] {
            let xs = spikes(shape, percent).unwrap();
            group.throughput(Throughput::Elements(xs.elem_count() as u64));
            let id = |pass: &str| BenchmarkId::new(format!("{pass}/{name}"), format!("{percent}%"));
            group.bench_function(id("forward"), |b| b.iter(|| forward(&xs, false)));
            let xs = Var::from_tensor(&xs).unwrap();
            let step =
                || store.gradients(&forward(&xs, true).sum_all().unwrap().backward().unwrap()).unwrap();
            group.bench_function(id("step"), |b| b.iter(step));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = density, scaling
}
criterion_main!(benches);
