//! How far samples are from the truth, for every order, number of steps, temperature and cut, against a chain in which every
//! path is followed: the four 2x2 maps of `toy`, with a denoiser that knows them.

use absorbing_diffusion::{AbsorbingProcess, Order, Sampler, SamplingConfig, Schedule};
use candle_core::Device;
use snn_core::Seed;

use crate::toy::{JOINT, ideal_table, tokens};

const SAMPLES: usize = 20_000;
const MASK: u32 = 3;

/// The ideal denoiser's logits of the three codes at a position, `row -> position -> code`.
struct Ideal(Vec<f32>);

impl Ideal {
    fn new() -> Self {
        Self(ideal_table().0.flatten_all().unwrap().to_vec1().unwrap())
    }

    /// `softmax(logits / temperature)` as the sampler computes it, so that ties are ties.
    fn tempered(&self, row: usize, position: usize, temperature: f64) -> [f64; 3] {
        let logits = [0, 1, 2].map(|code| f64::from(self.0[row * 12 + code * 4 + position]));
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = logits.map(|x| ((x - max) / temperature).exp());
        let log_total = weights.iter().sum::<f64>().ln();
        logits.map(|x| ((x - max) / temperature - log_total).exp())
    }
}

/// The distribution cut by its definition: codes are tried from the likeliest, the lower of equals first.
fn cut(p: [f64; 3], config: &SamplingConfig) -> [f64; 3] {
    let mut codes = [0, 1, 2];
    codes.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    let kept = &codes[..config.top_k.unwrap_or(3).min(3)];
    let total: f64 = kept.iter().map(|&code| p[code]).sum();
    let (mut left, mut share) = ([0.; 3], 0.);
    for &code in kept {
        if share < config.top_p.unwrap_or(2.) {
            left[code] = p[code] / total;
            share += left[code];
        }
    }
    left.map(|x| x / share)
}

/// All choices of `count` of the items.
fn subsets(items: &[usize], count: usize) -> Vec<Vec<usize>> {
    let chosen = |set: u32| (0..items.len()).filter(move |i| set >> i & 1 == 1).map(|i| items[i]);
    (0..1u32 << items.len())
        .filter(|set| set.count_ones() as usize == count)
        .map(|set| chosen(set).collect())
        .collect()
}

/// The distribution over the 81 maps (as rows of four digits) in which the sampler ends.
fn chain(order: Order, config: &SamplingConfig, steps: usize) -> Vec<f64> {
    let ideal = Ideal::new();
    let mut now = vec![0.; 256];
    now[255] = 1.;
    for left in (1..=steps).rev() {
        let temperature = config.temperature.at(left, steps);
        let mut next = vec![0.; 256];
        for (row, &p) in now.iter().enumerate().filter(|x| *x.1 > 0.) {
            let before = tokens(row);
            let masked: Vec<usize> = (0..4).filter(|&i| before[i] == MASK).collect();
            let stay = (8 * (left - 1) + steps) / (2 * steps); // 4 (left - 1) / steps, rounded
            let due = masked.len().saturating_sub(stay); // of no matter to the posterior
            // Which positions are drawn, and with which probability.
            let proposals = match order {
                Order::ExactK => subsets(&masked, due),
                Order::Confidence { .. } => vec![masked],
                Order::Halton => {
                    vec![[2, 1, 0, 3].into_iter().filter(|i| masked.contains(i)).take(due).collect()]
                }
                Order::Posterior => (0..=masked.len()).flat_map(|k| subsets(&masked, k)).collect(),
                _ => unreachable!("no order of this test"),
            };
            let many = proposals.len() as f64;
            for positions in proposals {
                let chosen = match order {
                    Order::Posterior => {
                        let (drawn, rest) = (positions.len() as i32, (4 - positions.len()) as i32);
                        let masked = before.iter().filter(|code| **code == MASK).count() as i32;
                        let one = 1. / left as f64;
                        one.powi(drawn) * (1. - one).powi(rest - (4 - masked))
                    }
                    _ => 1. / many,
                };
                // Every outcome of the draws.
                for outcome in 0..3usize.pow(positions.len() as u32) {
                    let code = |i: usize| outcome / 3usize.pow(i as u32) % 3;
                    let of = |i: usize| ideal.tempered(row, positions[i], temperature);
                    let q: f64 =
                        (0..positions.len()).map(|i| cut(of(i), config)[code(i)]).product::<f64>() * chosen;
                    let mut keep: Vec<usize> = (0..positions.len()).collect();
                    if let Order::Confidence { .. } = order {
                        keep.sort_by(|&a, &b| of(b)[code(b)].total_cmp(&of(a)[code(a)]));
                        keep.truncate(due);
                    }
                    let mut after = before;
                    keep.iter().for_each(|&i| after[positions[i]] = code(i) as u32);
                    next[after.iter().fold(0, |row, &code| row * 4 + code as usize)] += p * q;
                }
            }
        }
        now = next;
    }
    assert!((now.iter().sum::<f64>() - 1.).abs() < 1e-12);
    now
}

fn sampled(config: &SamplingConfig) -> Vec<f64> {
    let (process, table) = (AbsorbingProcess::new(3, 4).unwrap(), ideal_table());
    let sampler = Sampler::new(&process, &table, config).unwrap();
    let codes = sampler.sample(0..SAMPLES, (2, 2), Seed(1), &Device::Cpu, &mut |_, _| ()).unwrap();
    let codes: Vec<u32> = codes.flatten_all().unwrap().to_vec1().unwrap();
    let mut frequencies = vec![0.; 256];
    for map in codes.chunks(4) {
        let row = map.iter().fold(0, |row, &code| row * 4 + code as usize);
        frequencies[row] += 1. / SAMPLES as f64;
    }
    frequencies
}

/// The total variation from the true distribution.
fn distance(found: &[f64]) -> f64 {
    let truth = |row| JOINT.iter().find(|(map, _)| *map == tokens(row)).map_or(0., |(_, p)| *p);
    found.iter().enumerate().map(|(row, p)| (p - truth(row)).abs()).sum::<f64>() / 2.
}

/// Asserts that the sampler does as the chain says, and returns the chain's distance.
fn agrees(config: SamplingConfig) -> f64 {
    let config = SamplingConfig { batch_size: 1000, ..config };
    let (predicted, found) = (chain(config.order, &config, config.steps.unwrap_or(4)), sampled(&config));
    for (row, (p, frequency)) in predicted.iter().zip(&found).enumerate() {
        let deviation = (p * (1. - p) / SAMPLES as f64).sqrt();
        assert!(
            (frequency - p).abs() <= 4.5 * deviation + 1e-9,
            "{config:?} {:?}: {frequency} {p}",
            tokens(row)
        );
    }
    assert!((distance(&predicted) - distance(&found)).abs() < 0.02, "{config:?}");
    distance(&predicted)
}

/// Tokens of one step are drawn without sight of each other: the more steps, the nearer the truth, which is reached where every
/// token has a step of its own.
#[test]
fn total_variation_falls_with_the_steps_as_predicted() {
    let distances = |order, steps: &[usize]| -> Vec<f64> {
        let at = |&steps: &usize| agrees(SamplingConfig { order, steps: Some(steps), ..Default::default() });
        steps.iter().map(at).collect()
    };
    let blind = distances(Order::ExactK, &[1])[0];
    assert!(blind > 0.5);
    for order in [Order::ExactK, Order::Halton] {
        let found = distances(order, &[1, 2, 4, 7]);
        assert_eq!(found[0], blind);
        assert!(found[1] < found[0] && found[2] < 1e-7 && found[3] < 1e-7, "{order:?}: {found:?}");
    }
    let posterior = distances(Order::Posterior, &[1, 2, 4, 16]);
    assert!((posterior[0] - blind).abs() < 1e-12);
    // The chance of two tokens in one step is one in `steps`.
    assert!(posterior.windows(2).all(|pair| pair[1] < 0.75 * pair[0]), "{posterior:?}");
    // To choose by what was drawn is to prefer what is likely: no number of steps makes up for that.
    let confident = distances(Order::Confidence { noise: 0. }, &[1, 2, 4]);
    assert!(confident[1] < confident[0] && confident[2] > 0.02, "{confident:?}");
}

#[test]
fn temperature_and_cuts_move_samples_as_predicted() {
    let of = |config: SamplingConfig| agrees(SamplingConfig { order: Order::ExactK, ..config });
    let temperature = |from, to| SamplingConfig {
        temperature: Schedule::Linear { from, to },
        steps: Some(4),
        ..Default::default()
    };
    let constant = |t: f64| SamplingConfig { temperature: t.into(), ..Default::default() };
    let (half, cooling, one) = (of(constant(0.5)), of(temperature(1., 0.25)), of(constant(1.)));
    // What the first token is decides the most; its temperature counts.
    assert!(one < 1e-7 && cooling > 1e-3 && half > 2. * cooling, "{half} {cooling} {one}");
    assert!(of(temperature(0.5, 1.)) > cooling);
    // With one token a step, the cut of the last steps changes nothing: what follows is certain.
    let top_k = [1, 2, 3].map(|k| of(SamplingConfig { top_k: Some(k), ..Default::default() }));
    assert!(top_k[0] > top_k[1] && top_k[1] > top_k[2] && top_k[2] < 1e-7, "{top_k:?}");
    let top_p = [0.3, 0.7, 0.95].map(|p| of(SamplingConfig { top_p: Some(p), ..Default::default() }));
    assert!(top_p[0] == top_k[0] && top_p[0] > top_p[1] && top_p[1] > top_p[2], "{top_p:?}");
    agrees(SamplingConfig {
        order: Order::Confidence { noise: 0. },
        temperature: Schedule::Linear { from: 2., to: 0.5 },
        top_k: Some(2),
        top_p: Some(0.6),
        steps: Some(3),
        ..Default::default()
    });
}

/// One step, independent tokens: what a cut takes away from a position is its distance from the truth there, and it takes as much
/// as it says.
#[test]
fn a_cut_keeps_the_mass_that_it_says() {
    let (ideal, all_masked) = (Ideal::new(), 255);
    for (config, codes) in [
        (SamplingConfig { top_k: Some(1), ..Default::default() }, [1, 1, 1, 1]),
        (SamplingConfig { top_k: Some(2), ..Default::default() }, [2, 2, 2, 2]),
        (SamplingConfig { top_p: Some(0.55), ..Default::default() }, [2, 1, 2, 2]),
        (SamplingConfig { top_p: Some(0.85), ..Default::default() }, [3, 2, 2, 3]),
    ] {
        let config = SamplingConfig { steps: Some(1), batch_size: 1000, ..config };
        let found = sampled(&config);
        for (position, kept) in codes.into_iter().enumerate() {
            let truth = ideal.tempered(all_masked, position, 1.);
            let mut frequencies = [0.; 3];
            found.iter().enumerate().filter(|x| *x.1 > 0.).for_each(|(row, frequency)| {
                frequencies[tokens(row)[position] as usize] += frequency;
            });
            assert_eq!(frequencies.iter().filter(|x| **x > 0.).count(), kept, "{config:?} {position}");
            let mut largest = truth;
            largest.sort_by(|a, b| b.total_cmp(a));
            let mass: f64 = largest[..kept].iter().sum();
            let distance: f64 = frequencies.iter().zip(truth).map(|(f, p)| (f - p).abs()).sum::<f64>() / 2.;
            assert!((distance - (1. - mass)).abs() < 0.02, "{config:?} {position}: {distance} {mass}");
            assert!(config.top_p.is_none_or(|p| mass >= p && mass - largest[kept - 1] < p));
        }
    }
}
