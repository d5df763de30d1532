//! Orders that look at what was drawn, steps of any number, given tokens, conditions; and orders that misbehave.

use absorbing_diffusion::{
    AbsorbingProcess, Denoiser, Draft, Drawn, NoisyCodes, Order, Result, RevealOrder, Sampler,
    SamplingConfig, Schedule, Settled, from_fn,
};
use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use snn_core::Seed;

use crate::{constant, maps, oracle, rejects, uniform};

pub(crate) const ORDERS: [Order; 7] = [
    Order::Posterior,
    Order::ExactK,
    Order::Confidence { noise: 0. },
    Order::Confidence { noise: 3. },
    Order::Remasking { cap: 0.3 },
    Order::Halton,
    Order::Gibbs { masked: 0.4, redrawn: 0.2 },
];

fn config(order: Order, steps: Option<usize>) -> SamplingConfig {
    SamplingConfig { order, steps, ..Default::default() }
}

fn codes(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Where tokens are given, the network is told the time at which as many are masked as are.
#[test]
fn given_tokens_count_as_revealed_in_the_times() {
    let process = AbsorbingProcess::new(5, 12).unwrap();
    let mut given = [5u32; 12];
    given[..6].fill(1);
    let given = Tensor::new(&given, &Device::Cpu).unwrap().reshape((1, 3, 4)).unwrap();
    for order in ORDERS {
        let times = std::sync::Mutex::new(Vec::new());
        let denoiser = from_fn(|h_t, t, _| {
            times.lock().unwrap().push(t.to_vec1::<u32>()?[0]);
            Tensor::zeros((h_t.dim(0)?, 5, 3, 4), DType::F32, &Device::Cpu)
        });
        let config = config(order, Some(6));
        let sampler = Sampler::new(&process, &denoiser, &config).unwrap().with_given(&given);
        sampler.sample(0..1, (3, 4), Seed(0), &Device::Cpu, &mut |_, _| ()).unwrap();
        let times = times.into_inner().unwrap();
        assert!(times.iter().all(|&t| (1..=6).contains(&t)), "{order:?}: {times:?}");
        let one_a_step = matches!(order, Order::ExactK | Order::Confidence { .. } | Order::Halton);
        assert!(!one_a_step || times == [6, 5, 4, 3, 2, 1], "{order:?}: {times:?}");
    }
}

#[test]
fn any_number_of_steps_ends_without_a_mask_and_tells_times_of_the_process() {
    let process = AbsorbingProcess::new(5, 12).unwrap();
    for order in ORDERS {
        for steps in [1, 3, 12, 40] {
            let times = std::sync::Mutex::new(Vec::new());
            let denoiser = from_fn(|h_t, t, _| {
                let masked = h_t.eq(5u32)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
                times.lock().unwrap().push((t.to_vec1::<u32>()?[0], masked));
                Tensor::zeros((h_t.dim(0)?, 5, 3, 4), DType::F32, &Device::Cpu)
            });
            let config = config(order, Some(steps));
            let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
            let mut left = steps;
            let mut observe = |_: &[u32], now: usize| {
                left -= 1;
                assert_eq!(now, left);
            };
            let drawn = sampler.sample(0..40, (3, 4), Seed(0), &Device::Cpu, &mut observe).unwrap();
            assert_eq!(left, 0);
            assert!(codes(&drawn).iter().all(|&code| code < 5), "{order:?}, {steps} steps");
            let times = times.into_inner().unwrap();
            assert_eq!(times[0], (12, 1.));
            assert!(times.windows(2).all(|pair| pair[0].0 >= pair[1].0));
            // The share of masked tokens is that of the time, but for what a step of few tokens rounds.
            let exact = !matches!(order, Order::Posterior | Order::Remasking { .. });
            let off = |&(t, masked): &(u32, f32)| (f64::from(t) / 12. - f64::from(masked)).abs() > 0.13;
            assert!(!exact || !times.iter().any(off), "{order:?}, {steps} steps: {times:?}");
        }
    }
}

/// The time that the network is told is rounded up, so that a masked map is never told time 0.
#[test]
fn steps_of_the_process_are_the_default() {
    let process = AbsorbingProcess::new(4, 9).unwrap();
    for order in ORDERS {
        let draw = |steps| {
            let (config, denoiser) = (config(order, steps), uniform(4, (3, 3)));
            let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
            codes(&sampler.sample(0..8, (3, 3), Seed(3), &Device::Cpu, &mut |_, _| ()).unwrap())
        };
        assert_eq!(draw(None), draw(Some(9)));
        assert_ne!(draw(None), draw(Some(5)));
    }
}

/// Position `i` prefers code 0 by a margin that grows with `i`: without noise, the last position comes first.
#[test]
fn confidence_reveals_the_most_certain_first() {
    let process = AbsorbingProcess::new(2, 6).unwrap();
    let logits: Vec<f32> = (0..12).map(|i| if i < 6 { 20. + i as f32 } else { 0. }).collect();
    let denoiser = constant(Tensor::from_vec(logits, (2, 2, 3), &Device::Cpu).unwrap());
    let order = |noise| {
        let config = config(Order::Confidence { noise }, None);
        let mut films = vec![Vec::new(); 50];
        let mut observe = |codes: &[u32], _: usize| {
            for (film, codes) in films.iter_mut().zip(codes.chunks(6)) {
                film.push(codes.iter().map(|&code| code != 2).collect::<Vec<bool>>());
            }
        };
        let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
        sampler.sample(0..50, (2, 3), Seed(0), &Device::Cpu, &mut observe).unwrap();
        films
    };
    for film in order(0.) {
        for (revealed, frame) in (1..).zip(&film) {
            assert_eq!(*frame, (0..6).map(|i| i + revealed >= 6).collect::<Vec<_>>());
        }
    }
    assert!(order(100.).windows(2).any(|pair| pair[0] != pair[1]), "noise makes images differ");
}

/// What the loop of Gibbs sampling would mask again is not, so that soon fewer are masked than it wants to draw.
#[test]
fn an_order_that_hands_on_proposals_alone_ends_without_a_mask() {
    struct ProposesAlone(Order);
    impl RevealOrder for ProposesAlone {
        fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
            self.0.propose(draft, rng)
        }
    }
    let (process, denoiser) = (AbsorbingProcess::new(5, 49).unwrap(), uniform(5, (7, 7)));
    let (config, order) = (config(Order::Posterior, Some(73)), Order::Gibbs { masked: 0.3, redrawn: 0.16 });
    let order: Box<dyn RevealOrder> = Box::new(ProposesAlone(order));
    let sampler = Sampler::new(&process, &denoiser, &config).unwrap().with_order(&order);
    let drawn = sampler.sample(0..4, (7, 7), Seed(0), &Device::Cpu, &mut |_, _| ()).unwrap();
    assert!(codes(&drawn).iter().all(|&code| code < 5));
}

#[test]
fn certain_positions_come_before_doubtful_ones() {
    let process = AbsorbingProcess::new(2, 6).unwrap();
    // The odd positions know their code, the even ones do not.
    let logits: Vec<f32> = (0..12).map(|i| if i < 6 && i % 2 == 1 { 60. } else { 0. }).collect();
    let denoiser = constant(Tensor::from_vec(logits, (2, 2, 3), &Device::Cpu).unwrap());
    let config = config(Order::Confidence { noise: 0. }, None);
    let mut half = Vec::new();
    let mut observe = |codes: &[u32], left: usize| {
        if left == 3 {
            half = codes.to_vec();
        }
    };
    let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
    sampler.sample(0..30, (2, 3), Seed(0), &Device::Cpu, &mut observe).unwrap();
    assert_eq!(half, [2, 0, 2, 0, 2, 0].repeat(30));
}

#[test]
fn given_tokens_stay_and_the_rest_is_drawn() {
    let process = AbsorbingProcess::new(5, 12).unwrap();
    let truth: Vec<u32> = (0..12).map(|i| i % 5).collect();
    let given = maps((7, 3, 4), |image, i| if i % 3 == image % 3 { 4 } else { 5 });
    for order in ORDERS {
        let (denoiser, config) = (oracle(5, &truth, (3, 4)), config(order, None));
        let sampler = Sampler::new(&process, &denoiser, &config).unwrap().with_given(&given);
        let mut observe = |now: &[u32], _: usize| {
            assert!(now.iter().zip(codes(&given)).all(|(now, given)| given == 5 || *now == given));
        };
        let drawn = codes(&sampler.sample(0..7, (3, 4), Seed(0), &Device::Cpu, &mut observe).unwrap());
        let expected = codes(&maps((7, 3, 4), |image, i| if i % 3 == image % 3 { 4 } else { truth[i] }));
        assert_eq!(drawn, expected, "{order:?}");
        rejects(
            sampler.sample(0..6, (3, 4), Seed(0), &Device::Cpu, &mut |_, _| ()),
            &["the given tokens", "[7, 3, 4]", "[6, 3, 4]"],
        );
        let outside = maps((7, 3, 4), |_, _| 6);
        rejects(
            sampler.with_given(&outside).sample(0..7, (3, 4), Seed(0), &Device::Cpu, &mut |_, _| ()),
            &["code [0, 0, 0] is 6", "0..6"],
        );
    }
    // All given: nothing is asked, nothing changes.
    let all = maps((2, 3, 4), |_, i| truth[i]);
    let never = from_fn(|_, _, _| candle_core::bail!("asked"));
    let config = config(Order::ExactK, None);
    let sampler = Sampler::new(&process, &never, &config).unwrap().with_given(&all);
    let same = sampler.sample(0..2, (3, 4), Seed(0), &Device::Cpu, &mut |_, _| ()).unwrap();
    assert_eq!(codes(&same), codes(&all));
}

/// Code `classes[i]` everywhere in image `i`.
struct Labelled(Vec<u32>);

impl Denoiser for Labelled {
    fn logits(
        &self,
        &NoisyCodes { h_t, images, .. }: &NoisyCodes<'_>,
        _: bool,
    ) -> candle_core::Result<Tensor> {
        let (n, h, w) = h_t.dims3()?;
        let mut logits = vec![0f32; n * 5 * h * w];
        for (n, &image) in images.iter().enumerate() {
            let first = (n * 5 + self.0[image] as usize) * h * w;
            logits[first..first + h * w].fill(90.);
        }
        Tensor::from_vec(logits, (n, 5, h, w), &Device::Cpu)
    }
}

#[test]
fn a_denoiser_knows_which_images_it_is_asked_about() {
    let process = AbsorbingProcess::new(5, 12).unwrap();
    let labels = Labelled(vec![0, 3, 1, 4, 2, 2, 0, 1]);
    for order in ORDERS {
        let config = SamplingConfig { batch_size: 2, ..config(order, None) };
        let sampler = Sampler::new(&process, &labels, &config).unwrap();
        let drawn = sampler.sample(2..7, (3, 4), Seed(0), &Device::Cpu, &mut |_, _| ()).unwrap();
        assert_eq!(codes(&drawn), codes(&maps((5, 3, 4), |i, _| labels.0[i + 2])), "{order:?}");
    }
}

#[test]
fn images_are_the_same_in_any_batch_whatever_the_order() {
    let process = AbsorbingProcess::new(5, 6).unwrap();
    for order in ORDERS {
        let draw = |images, batch_size| {
            let (config, denoiser) =
                (SamplingConfig { batch_size, ..config(order, Some(8)) }, uniform(5, (2, 3)));
            let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
            codes(&sampler.sample(images, (2, 3), Seed(9), &Device::Cpu, &mut |_, _| ()).unwrap())
        };
        assert_eq!([draw(0..3, 1), draw(3..11, 64)].concat(), draw(0..11, 4), "{order:?}");
    }
}

/// Does what it is told.
struct Scripted {
    propose: Vec<usize>,
    settled: Settled,
}

impl RevealOrder for Scripted {
    fn propose(&self, _: &Draft<'_>, _: &mut dyn RngCore) -> Vec<usize> {
        self.propose.clone()
    }
    fn settle(&self, _: &Draft<'_>, _: &[Drawn], _: &mut dyn RngCore) -> Settled {
        self.settled.clone()
    }
}

#[test]
fn an_order_that_misbehaves_is_named() {
    let process = AbsorbingProcess::new(5, 1).unwrap();
    let (denoiser, settings) = (uniform(5, (1, 3)), SamplingConfig::default());
    let given = maps((1, 1, 3), |_, i| if i == 0 { 2 } else { 5 });
    let with = |propose: &[usize], keep: &[usize], remask: &[usize]| -> Result<Tensor> {
        let settled = Settled { keep: keep.to_vec(), remask: remask.to_vec() };
        let order = Scripted { propose: propose.to_vec(), settled };
        let sampler = Sampler::new(&process, &denoiser, &settings)?.with_order(&order).with_given(&given);
        sampler.sample(4..5, (1, 3), Seed(0), &Device::Cpu, &mut |_, _| ())
    };
    assert!(with(&[1, 2], &[0, 1], &[]).is_ok());
    for bad in [&[0, 1][..], &[2, 1], &[1, 1], &[3]] {
        rejects(with(bad, &[], &[]), &["proposed", "image 4", &format!("{bad:?}")]);
    }
    rejects(with(&[1, 2], &[2], &[]), &["keeps in image 4", "is 2", "2 drawn codes"]);
    for bad in [0, 1, 3] {
        rejects(with(&[1, 2], &[0, 1], &[bad]), &["masks again in image 4", &format!("is {bad}")]);
    }
    rejects(with(&[1, 2], &[0], &[]), &["masks that the order left in image 4", "is 1"]);
    rejects(with(&[], &[], &[]), &["masks that the order left in image 4", "is 2"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let process = AbsorbingProcess::new(5, 1).unwrap();
    let denoiser = uniform(5, (1, 3));
    let refused =
        |config: SamplingConfig, parts: &[&str]| rejects(Sampler::new(&process, &denoiser, &config), parts);
    for noise in [-1., f64::NAN, f64::INFINITY] {
        refused(config(Order::Confidence { noise }, None), &["sampling.order.confidence.noise"]);
    }
    for cap in [-0.1, 1.1, f64::NAN] {
        refused(config(Order::Remasking { cap }, None), &["sampling.order.remasking.cap"]);
    }
    for share in [-0.1, 1.1, f64::NAN] {
        refused(config(Order::Gibbs { masked: share, redrawn: 0.1 }, None), &["sampling.order.gibbs.masked"]);
        refused(
            config(Order::Gibbs { masked: 0.1, redrawn: share }, None),
            &["sampling.order.gibbs.redrawn"],
        );
    }
    for top_p in [0., -0.5, 1.5, f64::NAN] {
        let config = SamplingConfig { top_p: Some(top_p), ..Default::default() };
        refused(config, &["sampling.top_p", &top_p.to_string(), "(0, 1]"]);
    }
    refused(SamplingConfig { top_k: Some(0), ..Default::default() }, &["sampling.top_k", "0"]);
    for (from, to, end) in [(0., 1., "from"), (1., f64::INFINITY, "to"), (1., -1., "to")] {
        let temperature = Schedule::Linear { from, to };
        let config = SamplingConfig { temperature, ..Default::default() };
        refused(config, &[&format!("sampling.temperature.{end}"), "positive and finite"]);
    }
    refused(config(Order::ExactK, Some(0)), &["sampling.steps", "0"]);
    refused(config(Order::ExactK, Some(1 << 40)), &["sampling.steps"]);
}
