//! The heaviest kernels against what this machine can do at most: prints one table. `cargo bench --bench roofline`
//!
//! Kernels are timed through the public API, as differences of whole calls where one call has several of them.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    clippy::print_stdout,
    reason = "a bench may stop; its output is its table"
)]

use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack, lif};
use spiking_diffusion::snn_core;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIME_STEPS: usize = 16;
const BATCH: usize = 32;
const SIDE: usize = 7;
/// SDID's fourth layer, the heaviest.
const CHANNELS: (usize, usize) = (256, 512);

/// The median of several runs, in seconds, after two that are not timed.
fn time(mut f: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..11)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .skip(2)
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Bytes a second of `a = b + c` over arrays that no cache holds.
fn bandwidth() -> f64 {
    let n = 1 << 25;
    let (mut a, b, c) = (vec![0f32; n], vec![1f32; n], vec![2f32; n]);
    let seconds = time(|| {
        a.par_chunks_mut(1 << 16).zip(b.par_chunks(1 << 16).zip(c.par_chunks(1 << 16))).for_each(
            |(a, (b, c))| {
                a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (b, c))| *a = b + c);
            },
        );
        black_box(&a);
    });
    12. * n as f64 / seconds
}

/// Multiply-adds a second of a large matrix product.
fn multiply_adds() -> f64 {
    let n = 1536;
    let matrix = |label| Seed(0).normal(label, (n, n), (0., 1.), DType::F32, &Device::Cpu).unwrap();
    let (a, b) = (matrix("a"), matrix("b"));
    (n as f64).powi(3) / time(|| drop(black_box(a.matmul(&b).unwrap())))
}

fn spikes(density: f64) -> Tensor {
    let shape = (TIME_STEPS, BATCH, CHANNELS.0, SIDE, SIDE);
    let u = Seed(1).uniform("spikes", shape, (0., 1.), DType::F32, &Device::Cpu).unwrap();
    u.lt(density).unwrap().to_dtype(DType::F32).unwrap()
}

/// Additions that the spikes of a 3x3 layer of stride 1 and padding 1 cost.
fn additions(xs: &Tensor) -> f64 {
    let ones = f64::from(xs.sum_all().unwrap().to_scalar::<f32>().unwrap());
    let taps = ((3 * SIDE - 2) as f64 / SIDE as f64).powi(2);
    ones * taps * CHANNELS.1 as f64
}

struct Row(&'static str, f64, f64, &'static str, f64);

fn main() {
    let (bandwidth, products) = (bandwidth(), multiply_adds());
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let same = ConvConfig::new(3, 1, 1);
    let layer = SpikingLayer::conv(CHANNELS.0, CHANNELS.1, same, LifConfig::default(), store.builder());
    let stack = SpikingStack::new(vec![layer.unwrap()]);
    let xs = spikes(0.05);
    let step = |xs: &Tensor| {
        let ys = stack.readout(Drive::Spikes(xs), Readout::Mean, true).unwrap();
        drop(black_box(ys.sum_all().unwrap().backward().unwrap()));
    };
    let forward = time(|| drop(black_box(stack.readout(Drive::Spikes(&xs), Readout::Mean, false).unwrap())));
    let silent = spikes(0.);
    let (all, weights, neither) = (
        Var::from_tensor(&xs).map(|xs| time(|| step(&xs))).unwrap(),
        time(|| step(&xs)),
        time(|| step(&silent)),
    );
    // Of the step's time without spikes, the forward pass of 5 % has no part.
    let quiet =
        time(|| drop(black_box(stack.readout(Drive::Spikes(&silent), Readout::Mean, false).unwrap())));
    let events = forward - quiet;
    let winograd = (81 * CHANNELS.0 * CHANNELS.1 * TIME_STEPS * BATCH) as f64;
    let currents = Seed(2).normal("x", xs.shape(), (0., 1.), DType::F32, &Device::Cpu).unwrap();
    let bytes = 4. * currents.elem_count() as f64;
    let neurons = time(|| drop(black_box(lif(&currents, &LifConfig::default()).unwrap())));
    let add = additions(&xs);
    println!(
        "machine: {:.1} GB/s, {:.1} G multiply-adds/s, {} threads\n",
        bandwidth / 1e9,
        products / 1e9,
        rayon::current_num_threads()
    );
    println!("| kernel | ms | G/s | of | limit | part |\n| --- | --- | --- | --- | --- | --- |");
    for Row(name, seconds, work, unit, limit) in [
        Row("events, forward (5 %)", events, add, "additions", products),
        Row("events, weight gradient (5 %)", weights - neither - events, add, "additions", products),
        Row("input gradient, Winograd", all - weights, winograd, "multiply-adds", products),
        Row("LIF, forward", neurons, 2. * bytes, "bytes", bandwidth),
    ] {
        let rate = work / seconds;
        println!(
            "| {name} | {:.1} | {:.1} | {unit} | {:.1} | {:.0} % |",
            seconds * 1e3,
            rate / 1e9,
            limit / 1e9,
            100. * rate / limit
        );
    }
}
