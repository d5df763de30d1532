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
use snn_core::{
    AdamW, AdamWConfig, ConvConfig, DescribeLayers, Drive, LifConfig, ParamStore, Readout, Seed,
    SpikingLayer, SpikingNetwork, SpikingStack, lif, spikes_by_position,
};
use spiking_diffusion::snn_core;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIME_STEPS: usize = 16;
const BATCH: usize = 32;
const SIDE: usize = 7;
/// SDID's fourth layer, the heaviest.
const CHANNELS: (usize, usize) = (256, 512);
/// The classifier of `scripts/compare-peer`: time steps, batch, and its hidden layer.
const CLASSIFIER: (usize, usize) = (4, 64);
const LINEAR: (usize, usize) = (3136, 256);

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

/// Independent spikes of this density.
fn spikes(shape: &[usize], density: f64) -> Tensor {
    let u = Seed(1).uniform("spikes", shape, (0., 1.), DType::F32, &Device::Cpu).unwrap();
    u.lt(density).unwrap().to_dtype(DType::F32).unwrap()
}

/// Additions of a forward pass, each connection of each spike one.
fn additions(layer: &SpikingLayer, source: [usize; 3], xs: &Tensor) -> f64 {
    layer.connections(source).unwrap().accumulates(&spikes_by_position(xs).unwrap())
}

/// Seconds of the three products of one layer, as differences of whole calls.
struct Products {
    forward: f64,
    weights: f64,
    input: f64,
}

impl Products {
    fn of(layer: SpikingLayer, xs: &Tensor) -> Self {
        let stack = SpikingStack::new(vec![layer]);
        let silent = xs.zeros_like().unwrap();
        let forward = |xs: &Tensor, train| stack.readout(Drive::Spikes(xs), Readout::Mean, train).unwrap();
        let step = |xs: &Tensor| drop(black_box(forward(xs, true).sum_all().unwrap().backward().unwrap()));
        let evaluate = |xs: &Tensor| drop(black_box(forward(xs, false)));
        let all = Var::from_tensor(xs).map(|xs| time(|| step(&xs))).unwrap();
        let (weights, neither) = (time(|| step(xs)), time(|| step(&silent)));
        // Of the step's time without spikes, the forward pass of spikes has no part.
        let events = time(|| evaluate(xs)) - time(|| evaluate(&silent));
        Self { forward: events, weights: weights - neither - events, input: all - weights }
    }
}

/// What is timed, its seconds, how much it does, what that is, and how much of it a second could have.
struct Row(&'static str, f64, f64, &'static str, f64);

fn convolution(products: f64) -> [Row; 3] {
    let (store, same) = (ParamStore::new(Seed(0), DType::F32, &Device::Cpu), ConvConfig::new(3, 1, 1));
    let layer = SpikingLayer::conv(CHANNELS.0, CHANNELS.1, same, LifConfig::default(), store.builder());
    let (layer, xs) = (layer.unwrap(), spikes(&[TIME_STEPS, BATCH, CHANNELS.0, SIDE, SIDE], 0.05));
    let add = additions(&layer, [CHANNELS.0, SIDE, SIDE], &xs);
    let winograd = (81 * CHANNELS.0 * CHANNELS.1 * TIME_STEPS * BATCH) as f64;
    let took = Products::of(layer, &xs);
    [
        Row("events, forward (5 %)", took.forward, add, "additions", products),
        Row("events, weight gradient (5 %)", took.weights, add, "additions", products),
        Row("input gradient, Winograd", took.input, winograd, "multiply-adds", products),
    ]
}

fn linear(products: f64) -> [Row; 3] {
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let layer = SpikingLayer::linear(LINEAR.0, LINEAR.1, LifConfig::default(), store.builder()).unwrap();
    let xs = spikes(&[CLASSIFIER.0, CLASSIFIER.1, LINEAR.0], 0.08);
    let add = additions(&layer, [LINEAR.0, 1, 1], &xs);
    let dense = (LINEAR.0 * LINEAR.1 * CLASSIFIER.0 * CLASSIFIER.1) as f64;
    let took = Products::of(layer, &xs);
    [
        Row("linear layer, forward (8 %)", took.forward, add, "additions", products),
        Row("linear layer, weight gradient (8 %)", took.weights, add, "additions", products),
        Row("linear layer, input gradient", took.input, dense, "multiply-adds", products),
    ]
}

/// A training step of the classifier: additions of its spikes, forward and for the weights; multiply-adds of all input gradients,
/// and of the first layer, whose input is no spikes.
fn classifier(products: f64) -> Row {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let (halve, (time_steps, batch)) = (ConvConfig::new(3, 2, 1), CLASSIFIER);
    let network = SpikingNetwork::builder(&[1, 28, 28], LifConfig::default(), params.builder())
        .conv(32, halve)
        .conv(64, halve)
        .flatten()
        .linear(LINEAR.1)
        .readout(10, Readout::Mean)
        .build()
        .unwrap();
    let images = Seed(1).normal("images", (batch, 1, 28, 28), (0., 1.), DType::F32, &Device::Cpu).unwrap();
    let drive = Drive::Constant(&images, time_steps);
    let mut trains = Vec::new();
    let mut keep = |_: &str, spikes: &Tensor| -> candle_core::Result<()> {
        trains.push(spikes_by_position(spikes)?);
        Ok(())
    };
    network.readout_observed(drive, true, &mut keep).unwrap();
    let layers = network.describe_layers().unwrap();
    let first = 2. * layers[0].connections.macs() * batch as f64;
    let others = layers[1..3].iter().zip(&trains).map(|(layer, spikes)| {
        let dense = layer.connections.macs() * (time_steps * batch) as f64;
        2. * layer.connections.accumulates(spikes) + dense
    });
    let operations = first + others.sum::<f64>();
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default()).unwrap();
    let seconds = time(|| {
        let loss = network.readout(drive, true).unwrap().sqr().unwrap().sum_all().unwrap();
        optimiser.step(&params.gradients(&loss.backward().unwrap()).unwrap(), 0.).unwrap();
    });
    Row("classifier, training step", seconds, operations, "operations", products)
}

fn main() {
    let (bandwidth, products) = (bandwidth(), multiply_adds());
    let shape = (TIME_STEPS, BATCH, CHANNELS.0, SIDE, SIDE);
    let currents = Seed(2).normal("x", shape, (0., 1.), DType::F32, &Device::Cpu).unwrap();
    let bytes = 4. * currents.elem_count() as f64;
    let neurons = time(|| drop(black_box(lif(&currents, &LifConfig::default()).unwrap())));
    println!(
        "machine: {:.1} GB/s, {:.1} G multiply-adds/s, {} threads\n",
        bandwidth / 1e9,
        products / 1e9,
        rayon::current_num_threads()
    );
    println!("| kernel | ms | G/s | of | limit | part |\n| --- | --- | --- | --- | --- | --- |");
    let rows = convolution(products).into_iter().chain(linear(products));
    let rest =
        [classifier(products), Row("LIF, forward", neurons, 2. * bytes, "bytes", bandwidth)].into_iter();
    for Row(name, seconds, work, unit, limit) in rows.chain(rest) {
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
