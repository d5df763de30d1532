//! Classes: the network's vectors, guidance against the exact toy distribution, and what is refused.

use absorbing_diffusion::{
    AbsorbingProcess, Conditioned, Denoiser, NoisyCodes, Order, Sampler, SamplingConfig, Schedule, Sdid,
    SdidConfig, TokenInput, Weighting, draw_noise, loss,
};
use candle_core::{D, DType, Device, Result, Tensor};
use snn_core::{ParamStore, Seed};

use crate::sdid::{bits, inputs, narrow};
use crate::toy::{conditional, ideal_table, tokens};
use crate::{maps, rejects};

fn with_classes(classes: usize) -> SdidConfig {
    SdidConfig { classes: Some(classes), ..narrow(TokenInput::Embedding { dim: 6 }) }
}

/// A model whose layers fire.
fn settled(cfg: &SdidConfig) -> (ParamStore, Sdid) {
    let params = ParamStore::new(Seed(2), DType::F32, &Device::Cpu);
    let sdid = Sdid::new(cfg, params.builder()).unwrap();
    let (h_t, t) = inputs(cfg, 12);
    (0..60).for_each(|_| drop(sdid.forward_t(&h_t, &t, true).unwrap()));
    (params, sdid)
}

fn u32s(values: &[u32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn floats(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// The logits of images of these classes.
fn of_classes(sdid: &Sdid, h_t: &Tensor, t: &Tensor, classes: &[u32]) -> Result<Tensor> {
    let images: Vec<usize> = (0..classes.len()).collect();
    let classes = u32s(classes);
    sdid.logits(&NoisyCodes { classes: Some(&classes), ..NoisyCodes::new(h_t, t, &images) }, false)
}

#[test]
fn a_class_is_one_more_vector_of_the_sum() {
    let (cfg, plain) = (with_classes(3), narrow(TokenInput::Embedding { dim: 6 }));
    let ((params, sdid), (without, _)) = (settled(&cfg), settled(&plain));
    let names =
        |params: &ParamStore| -> Vec<String> { params.vars().into_iter().map(|(name, _)| name).collect() };
    let mut expected = names(&without);
    expected.extend(["class.share".to_owned(), "class.weight".to_owned()]);
    expected.sort();
    let mut found = names(&params);
    found.sort();
    assert_eq!(found, expected);
    // Nothing is written to a config file that knows no classes.
    assert!(!serde_json::to_string(&plain).unwrap().contains("classes"));
    assert!(serde_json::to_string(&cfg).unwrap().ends_with(r#""classes":3}"#));

    let (h_t, t) = inputs(&cfg, 4);
    let of = |class: u32| bits(&of_classes(&sdid, &h_t, &t, &[class; 4]).unwrap());
    // No class is the last vector, and what the network says by itself; the others differ.
    assert!(of(3) == bits(&sdid.forward_t(&h_t, &t, false).unwrap()));
    assert!(of(3) == bits(&sdid.logits(&NoisyCodes::new(&h_t, &t, &[9, 8, 7, 6]), false).unwrap()));
    assert!(of(0) != of(1) && of(1) != of(2) && of(2) != of(3));
    let error = of_classes(&sdid, &h_t, &t, &[0; 3]).unwrap_err().to_string();
    assert!(error.contains("classes are [3]"), "{error}");

    // With equal vectors the class says nothing.
    let table = params.vars().into_iter().find(|(name, _)| *name == "class.weight").unwrap().1;
    table.set(&table.narrow(0, 1, 1).unwrap().broadcast_as((4, 6)).unwrap().contiguous().unwrap()).unwrap();
    assert!(of(0) == of(2));
}

#[test]
fn classes_that_make_no_sense_are_refused() {
    rejects(with_classes(0).validate(), &["sdid.classes", "0"]);
    rejects(with_classes(1 << 25).validate(), &["sdid.classes", "2^24"]);
    rejects(
        SdidConfig { classes: Some(10), ..narrow(TokenInput::Raw) }.validate(),
        &["sdid.classes", "10", "embedding"],
    );
    let (_, sdid) = settled(&with_classes(3));
    rejects(Conditioned::new(&sdid, vec![]), &["classes", "[]"]);
    rejects(Conditioned::new(&sdid, vec![0, 4]), &["class", "4", "at most 3"]);
    let process = AbsorbingProcess::new(3, 6).unwrap();
    for bad in [-1., f64::NAN, f64::INFINITY] {
        let guided = Conditioned::new(&sdid, vec![3]).unwrap().guided(bad, &process);
        rejects(guided, &["guidance", &bad.to_string()]);
    }
    let line = Schedule::Linear { from: 0., to: -1. };
    rejects(Conditioned::new(&sdid, vec![1]).unwrap().guided(line, &process), &["guidance.to", "-1"]);
    let (_, plain) = settled(&narrow(TokenInput::Raw));
    rejects(Conditioned::new(&plain, vec![0]), &["without classes"]);
    rejects(Conditioned::drawn(&plain, &[1.]), &["without classes"]);
    rejects(plain.set_class_shares(&[1.]), &["without classes"]);
    for bad in [&[1., 1.][..], &[1., 1., -1.], &[0.; 3], &[1., f64::NAN, 1.]] {
        rejects(Conditioned::drawn(&sdid, bad), &["shares", "3 numbers"]);
        rejects(sdid.set_class_shares(bad), &["shares", "3 numbers"]);
    }
    assert_eq!(sdid.class_shares().unwrap(), [f64::from(1f32 / 3.); 3]);
}

/// A network that was told how often classes occur draws them, and is the same as one that is told each image's.
#[test]
fn a_network_draws_the_classes_of_images_by_their_shares() {
    let cfg = with_classes(3);
    let (params, sdid) = settled(&cfg);
    sdid.set_class_shares(&[3., 0., 1.]).unwrap();
    assert_eq!(sdid.class_shares().unwrap(), [0.75, 0., 0.25]);
    // A statistic: in checkpoints, and out of the optimiser's reach.
    assert!(!params.trainable().iter().any(|(name, _)| name == "class.share"));
    // Classes that nearly every image is told apart by.
    let table = params.vars().into_iter().find(|(name, _)| *name == "class.weight").unwrap().1;
    table.set(&(table.as_tensor() * 50.).unwrap()).unwrap();
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let config = SamplingConfig { batch_size: 7, temperature: 0.02.into(), ..Default::default() };
    let draw = |denoiser: &dyn Denoiser, images: std::ops::Range<usize>, seed| {
        let sampler = Sampler::new(&process, denoiser, &config).unwrap();
        let codes = sampler.sample(images, (2, 3), Seed(seed), &Device::Cpu, &mut |_, _| ()).unwrap();
        codes.flatten_from(1).unwrap().to_vec2::<u32>().unwrap()
    };
    let drawn = draw(&sdid, 0..40, 3);
    assert!(drawn[30..] == draw(&sdid, 30..40, 3), "an image depends on the range");
    assert!(drawn == draw(&Conditioned::drawn(&sdid, &[3., 0., 1.]).unwrap(), 0..40, 3));
    let told: Vec<_> =
        [0, 2].map(|class| draw(&Conditioned::new(&sdid, vec![class]).unwrap(), 0..40, 3)).into();
    let classes: Vec<usize> =
        (0..40).map(|i| told.iter().position(|told| told[i] == drawn[i]).unwrap()).collect();
    assert!((5..16).contains(&classes.iter().sum::<usize>()), "{classes:?}");

    // Tokens that are given say more of an image than chance: it has no class then.
    let given = Tensor::full(cfg.codes as u32, (4, 2, 3), &Device::Cpu).unwrap();
    let sampler = Sampler::new(&process, &sdid, &config).unwrap().with_given(&given);
    let codes = sampler.sample(0..4, (2, 3), Seed(3), &Device::Cpu, &mut |_, _| ()).unwrap();
    let codes = codes.flatten_from(1).unwrap().to_vec2::<u32>().unwrap();
    assert!(codes == draw(&Conditioned::new(&sdid, vec![3]).unwrap(), 0..4, 3));
}

/// Images of drawn classes follow the mixture of the classes' exact chains.
#[test]
fn images_of_drawn_classes_follow_the_mixture_exactly() {
    const N: usize = 20_000;
    let (ideal, process) = (Ideal::new(), AbsorbingProcess::new(3, 4).unwrap());
    let config = SamplingConfig { order: Order::ExactK, batch_size: 1000, ..Default::default() };
    let guidance = Schedule::from(1.);
    let denoiser = Conditioned::drawn(&ideal, &[2., 6.]).unwrap().guided(guidance, &process).unwrap();
    let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
    let codes = sampler.sample(0..N, (2, 2), Seed(6), &Device::Cpu, &mut |_, _| ()).unwrap();
    let mut counts = vec![0.; 256];
    for map in codes.flatten_all().unwrap().to_vec1::<u32>().unwrap().chunks(4) {
        counts[map.iter().fold(0, |row, &code| row * 4 + code as usize)] += 1.;
    }
    let [zero, one] = [0, 1].map(|class| chain(&ideal, class, guidance));
    for (row, count) in counts.into_iter().enumerate() {
        let p = 0.25 * zero[row] + 0.75 * one[row];
        let allowed = 4.5 * (N as f64 * p * (1. - p).max(0.)).sqrt() + 1e-6;
        assert!((count - N as f64 * p).abs() <= allowed, "{:?}: {count} {}", tokens(row), N as f64 * p);
    }
}

/// Classes are learned from the images that have them, and no others.
#[test]
fn gradients_reach_the_vectors_of_the_batch_alone() {
    let cfg = with_classes(4);
    let (params, sdid) = settled(&cfg);
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let h0 = maps((6, 2, 3), |i, j| ((i + j) % 3) as u32);
    let (t, u) = draw_noise(&process, (6, 2, 3), Seed(0), "loss").unwrap();
    // Guidance would ask for no class too; training is never guided.
    let denoiser = Conditioned::new(&sdid, vec![1, 2, 2]).unwrap().guided(2., &process).unwrap();
    let total = loss(&process, &denoiser, &h0, &t, &u, Weighting::Elbo, true).unwrap();
    let gradients = params.gradients(&total.backward().unwrap()).unwrap();
    let rows = floats(&gradients["class.weight"].abs().unwrap().sum(1).unwrap());
    assert!(rows[1] > 0. && rows[2] > 0., "{rows:?}");
    assert_eq!((rows[0], rows[3], rows[4]), (0., 0., 0.));
}

/// Guidance by its definition, in one evaluation of twice the maps, of all positions and of some.
#[test]
fn guidance_is_its_formula_at_all_positions_and_at_some() {
    let cfg = with_classes(3);
    let (_, sdid) = settled(&cfg);
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let (h_t, t) = inputs(&cfg, 5);
    let times: Vec<u32> = t.to_vec1().unwrap();
    let line = Schedule::Linear { from: 0.5, to: 3. };
    let guided = Conditioned::new(&sdid, vec![2, 0, 1]).unwrap().guided(line, &process).unwrap();
    let images = [4, 3, 8, 9, 2]; // classes 0, 2, 1, 2, 1
    let of = |classes: &[u32]| floats(&of_classes(&sdid, &h_t, &t, classes).unwrap());
    let (cond, uncond) = (of(&[0, 2, 1, 2, 1]), of(&[3; 5]));
    let noisy = NoisyCodes::new(&h_t, &t, &images);
    let found = guided.logits(&noisy, false).unwrap();
    let size = 3 * 6; // codes and positions
    for (i, x) in floats(&found).into_iter().enumerate() {
        // T_d = 6: the line begins at t = 6 and ends at t = 1.
        let g = 0.5 + 2.5 * (6. - times[i / size] as f32) / 5.;
        let expected = (1. + g) * cond[i] - g * uncond[i];
        assert!((x - expected).abs() < 1e-5 * (1. + expected.abs()), "{i}: {x} {expected}");
    }
    let positions = [vec![0, 5], vec![1], vec![0, 1, 2, 3, 4, 5], vec![], vec![3]];
    let positions: Vec<Vec<u32>> = positions.into_iter().collect();
    let some = guided.prepare().unwrap().logits_at(&noisy, &positions).unwrap();
    assert_eq!(some.dims(), [10, 3]);
    let rows = positions.iter().enumerate().flat_map(|(n, at)| at.iter().map(move |&p| (n, p as usize)));
    for ((n, p), row) in rows.zip(some.to_vec2::<f32>().unwrap()) {
        let all: Vec<f32> = found
            .get(n)
            .unwrap()
            .flatten_from(1)
            .unwrap()
            .narrow(1, p, 1)
            .unwrap()
            .squeeze(1)
            .unwrap()
            .to_vec1()
            .unwrap();
        assert!(row.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-4 * (1. + b.abs())), "{row:?} {all:?}");
    }
}

/// Guidance 0 asks for the class alone, once, and no guidance is the same, bit by bit.
#[test]
fn guidance_0_is_the_class_alone() {
    let cfg = with_classes(3);
    let (_, sdid) = settled(&cfg);
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let plain = Conditioned::new(&sdid, vec![2, 1]).unwrap();
    let (h_t, t) = inputs(&cfg, 4);
    let noisy = NoisyCodes::new(&h_t, &t, &[0, 1, 2, 3]);
    let expected = bits(&of_classes(&sdid, &h_t, &t, &[2, 1, 2, 1]).unwrap());
    assert!(bits(&plain.logits(&noisy, false).unwrap()) == expected);
    let zero = plain.guided(0., &process).unwrap();
    assert!(bits(&zero.logits(&noisy, false).unwrap()) == expected);
}

/// Two classes whose mean is the joint distribution of `toy`, each known exactly.
const CLASSES: [[f64; 4]; 2] = [[0.6, 0.2, 0.1, 0.1], [0.2, 0.4, 0.3, 0.1]];

/// Knows both classes, and no class: logits of `-inf` for what is impossible.
struct Ideal([Vec<f32>; 3]);

impl Ideal {
    fn new() -> Self {
        let of = |weights: [f64; 4]| {
            let logit = move |row, x: usize| conditional(weights, tokens(row), x % 4, x / 4).ln() as f32;
            (0..256).flat_map(|row| (0..12).map(move |x| logit(row, x))).collect::<Vec<f32>>()
        };
        let none = floats(&ideal_table().0);
        Self([of(CLASSES[0]), of(CLASSES[1]), none])
    }

    /// The guided distribution of a token, by its definition.
    fn guided(&self, class: usize, guidance: f64, row: usize, position: usize) -> [f64; 3] {
        let p = |class: usize, code: usize| f64::from(self.0[class][row * 12 + code * 4 + position]).exp();
        let weights = [0, 1, 2].map(|code| match p(class, code) {
            0. => 0.,
            cond => cond.powf(1. + guidance) / p(2, code).powf(guidance),
        });
        weights.map(|weight| weight / weights.iter().sum::<f64>())
    }
}

impl Denoiser for Ideal {
    fn classes(&self) -> usize {
        2
    }

    fn logits(&self, &NoisyCodes { h_t, classes, .. }: &NoisyCodes<'_>, _: bool) -> Result<Tensor> {
        let n = h_t.dim(0)?;
        let classes = classes.cloned().unwrap_or_else(|| u32s(&vec![2; n]));
        let rows = h_t.flatten_from(1)?.broadcast_mul(&u32s(&[64, 16, 4, 1]))?.sum(D::Minus1)?;
        let rows = rows.to_vec1::<u32>()?.into_iter().zip(classes.to_vec1::<u32>()?);
        let logits = rows.flat_map(|(row, class)| self.0[class as usize][row as usize * 12..][..12].to_vec());
        Tensor::from_vec(logits.collect::<Vec<f32>>(), (n, 3, 2, 2), &Device::Cpu)
    }
}

/// One token a step, in any order: every path followed.
fn chain(ideal: &Ideal, class: usize, guidance: Schedule) -> Vec<f64> {
    let mut now = vec![0.; 256];
    now[255] = 1.;
    for left in (1..=4).rev() {
        let mut next = vec![0.; 256];
        for (row, &p) in now.iter().enumerate().filter(|x| *x.1 > 0.) {
            let before = tokens(row);
            for position in (0..4).filter(|&i| before[i] == 3) {
                let q = ideal.guided(class, guidance.at(left, 4), row, position);
                for (code, q) in q.into_iter().enumerate() {
                    let mut after = before;
                    after[position] = code as u32;
                    next[after.iter().fold(0, |row, &code| row * 4 + code as usize)] += p * q / left as f64;
                }
            }
        }
        now = next;
    }
    now
}

/// Samples of classes follow the exact chain, and guidance moves them towards what sets the class apart, as predicted.
#[test]
fn guided_samples_follow_the_chain_exactly() {
    const N: usize = 20_000;
    let (ideal, process) = (Ideal::new(), AbsorbingProcess::new(3, 4).unwrap());
    let config = SamplingConfig { order: Order::ExactK, batch_size: 1000, ..Default::default() };
    let mut shares = Vec::new();
    for guidance in [0f64.into(), 1f64.into(), 4f64.into(), Schedule::Linear { from: 0., to: 4. }] {
        // Images in turn of class 0 and of class 1.
        let denoiser = Conditioned::new(&ideal, vec![0, 1]).unwrap().guided(guidance, &process).unwrap();
        let sampler = Sampler::new(&process, &denoiser, &config).unwrap();
        let codes = sampler.sample(0..N, (2, 2), Seed(5), &Device::Cpu, &mut |_, _| ()).unwrap();
        let codes: Vec<u32> = codes.flatten_all().unwrap().to_vec1().unwrap();
        let mut counts = [vec![0.; 256], vec![0.; 256]];
        for (image, map) in codes.chunks(4).enumerate() {
            counts[image % 2][map.iter().fold(0, |row, &code| row * 4 + code as usize)] += 1.;
        }
        for class in [0, 1] {
            let predicted = chain(&ideal, class, guidance);
            assert!((predicted.iter().sum::<f64>() - 1.).abs() < 1e-9);
            for (row, (p, count)) in predicted.iter().zip(&counts[class]).enumerate() {
                let (mean, half) = ((N / 2) as f64 * p, (N / 2) as f64);
                let allowed = 4.5 * (half * p * (1. - p).max(0.)).sqrt() + 1e-6;
                assert!(
                    (count - mean).abs() <= allowed,
                    "{guidance} {class} {:?}: {count} {mean}",
                    tokens(row)
                );
            }
            if class == 0 {
                shares.push(predicted[5]); // 0 0 1 1
            }
        }
    }
    // Without guidance the class's own share; with it, more; with late guidance, as without: the first token decides most here.
    assert!((shares[0] - 0.6).abs() < 1e-6 && shares[1] > 0.7 && shares[2] > 0.85, "{shares:?}");
    assert!(shares[3] > shares[0] && shares[3] < shares[2], "{shares:?}");
}
