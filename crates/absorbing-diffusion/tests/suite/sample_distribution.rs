//! Samples against the distribution they should have.

use absorbing_diffusion::{AbsorbingProcess, Order, Sampler, SamplingConfig};
use candle_core::{Device, Tensor};
use snn_core::Seed;

use crate::constant;

const IMAGES: usize = 5000;
/// The probabilities of three codes at each of four positions.
const MARGINALS: [[f64; 3]; 4] =
    [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [1. / 3., 1. / 3., 1. / 3.], [0., 0.25, 0.75]];

/// How often each position had each code, and how often both of the first two positions had code 0.
fn frequencies(order: Order, temperature: f64, steps: usize) -> ([[f64; 3]; 4], f64) {
    let process = AbsorbingProcess::new(3, steps).unwrap();
    let logits: Vec<f32> = (0..12).map(|i| MARGINALS[i % 4][i / 4].ln() as f32).collect();
    let denoiser = constant(Tensor::from_vec(logits, (3, 2, 2), &Device::Cpu).unwrap());
    let config =
        SamplingConfig { order, temperature: temperature.into(), batch_size: 1000, ..Default::default() };
    let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
    let codes = sampler.sample(0..IMAGES, (2, 2), Seed(6), &Device::Cpu, &mut |_, _| ()).unwrap();
    let codes: Vec<u32> = codes.flatten_all().unwrap().to_vec1().unwrap();
    let (mut counts, mut both) = ([[0.; 3]; 4], 0.);
    for map in codes.chunks(4) {
        map.iter().enumerate().for_each(|(i, &code)| counts[i][code as usize] += 1. / IMAGES as f64);
        both += f64::from(map[0] == 0 && map[1] == 0) / IMAGES as f64;
    }
    (counts, both)
}

/// Five standard deviations of a frequency.
fn near(frequency: f64, p: f64) -> bool {
    (frequency - p).abs() <= 5. * (p * (1. - p) / IMAGES as f64).sqrt() + 1e-9
}

#[test]
fn independent_marginals_are_reproduced_and_sharpened() {
    for order in [Order::Posterior, Order::ExactK] {
        for (temperature, steps) in [(1., 4), (0.5, 4), (2., 1), (0.65, 9)] {
            let (counts, both) = frequencies(order, temperature, steps);
            let sharpened = MARGINALS.map(|row| {
                let powers = row.map(|p| p.powf(1. / temperature));
                powers.map(|p| p / powers.iter().sum::<f64>())
            });
            for (counts, ps) in counts.iter().zip(&sharpened) {
                assert!(counts.iter().zip(ps).all(|(c, p)| near(*c, *p)), "{order:?} {counts:?} {ps:?}");
            }
            assert_eq!(counts[3][0], 0.);
            assert!(
                near(both, sharpened[0][0] * sharpened[1][0]),
                "{order:?}: positions depend on each other"
            );
        }
    }
}
