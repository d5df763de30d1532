use std::sync::Mutex;

use absorbing_diffusion::{AbsorbingProcess, Denoiser, Order, Sampler, SamplingConfig, from_fn};
use candle_core::{DType, Device, Result, Tensor};
use snn_core::Seed;

use crate::process::{product, transition};
use crate::{oracle, rejects, uniform};

const ORDERS: [Order; 2] = [Order::Posterior, Order::ExactK];

fn config(order: Order) -> SamplingConfig {
    SamplingConfig { order, ..Default::default() }
}

/// Codes as they are after each step, from all masked to none.
fn film(
    process: &AbsorbingProcess,
    denoiser: &dyn Denoiser,
    shape: (usize, usize, usize),
    order: Order,
) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut frames = vec![vec![process.mask(); shape.0 * shape.1 * shape.2]];
    let mut left = process.steps();
    let mut observe = |codes: &[u32], t: usize| {
        left -= 1;
        assert_eq!(t, left);
        frames.push(codes.to_vec());
    };
    let (n, h, w) = shape;
    let config = config(order);
    let sampler = Sampler::new(process, denoiser, &config).unwrap();
    let codes = sampler.sample(0..n, (h, w), Seed(4), &Device::Cpu, &mut observe).unwrap();
    assert_eq!((codes.dims(), codes.dtype()), ([n, h, w].as_slice(), DType::U32));
    (codes.flatten_all().unwrap().to_vec1().unwrap(), frames)
}

#[test]
fn tokens_once_revealed_stay_and_no_mask_is_left() {
    for order in ORDERS {
        for steps in [1, 2, 5, 12, 13, 100] {
            let process = AbsorbingProcess::new(5, steps).unwrap();
            let (codes, frames) = film(&process, &uniform(5, (3, 4)), (6, 3, 4), order);
            assert!(codes.iter().all(|&code| code < 5), "{order:?}, T_d = {steps}");
            assert_eq!((frames.len(), frames.last().unwrap()), (steps + 1, &codes));
            for pair in frames.windows(2) {
                assert!(pair[0].iter().zip(&pair[1]).all(|(before, after)| *before == 5 || before == after));
            }
        }
    }
}

#[test]
fn exact_k_leaves_exactly_that_many() {
    for (steps, length) in [(12, 12), (5, 12), (100, 12), (1, 12)] {
        let process = AbsorbingProcess::new(5, steps).unwrap();
        let (_, frames) = film(&process, &uniform(5, (3, 4)), (6, 3, 4), Order::ExactK);
        for (t, frame) in frames.iter().rev().enumerate() {
            let expected = (length as f64 * t as f64 / steps as f64).round() as usize;
            let masked = frame.chunks(length).map(|codes| codes.iter().filter(|&&code| code == 5).count());
            assert!(masked.into_iter().all(|masked| masked == expected), "T_d = {steps}, t = {t}");
        }
    }
}

#[test]
fn an_oracle_gets_its_map_back() {
    let map: Vec<u32> = (0..12).map(|i| i * 7 % 10).collect();
    for order in ORDERS {
        let process = AbsorbingProcess::new(10, 8).unwrap();
        let (codes, _) = film(&process, &oracle(10, &map, (3, 4)), (5, 3, 4), order);
        assert_eq!(codes, map.repeat(5));
    }
}

/// Eq. 13 by Bayes, `q(h_{t-1} | h_t, h_0) = q(h_t | h_{t-1}) q(h_{t-1} | h_0) / q(h_t | h_0)`, from the transition
/// matrices, against what the posterior order does with an oracle; and the chain's own marginals at every time.
#[test]
fn posterior_order_is_bayes_of_the_chain() {
    const IMAGES: usize = 3000;
    let (k, steps) = (3, 7);
    let process = AbsorbingProcess::new(k, steps).unwrap();
    let map: Vec<u32> = (0..12).map(|i| i % 3).collect();
    let (_, frames) = film(&process, &oracle(k, &map, (3, 4)), (IMAGES, 3, 4), Order::Posterior);
    // From 0 steps to all, the products of the matrices.
    let identity: Vec<Vec<f64>> = (0..=k).map(|i| (0..=k).map(|j| f64::from(i == j)).collect()).collect();
    let mut cumulative = vec![identity];
    (1..=steps).for_each(|t| cumulative.push(product(&cumulative[t - 1], &transition(&process, t))));
    let near = |count: usize, of: usize, p: f64| {
        (count as f64 - of as f64 * p).abs() <= 5. * (of as f64 * p * (1. - p).max(0.)).sqrt() + 1e-6
    };
    for t in 1..=steps {
        let (before, after) = (&frames[steps - t], &frames[steps - t + 1]);
        for code in [0, 1, 2] {
            let posterior: Vec<f64> = (0..=k)
                .map(|j| transition(&process, t)[j][k] * cumulative[t - 1][code][j] / cumulative[t][code][k])
                .collect();
            assert!((posterior.iter().sum::<f64>() - 1.).abs() < 1e-12);
            let of_code = |i: &usize| map[i % 12] as usize == code;
            let masked: Vec<usize> = (0..before.len()).filter(of_code).filter(|&i| before[i] == 3).collect();
            assert!(near(masked.len(), IMAGES * 4, cumulative[t][code][k]), "t = {t}: {}", masked.len());
            for (j, &p) in posterior.iter().enumerate() {
                let count = masked.iter().filter(|&&i| after[i] as usize == j).count();
                assert!(near(count, masked.len(), p), "t = {t}, {code} to {j}: {count} of {}", masked.len());
            }
        }
    }
}

/// Every position is as likely to be among the first.
#[test]
fn positions_are_revealed_in_no_particular_order() {
    const IMAGES: usize = 6000;
    for order in ORDERS {
        let process = AbsorbingProcess::new(2, 12).unwrap();
        let (_, frames) = film(&process, &uniform(2, (3, 4)), (IMAGES, 3, 4), order);
        let mut first = [0f64; 12];
        for image in 0..IMAGES {
            let revealed = |frame: &Vec<u32>| -> Vec<usize> {
                (0..12).filter(|&i| frame[image * 12 + i] != 2).collect()
            };
            let positions = frames.iter().map(revealed).find(|positions| !positions.is_empty()).unwrap();
            positions.iter().for_each(|&i| first[i] += 1. / positions.len() as f64);
        }
        let expected = IMAGES as f64 / 12.;
        let chi_square: f64 = first.iter().map(|x| (x - expected).powi(2) / expected).sum();
        assert!(chi_square < 31.3, "{order:?}: {first:?}"); // 99.9 % of chi-square with 11 degrees of freedom
    }
}

/// The codes of a network that looks around: its logits depend on the map shown, in exact arithmetic.
fn neighbour(h_t: &Tensor, t: &Tensor, _: bool) -> Result<Tensor> {
    let (n, h, w) = h_t.dims3()?;
    let sum = h_t.to_dtype(DType::F32)?.sum_keepdim((1, 2))?.broadcast_as((n, h, w))?;
    let t = t.to_dtype(DType::F32)?.reshape((n, 1, 1))?.broadcast_as((n, h, w))?;
    Tensor::stack(&[(&sum * 0.25)?, (t * 0.5)?, sum.affine(-0.25, 4.)?], 1)
}

#[test]
fn image_i_is_the_same_in_any_batch_and_range() {
    let process = AbsorbingProcess::new(3, 9).unwrap();
    for order in ORDERS {
        let draw = |images: std::ops::Range<usize>, batch_size| {
            let config = SamplingConfig { temperature: 0.8.into(), batch_size, ..config(order) };
            let neighbour = from_fn(neighbour);
            let sampler = Sampler::new(&process, &neighbour, &config).unwrap();
            let codes = sampler.sample(images, (3, 2), Seed(2), &Device::Cpu, &mut |_, _| ());
            codes.unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap()
        };
        let whole = draw(0..23, 23);
        assert_eq!(draw(0..23, 1), whole);
        assert_eq!(draw(0..23, 7), whole);
        assert_eq!([draw(0..10, 4), draw(10..23, 64)].concat(), whole);
        assert_ne!(draw(23..46, 23), whole);
    }
}

/// An image with nothing to reveal costs nothing: `(48/49)^49`, 36 %, of them at `T_d = H' W' = 49`.
#[test]
fn only_images_with_something_to_reveal_are_denoised() {
    const IMAGES: usize = 100;
    let process = AbsorbingProcess::new(2, 49).unwrap();
    for (order, expected) in [(Order::Posterior, 1. - (48f64 / 49.).powi(49)), (Order::ExactK, 1.)] {
        let batches = Mutex::new(Vec::new());
        let denoiser = from_fn(|h_t, t, train| {
            let t: Vec<u32> = t.to_vec1()?;
            assert!(!train && t.iter().all(|&x| x == t[0]));
            batches.lock().unwrap().push(t.len());
            Tensor::zeros((h_t.dim(0)?, 2, 7, 7), DType::F32, &Device::Cpu)
        });
        film(&process, &denoiser, (IMAGES, 7, 7), order);
        let batches = batches.into_inner().unwrap();
        let asked = batches.iter().sum::<usize>() as f64 / (IMAGES * 49) as f64;
        assert!((asked - expected).abs() < 0.03, "{order:?}: {asked}");
        assert!(batches.iter().all(|&n| n > 0 && n <= 64) && batches.len() <= 2 * 49);
    }
}

#[test]
fn logits_may_have_any_float_type() {
    let process = AbsorbingProcess::new(2, 4).unwrap();
    for dtype in [DType::BF16, DType::F16, DType::F32, DType::F64] {
        let denoiser = from_fn(|h_t, _, _| Tensor::zeros((h_t.dim(0)?, 2, 2, 2), dtype, &Device::Cpu));
        film(&process, &denoiser, (3, 2, 2), Order::Posterior);
    }
}

#[test]
fn nonsense_is_rejected_by_name() {
    let process = AbsorbingProcess::new(3, 4).unwrap();
    let with = |denoiser: &dyn Denoiser, images, config: &SamplingConfig| {
        Sampler::new(&process, denoiser, config)?.sample(
            images,
            (2, 2),
            Seed(0),
            &Device::Cpu,
            &mut |_, _| (),
        )
    };
    let good = uniform(3, (2, 2));
    for temperature in [0., -1., f64::NAN, f64::INFINITY] {
        let config = SamplingConfig { temperature: temperature.into(), ..Default::default() };
        rejects(with(&good, 0..2, &config), &["sampling.temperature", &temperature.to_string()]);
    }
    rejects(with(&good, 0..2, &SamplingConfig { batch_size: 0, ..Default::default() }), &["batch_size"]);
    rejects(with(&good, 3..3, &SamplingConfig::default()), &["sampling.shape", "3..3"]);
    rejects(with(&uniform(4, (2, 2)), 0..2, &SamplingConfig::default()), &["denoiser", "[1, 4]", "[1, 3]"]);
    let steps = SamplingConfig { order: Order::ExactK, ..Default::default() };
    for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let denoiser = from_fn(|h_t, _, _| Tensor::full(bad, (h_t.dim(0)?, 3, 2, 2), &Device::Cpu));
        rejects(with(&denoiser, 7..9, &steps), &["logit of code 0", "of image 7, t = 4", name]);
    }
    // A NaN that nobody reads harms nobody: here, at the first position once it is revealed.
    let unread = from_fn(|h_t, _, _| {
        let masked = h_t.eq(3u32)?.unsqueeze(1)?.broadcast_as((h_t.dim(0)?, 3, 2, 2))?;
        let zeros = Tensor::zeros(masked.shape(), DType::F32, &Device::Cpu)?;
        masked.where_cond(&zeros, &(&zeros * f64::NAN)?)
    });
    assert!(with(&unread, 0..2, &steps).is_ok());
}
