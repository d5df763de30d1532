//! Single operations, forward and (where there is one) backward, at the shapes of the paper's networks: T = 16, batch 32.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may stop")]

use std::time::Duration;

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use snn_core::{
    AdamW, AdamWConfig, ConvConfig, LifConfig, Readout, Seed, batch_norm, conv_transpose2d, conv2d,
    conv2d_at, cross_entropy, lerp, lif, lif_constant, nearest, psp_distance,
};
use spiking_diffusion::snn_core;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIME_STEPS: usize = 16;
const BATCH: usize = 32;

fn normal(label: &str, shape: &[usize]) -> Tensor {
    Seed(0).normal(label, shape, (0., 1.), DType::F32, &Device::Cpu).unwrap()
}

fn spikes(shape: &[usize]) -> Tensor {
    let u = Seed(0).uniform("spikes", shape, (0., 1.), DType::F32, &Device::Cpu).unwrap();
    u.lt(0.07).unwrap().to_dtype(DType::F32).unwrap()
}

/// Benches `f` of these operands, and with it the gradients in all of them.
fn op(c: &mut Criterion, name: &str, operands: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let shape = operands[0].dims().iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(operands[0].elem_count() as u64));
    group.bench_function(BenchmarkId::new("forward", &shape), |b| b.iter(|| f(operands).unwrap()));
    let vars: Vec<Var> = operands.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let vars: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    if f(&vars).unwrap().track_op() {
        let both = || f(&vars).unwrap().backward().unwrap();
        group.bench_function(BenchmarkId::new("forward_and_backward", &shape), |b| b.iter(both));
    }
}

fn neurons(c: &mut Criterion) {
    let map = [TIME_STEPS, BATCH, 128, 7, 7];
    let cfg = LifConfig::default();
    op(c, "lif", &[normal("currents", &map)], |x| lif(&x[0], &cfg));
    op(c, "lif_constant", &[normal("current", &map[1..])], |x| lif_constant(&x[0], TIME_STEPS, &cfg));
    let (trains, other) =
        (spikes(&map), normal("other", &map).gt(1.5).unwrap().to_dtype(DType::F32).unwrap());
    op(c, "psp_distance", &[trains.clone(), other], |x| psp_distance(&x[0], &x[1], 2.));
    let readouts = [Readout::Mean, Readout::Psp { tau: 2. }];
    op(c, "readouts", &[trains], |x| Readout::apply_all(&readouts, &x[0]));
}

fn maps(c: &mut Criterion) {
    let same = ConvConfig::new(3, 1, 1);
    let (xs, weight) = (normal("xs", &[BATCH, 320, 7, 7]), normal("weight", &[128, 320, 3, 3]));
    op(c, "conv2d", &[xs.clone(), weight.clone()], |x| conv2d(&x[0], &x[1], &same));
    let positions: Vec<Vec<u32>> = (0..BATCH as u32).map(|n| vec![n % 49]).collect();
    op(c, "conv2d_at", &[xs, weight], |x| conv2d_at(&x[0], &x[1], &same, &positions));
    let (xs, weight) = (normal("xs", &[BATCH, 32, 28, 28]), normal("weight", &[32, 1, 3, 3]));
    op(c, "conv_transpose2d", &[xs, weight], |x| conv_transpose2d(&x[0], &x[1], &same));
    let operands = [normal("xs", &[TIME_STEPS * BATCH, 128, 7, 7]), normal("w", &[128]), normal("b", &[128])];
    op(c, "batch_norm", &operands, |x| Ok(batch_norm(&x[0], &x[1], &x[2], 1e-5)?.ys));
    let (z, codes) = (normal("z", &[BATCH, 128, 7, 7]), normal("codes", &[128, 128]));
    op(c, "nearest", &[z, codes], |x| nearest(&x[0], &x[1]));
    let operands = [normal("pair", &[2, BATCH, 128, 7, 7]), normal("k", &[1])];
    op(c, "lerp", &operands, |x| lerp(&x[0], &x[1]));
    let truth: Vec<u32> = (0..784).collect(); // half of the tokens of 32 maps, as a denoiser of 1,024 codes meets them
    op(c, "cross_entropy", &[normal("logits", &[784, 1024])], |x| cross_entropy(&x[0], &truth));
}

/// A step of AdamW on as many numbers as the paper's denoiser has: seven of them read or written for each.
fn optimiser(c: &mut Criterion) {
    let param = Var::from_tensor(&normal("param", &[3_101_504])).unwrap();
    let grads = [("param".to_owned(), normal("grad", &[3_101_504]))].into();
    let mut adamw = AdamW::new(vec![("param".to_owned(), param)], AdamWConfig::default()).unwrap();
    let mut group = c.benchmark_group("adamw");
    group.throughput(Throughput::Elements(3_101_504));
    group.bench_function("step", |b| b.iter(|| adamw.step(&grads, 1.).unwrap()));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = neurons, maps, optimiser
}
criterion_main!(benches);
