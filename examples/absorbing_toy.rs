//! Absorbing diffusion on maps so small that the truth can be written down: 2x2 maps of 3 codes, four of which exist.
//!
//! Trains a table of logits, one row for each partly masked map, and compares what it samples with the true
//! probabilities, and its bits per token with the entropy. Needs no data and takes a second:
//!
//! `cargo run --release --example absorbing_toy`

use std::fmt::Write;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::Rng;
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, Denoiser, ElboConfig, NoisyCodes, Order, Sampler, SamplingConfig, Weighting,
    bits_per_token, draw_noise, loss,
};
use spiking_diffusion::cli;
use spiking_diffusion::snn_core::Seed;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Every map there is, with its probability. No two positions are independent.
const JOINT: [([u32; 4], f64); 4] =
    [([0, 0, 1, 1], 0.4), ([1, 1, 0, 0], 0.3), ([2, 0, 0, 2], 0.2), ([0, 2, 2, 0], 0.1)];
const TRAINING_STEPS: usize = 400;
const BATCH: usize = 256;
const SAMPLES: usize = 4000;

/// A row of 3x4 logits for each of the 4^4 partly masked maps.
struct Table(Var);

impl Denoiser for Table {
    fn logits(&self, noisy: &NoisyCodes<'_>, _train: bool) -> candle_core::Result<Tensor> {
        let h_t = noisy.h_t;
        let places = Tensor::new(&[64u32, 16, 4, 1], h_t.device())?;
        let row = h_t.flatten_from(1)?.broadcast_mul(&places)?.sum(D::Minus1)?; // [N], in 0..256
        self.0.index_select(&row, 0)?.reshape((h_t.dim(0)?, 3, 2, 2))
    }
}

/// `n` maps from the joint distribution, `[n, 2, 2]`.
fn draw(n: usize, seed: Seed, label: &str) -> candle_core::Result<Tensor> {
    let mut rng = seed.rng(label);
    let mut map = || {
        let (u, mut cumulative) = (rng.random::<f64>(), 0.);
        let drawn = JOINT.iter().find(|(_, p)| {
            cumulative += p;
            u < cumulative
        });
        drawn.unwrap_or(&JOINT[3]).0
    };
    let codes: Vec<u32> = (0..n).flat_map(|_| map()).collect();
    Tensor::from_vec(codes, (n, 2, 2), &Device::Cpu)
}

fn train(process: &AbsorbingProcess, seed: Seed) -> Result<Table> {
    let table = Table(Var::zeros((256, 12), DType::F32, &Device::Cpu)?);
    let params = ParamsAdamW { lr: 0.4, beta2: 0.99, weight_decay: 0., ..Default::default() };
    let mut optimizer = AdamW::new(vec![table.0.clone()], params)?;
    for step in 0..TRAINING_STEPS {
        optimizer.set_learning_rate(0.4 * (1. - step as f64 / TRAINING_STEPS as f64));
        let h0 = draw(BATCH, seed, &format!("data/{step}"))?;
        let (t, u) = draw_noise(process, (BATCH, 2, 2), seed, &format!("loss/{step}"))?;
        let bits = loss(process, &table, &h0, &t, &u, Weighting::Elbo, true)?;
        optimizer.backward_step(&bits)?;
    }
    Ok(table)
}

/// How often each of the four maps was sampled, and how often something else was.
fn frequencies(table: &Table, order: Order, steps: usize, seed: Seed) -> Result<[f64; 5]> {
    let process = AbsorbingProcess::new(3, steps)?;
    let config = SamplingConfig { order, batch_size: SAMPLES, ..Default::default() };
    let sampler = Sampler::new(&process, table, &config)?;
    let codes = sampler.sample(0..SAMPLES, (2, 2), seed, &Device::Cpu, &mut |_, _| ())?;
    let codes: Vec<u32> = codes.flatten_all()?.to_vec1()?;
    let mut frequencies = [0.; 5];
    for map in codes.chunks(4) {
        frequencies[JOINT.iter().position(|(known, _)| known == map).unwrap_or(4)] += 1. / SAMPLES as f64;
    }
    Ok(frequencies)
}

fn main() -> Result<()> {
    let seed = Seed(0);
    let mut page = String::new();
    let process = AbsorbingProcess::new(3, 64)?;
    let table = train(&process, seed)?;

    let runs = [(Order::ExactK, 4), (Order::Posterior, 64), (Order::Posterior, 4), (Order::ExactK, 1)];
    let columns: Vec<[f64; 5]> =
        runs.iter().map(|&(order, steps)| frequencies(&table, order, steps, seed)).collect::<Result<_>>()?;
    let truth = [JOINT[0].1, JOINT[1].1, JOINT[2].1, JOINT[3].1, 0.];
    let heads = runs.map(|(order, steps)| format!("{:>16}", format!("{order:?}, {steps}"))).concat();
    writeln!(page, "{:14}{:>8}{heads}   (order, T_d)", "map", "true")?;
    for i in 0..5 {
        let map = JOINT.get(i).map_or("anything else".into(), |(map, _)| format!("{map:?}"));
        let sampled: String = columns.iter().map(|column| format!("{:>16.4}", column[i])).collect();
        writeln!(page, "{map:14}{:>8.4}{sampled}", truth[i])?;
    }
    let distance = |column: &[f64; 5]| column.iter().zip(truth).map(|(f, p)| (f - p).abs()).sum::<f64>() / 2.;
    let distances: String = columns.iter().map(|column| format!("{:>16.4}", distance(column))).collect();
    writeln!(page, "{:22}{distances}", "total variation")?;
    writeln!(
        page,
        "Tokens revealed in the same step are drawn without sight of each other; hence the last two columns.\n"
    )?;

    let test = draw(SAMPLES, seed, "test")?;
    let config = ElboConfig { batch_size: SAMPLES, ..Default::default() };
    let bits = bits_per_token(&process, &table, &test, &config, seed)?;
    let entropy = -JOINT.iter().map(|(_, p)| p * p.log2()).sum::<f64>() / 4.;
    writeln!(
        page,
        "bits per token {:.4} +- {:.4}, true entropy {entropy:.4}",
        bits.mean, bits.standard_error
    )?;

    let exact = distance(&columns[0]) < 0.05 && distance(&columns[1]) < 0.05;
    let bound = bits.mean > entropy - 4. * bits.standard_error && bits.mean < 1.1 * entropy;
    writeln!(
        page,
        "check: samples {}, bound {}",
        if exact { "ok" } else { "WRONG" },
        if bound { "ok" } else { "WRONG" }
    )?;
    cli::print(page.trim_end())?;
    match exact && bound {
        true => Ok(()),
        false => Err("the samples or the bound are not those of the joint distribution".into()),
    }
}
