//! Two-by-two maps of three codes, small enough that the whole truth can be written down: training, sampling and the
//! bound against the exact joint distribution.

use absorbing_diffusion::{
    AbsorbingProcess, Denoiser, ElboConfig, NoisyCodes, Order, Sampler, SamplingConfig, Weighting,
    bits_per_token, draw_noise, loss,
};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::Rng;
use snn_core::Seed;

const STEPS: usize = 64;
/// All maps there are, with their probabilities.
pub(crate) const JOINT: [([u32; 4], f64); 4] =
    [([0, 0, 1, 1], 0.4), ([1, 1, 0, 0], 0.3), ([2, 0, 0, 2], 0.2), ([0, 2, 2, 0], 0.1)];

/// A row of 3x4 logits for each of the 4^4 partly masked maps: no network, so nothing it could not learn.
pub(crate) struct Table(pub(crate) Var);

impl Denoiser for Table {
    fn logits(&self, noisy: &NoisyCodes<'_>, _train: bool) -> Result<Tensor> {
        let h_t = noisy.h_t;
        let places = Tensor::new(&[64u32, 16, 4, 1], h_t.device())?;
        let row = h_t.flatten_from(1)?.broadcast_mul(&places)?.sum(D::Minus1)?;
        self.0.index_select(&row, 0)?.reshape((h_t.dim(0)?, 3, 2, 2))
    }
}

fn draw(n: usize, label: &str) -> Tensor {
    let mut rng = Seed(0).rng(label);
    let mut map = || {
        let (u, mut cumulative) = (rng.random::<f64>(), 0.);
        let drawn = JOINT.iter().find(|(_, p)| {
            cumulative += p;
            u < cumulative
        });
        drawn.unwrap_or(&JOINT[3]).0
    };
    let codes: Vec<u32> = (0..n).flat_map(|_| map()).collect();
    Tensor::from_vec(codes, (n, 2, 2), &Device::Cpu).unwrap()
}

fn train(process: &AbsorbingProcess, weighting: Weighting) -> Table {
    let table = Table(Var::zeros((256, 12), DType::F32, &Device::Cpu).unwrap());
    let params = ParamsAdamW { lr: 0.4, beta2: 0.99, weight_decay: 0., ..Default::default() };
    let mut optimizer = AdamW::new(vec![table.0.clone()], params).unwrap();
    for step in 0..400 {
        optimizer.set_learning_rate(0.4 * (1. - step as f64 / 400.));
        let h0 = draw(256, &format!("data/{step}"));
        let (t, u) = draw_noise(process, (256, 2, 2), Seed(0), &format!("loss/{step}")).unwrap();
        let total = loss(process, &table, &h0, &t, &u, weighting, true).unwrap();
        optimizer.backward_step(&total).unwrap();
    }
    table
}

/// The bound of Eq. 14, bits per token, of one who knows the joint: every set of masked positions, summed up.
fn ideal_bits_per_token() -> f64 {
    let mut bits = 0.;
    for set in 1u32..16 {
        let masked = |i: usize| set >> i & 1 == 1;
        let of_set: f64 = (1..=STEPS)
            .map(|t| {
                let p = t as f64 / STEPS as f64;
                p.powi(set.count_ones() as i32) * (1. - p).powi(4 - set.count_ones() as i32) / t as f64
            })
            .sum();
        for (map, p) in JOINT {
            let consistent = |other: &&([u32; 4], f64)| (0..4).all(|i| masked(i) || other.0[i] == map[i]);
            let seen: f64 = JOINT.iter().filter(consistent).map(|x| x.1).sum();
            for i in (0..4).filter(|&i| masked(i)) {
                let same: f64 =
                    JOINT.iter().filter(consistent).filter(|x| x.0[i] == map[i]).map(|x| x.1).sum();
                bits -= of_set * p * (same / seen).log2();
            }
        }
    }
    bits / 4.
}

/// The tokens of a row of the table.
pub(crate) fn tokens(row: usize) -> [u32; 4] {
    [row / 64, row / 16 % 4, row / 4 % 4, row % 4].map(|token| token as u32)
}

/// `p(h_0(i) = code | h_t)` of one who knows the joint, whose four maps have these weights; even where no map fits.
pub(crate) fn conditional(weights: [f64; 4], h_t: [u32; 4], i: usize, code: usize) -> f64 {
    let fits = |map: &[u32; 4]| (0..4).all(|j| h_t[j] == 3 || h_t[j] == map[j]);
    let weighted = JOINT.map(|x| x.0).into_iter().zip(weights);
    let of =
        |map: &dyn Fn(&[u32; 4]) -> bool| weighted.clone().filter(|x| map(&x.0)).map(|x| x.1).sum::<f64>();
    let all = of(&fits);
    if all == 0. { 1. / 3. } else { of(&|map| fits(map) && map[i] == code as u32) / all }
}

pub(crate) fn ideal_table() -> Table {
    let logits = (0..256).flat_map(|row| {
        (0..12).map(move |x| conditional(JOINT.map(|x| x.1), tokens(row), x % 4, x / 4).ln() as f32)
    });
    Table(Var::from_vec(logits.collect(), (256, 12), &Device::Cpu).unwrap())
}

/// The distribution over rows that the posterior order ends in, with the ideal table, every path followed; with `cap`, that
/// of the remasking order.
fn posterior_chain(steps: usize, cap: f64) -> Vec<f64> {
    let mut before = vec![0.; 256];
    before[255] = 1.;
    for left in (1..=steps).rev() {
        let masked = |left: usize| left as f64 / steps as f64;
        let sigma = if left == steps { 0. } else { cap.min(masked(left - 1) / (1. - masked(left))) };
        let reveal = ((1. - masked(left - 1) - (1. - sigma) * (1. - masked(left))) / masked(left)).min(1.);
        let mut after = vec![0.; 256];
        for (row, p) in before.iter().enumerate().filter(|x| *x.1 > 0.) {
            let h = tokens(row);
            // Whatever the next row is, its tokens come about independently.
            for (next, q) in after.iter_mut().enumerate() {
                let step = |(i, code): (usize, u32)| match (h[i], code) {
                    (3, 3) => 1. - reveal,
                    (3, code) => reveal * conditional(JOINT.map(|x| x.1), h, i, code as usize),
                    (_, 3) => sigma,
                    (before, after) => f64::from(before == after) * (1. - sigma),
                };
                *q += p * tokens(next).into_iter().enumerate().map(step).product::<f64>();
            }
        }
        before = after;
    }
    before
}

fn draw_samples(process: &AbsorbingProcess, table: &Table, order: Order, n: usize) -> Vec<u32> {
    let config = SamplingConfig { order, batch_size: 1000, ..Default::default() };
    let sampler = Sampler::new(process, table, &config).unwrap();
    let codes = sampler.sample(0..n, (2, 2), Seed(1), &Device::Cpu, &mut |_, _| ()).unwrap();
    codes.flatten_all().unwrap().to_vec1().unwrap()
}

/// The orders against their own exact distributions, which are not the same: the posterior order draws tokens of
/// one step without sight of each other, and at `T_d = 4` three maps of ten come out impossible.
#[test]
fn samples_follow_the_chain_exactly() {
    const N: usize = 20_000;
    let remasking = |cap| Order::Remasking { cap };
    for (order, steps) in [
        (Order::Posterior, 4),
        (Order::Posterior, STEPS),
        (Order::ExactK, 4),
        (remasking(0.), 4),
        (remasking(0.2), 12),
        (remasking(1.), 5),
        // One token redrawn at a time: the joint itself, however long the loop.
        (Order::Gibbs { masked: 0.5, redrawn: 0.25 }, 5),
        (Order::Gibbs { masked: 0.25, redrawn: 0.25 }, 30),
    ] {
        let process = AbsorbingProcess::new(3, steps).unwrap();
        let mut counts = vec![0; 256];
        for map in draw_samples(&process, &ideal_table(), order, N).chunks(4) {
            counts[map.iter().fold(0, |row, &code| row * 4 + code as usize)] += 1;
        }
        let expected = match order {
            Order::Posterior => posterior_chain(steps, 0.),
            Order::Remasking { cap } => posterior_chain(steps, cap),
            _ => {
                let of = |row| JOINT.iter().find(|x| x.0 == tokens(row)).map_or(0., |x| x.1);
                (0..256).map(of).collect()
            }
        };
        assert!((expected.iter().sum::<f64>() - 1.).abs() < 1e-12);
        for (row, (&count, p)) in counts.iter().zip(expected).enumerate() {
            let (mean, deviation) = (N as f64 * p, (N as f64 * p * (1. - p)).sqrt());
            let distance = (f64::from(count) - mean).abs();
            assert!(distance <= 4.5 * deviation + 1e-9, "{order:?} {:?}: {count} {mean}", tokens(row));
        }
    }
}

#[test]
fn the_bound_of_the_ideal_denoiser_is_the_ideal_bound() {
    let process = AbsorbingProcess::new(3, STEPS).unwrap();
    let config = ElboConfig { batch_size: 1000, ..Default::default() };
    let bits = bits_per_token(&process, &ideal_table(), &draw(20_000, "test"), &config, Seed(2)).unwrap();
    let ideal = ideal_bits_per_token();
    assert!((bits.mean - ideal).abs() < 4. * bits.standard_error, "{bits:?} {ideal}");
}

fn total_variation(process: &AbsorbingProcess, table: &Table, order: Order) -> f64 {
    const N: usize = 4000;
    let codes = draw_samples(process, table, order, N);
    let frequency = |map: &[u32; 4]| codes.chunks(4).filter(|codes| codes == map).count() as f64 / N as f64;
    let (mut distance, mut inside) = (0., 0.);
    for (map, p) in &JOINT {
        distance += (frequency(map) - p).abs();
        inside += frequency(map);
    }
    (distance + 1. - inside) / 2.
}

#[test]
fn absorbing_toy() {
    let process = AbsorbingProcess::new(3, STEPS).unwrap();
    let entropy = -JOINT.iter().map(|(_, p)| p * p.log2()).sum::<f64>() / 4.;
    let ideal = ideal_bits_per_token();
    assert!(ideal > entropy && ideal < 1.03 * entropy, "{ideal} {entropy}");
    for weighting in [Weighting::Elbo, Weighting::Uniform] {
        let table = train(&process, weighting);
        let config = ElboConfig { batch_size: 1000, ..Default::default() };
        let bits = bits_per_token(&process, &table, &draw(4000, "test"), &config, Seed(2)).unwrap();
        let slack = 4. * bits.standard_error;
        assert!(bits.mean > entropy - slack, "{weighting:?}: {bits:?} beats the entropy {entropy}");
        assert!(
            bits.mean > ideal - slack && bits.mean < 1.03 * ideal + slack,
            "{weighting:?}: {bits:?} {ideal}"
        );
        for order in [Order::Posterior, Order::ExactK] {
            let distance = total_variation(&process, &table, order);
            assert!(distance < 0.05, "{weighting:?} {order:?}: {distance}");
        }
    }
}
