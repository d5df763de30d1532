//! The spiking denoiser as a whole: invariances, gradients, training. (Its numbers are in `golden`.)

use absorbing_diffusion::{
    AbsorbingProcess, Denoiser, ElboConfig, HeadReads, NoisyCodes, Sampler, SamplingConfig, Sdid, SdidConfig,
    TokenInput, Weighting, bits_per_token, draw_noise, loss,
};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use snn_core::{AdamW, AdamWConfig, DescribeLayers, FiringRates, LrSchedule, Model, ParamStore, Seed};

use crate::{maps, rejects};

pub(crate) const INPUTS: [TokenInput; 2] = [TokenInput::Raw, TokenInput::Embedding { dim: 6 }];

/// Narrow, over 2x3 maps of 3 codes.
pub(crate) fn narrow(token_input: TokenInput) -> SdidConfig {
    SdidConfig {
        time_steps: 4,
        channels: vec![6, 5, 4, 3, 7],
        token_input,
        ..SdidConfig::released_code(3, (2, 3))
    }
}

/// Maps with masks in them, and times: `[n, H', W']`, `[n]`.
pub(crate) fn inputs(cfg: &SdidConfig, n: usize) -> (Tensor, Tensor) {
    let tokens = cfg.codes as u32 + 1;
    let h_t = maps((n, cfg.height, cfg.width), |i, j| (7 * i + 5 * j + i * j) as u32 % tokens);
    let t = (0..n).map(|i| 1 + (i * 5 % cfg.steps) as u32).collect();
    (h_t, Tensor::from_vec(t, n, &Device::Cpu).unwrap())
}

/// A model whose running statistics have moved from where they started to where every layer fires.
pub(crate) fn settled(cfg: &SdidConfig) -> (ParamStore, Sdid) {
    let params = ParamStore::new(Seed(2), DType::F32, &Device::Cpu);
    let sdid = Sdid::new(cfg, params.builder()).unwrap();
    let (h_t, t) = inputs(cfg, 12);
    (0..100).for_each(|_| drop(sdid.forward_t(&h_t, &t, true).unwrap()));
    let mut rates = FiringRates::default();
    sdid.logits_observed(&NoisyCodes::new(&h_t, &t, &[]), false, &mut |layer, spikes| {
        rates.record(layer, spikes)
    })
    .unwrap();
    let rates = rates.rates();
    assert!(rates.len() == 5 && rates.values().all(|rate| (0.01..0.9).contains(rate)), "{rates:?}");
    (params, sdid)
}

pub(crate) fn bits(xs: &Tensor) -> Vec<u32> {
    xs.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn all_bits(params: &ParamStore) -> Vec<u32> {
    params.vars().iter().flat_map(|(_, var)| bits(var)).collect()
}

#[test]
fn a_denoiser_describes_the_layers_that_are_seen() {
    let cfg = narrow(TokenInput::Embedding { dim: 6 });
    let sdid = Sdid::new(&cfg, ParamStore::new(Seed(2), DType::F32, &Device::Cpu).builder()).unwrap();
    let ((h_t, t), mut seen) = (inputs(&cfg, 2), Vec::new());
    let mut look = |name: &str, _: &Tensor| {
        seen.push(name.to_owned());
        Ok(())
    };
    sdid.logits_observed(&NoisyCodes::new(&h_t, &t, &[]), false, &mut look).unwrap();
    let layers = sdid.describe_layers().unwrap();
    let names: Vec<_> = layers.iter().map(|layer| layer.name.clone()).collect();
    assert_eq!(names, [seen, vec!["head".to_owned()]].concat());
    let reads: Vec<_> = layers.iter().map(|layer| layer.reads.join(" ")).collect();
    assert_eq!(reads, ["", "layers.0", "layers.1", "layers.2", "layers.3", "layers.4 layers.0"]);
    let targets: Vec<_> = layers.iter().map(|layer| layer.connections.target()[0]).collect();
    assert_eq!(targets, [&cfg.channels[..], &[cfg.codes]].concat());
}

/// In evaluation, the logits of an image are its own, bit by bit, and nothing is changed by asking for them.
#[test]
fn logits_do_not_depend_on_the_batch() {
    for token_input in INPUTS {
        // With 7x7 positions, several images share a block of the convolution, and 13 take several blocks.
        let cfg = SdidConfig { height: 7, width: 7, steps: 49, ..narrow(token_input) };
        let (params, sdid) = settled(&cfg);
        let before = all_bits(&params);
        let (h_t, t) = inputs(&cfg, 13);
        let whole = bits(&sdid.forward_t(&h_t, &t, false).unwrap());
        for size in [1, 2, 5] {
            let mut parts = Vec::new();
            for first in (0..13).step_by(size) {
                let n = size.min(13 - first);
                let part = |xs: &Tensor| xs.narrow(0, first, n).unwrap();
                parts.extend(bits(&sdid.forward_t(&part(&h_t), &part(&t), false).unwrap()));
            }
            assert!(parts == whole, "{token_input:?}: {size} at once");
        }
        assert!(all_bits(&params) == before);
    }
}

/// Every image looks at its tokens and at its time.
#[test]
fn logits_depend_on_the_tokens_and_the_time() {
    for token_input in INPUTS {
        let (_, sdid) = settled(&narrow(token_input));
        let logits = |token: u32, t: u32| {
            let h_t = maps((1, 2, 3), |_, j| if j == 0 { token } else { 1 });
            bits(&sdid.forward_t(&h_t, &Tensor::new(&[t], &Device::Cpu).unwrap(), false).unwrap())
        };
        assert_ne!(logits(0, 3), logits(3, 3), "{token_input:?}");
        assert_ne!(logits(0, 1), logits(0, 6), "{token_input:?}");
    }
}

/// Two training steps: the losses, all parameters and statistics after them, and the logits of evaluation.
fn two_steps(token_input: TokenInput) -> Vec<u32> {
    let cfg = SdidConfig { height: 7, width: 7, steps: 49, ..narrow(token_input) };
    let (params, sdid) = settled(&cfg);
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let mut optimizer = AdamW::new(params.trainable(), AdamWConfig::default()).unwrap();
    let h0 = maps((16, 7, 7), |i, j| ((i + j) % 3) as u32);
    let mut out = Vec::new();
    for step in 0..2 {
        let (t, u) = draw_noise(&process, (16, 7, 7), Seed(0), &format!("loss/{step}")).unwrap();
        let total = loss(&process, &sdid, &h0, &t, &u, Weighting::Elbo, true).unwrap();
        let grads = params.gradients(&total.backward().unwrap()).unwrap();
        optimizer.step(&grads, 1.).unwrap();
        out.extend(bits(&total));
    }
    let (h_t, t) = inputs(&cfg, 13);
    out.extend(all_bits(&params));
    out.extend(bits(&sdid.forward_t(&h_t, &t, false).unwrap()));
    out
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for token_input in INPUTS {
        let with = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| two_steps(token_input))
        };
        assert!(with(1) == with(2), "{token_input:?}");
    }
}

/// The CIFAR-10 shape, 8x8 codes in 64 steps, and maps that are not square: the loss, its gradient, and samples.
#[test]
fn other_map_sizes_work() {
    for (h, w) in [(8, 8), (2, 5)] {
        for token_input in INPUTS {
            let released = SdidConfig::released_code(128, (h, w));
            let cfg = SdidConfig { time_steps: 2, channels: vec![8; 5], token_input, ..released };
            let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
            let sdid = Sdid::new(&cfg, params.builder()).unwrap();
            let process = AbsorbingProcess::new(128, h * w).unwrap();
            let h0 = maps((3, h, w), |i, j| ((40 * i + j) % 128) as u32);
            let (t, u) = draw_noise(&process, (3, h, w), Seed(0), "loss/0").unwrap();
            let total = loss(&process, &sdid, &h0, &t, &u, Weighting::Uniform, true).unwrap();
            assert!(total.to_scalar::<f32>().unwrap().is_finite());
            for (name, grad) in params.gradients(&total.backward().unwrap()).unwrap() {
                let norm = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let zero = name.ends_with("conv.bias");
                assert!(norm.is_finite() && (norm == 0.) == zero, "{h}x{w}, {token_input:?}: {name} {norm}");
            }
            let config = SamplingConfig::default();
            let sampler = Sampler::new(&process, &sdid, &config).unwrap();
            let codes = sampler.sample(0..3, (h, w), Seed(1), &Device::Cpu, &mut |_, _| ()).unwrap();
            assert_eq!(codes.dims(), [3, h, w]);
            assert!(codes.flatten_all().unwrap().to_vec1::<u32>().unwrap().iter().all(|&code| code < 128));
        }
    }
}

#[test]
fn maps_of_another_size_are_rejected() {
    let process = AbsorbingProcess::new(3, 6).unwrap();
    for token_input in INPUTS {
        let (_, sdid) = settled(&narrow(token_input));
        for (h, w) in [(3, 2), (2, 4), (1, 3), (7, 7)] {
            let h0 = maps((2, h, w), |_, _| 0);
            let (t, u) = draw_noise(&process, (2, h, w), Seed(0), "loss/0").unwrap();
            let result = loss(&process, &sdid, &h0, &t, &u, Weighting::Elbo, true);
            rejects(result, &[&format!("sdid: codes are [N, {h}, {w}], the model wants [N, 2, 3]")]);
        }
    }
}

#[test]
fn a_process_of_other_codes_or_steps_is_refused() {
    let (_, sdid) = settled(&narrow(TokenInput::Raw));
    let boxed: Box<dyn Denoiser> = Box::new(sdid);
    let (h0, config) = (maps((2, 2, 3), |_, _| 0), SamplingConfig::default());
    for (process, field) in [((4, 6), "`process.codes` = 4"), ((3, 9), "`process.steps` = 9")] {
        let process = AbsorbingProcess::new(process.0, process.1).unwrap();
        let (t, u) = draw_noise(&process, (2, 2, 3), Seed(0), "loss/0").unwrap();
        rejects(Sampler::new(&process, &boxed, &config), &[field, "the network was built for"]);
        rejects(loss(&process, &boxed, &h0, &t, &u, Weighting::Elbo, false), &[field]);
        rejects(bits_per_token(&process, &boxed, &h0, &ElboConfig::default(), Seed(0)), &[field]);
    }
}

#[test]
fn a_time_for_each_image_or_an_error() {
    for token_input in INPUTS {
        let (_, sdid) = settled(&narrow(token_input));
        for (n, times) in [(2, 1), (1, 2), (3, 2)] {
            let (h_t, _) = inputs(sdid.config(), n);
            let (_, t) = inputs(sdid.config(), times);
            let result = sdid.forward_t(&h_t, &t, false).map_err(Into::into);
            rejects(result, &[&format!("sdid: diffusion times are [{times}], the codes want [{n}]")]);
        }
    }
}

const HEADS: [(usize, HeadReads); 3] =
    [(3, HeadReads::LastAndFirst), (1, HeadReads::LastAndFirst), (1, HeadReads::All)];

/// The head lies behind the last threshold, so the loss is a smooth function of it.
#[test]
fn gradients_of_the_head_are_those_of_finite_differences() {
    for (token_input, (head_kernel, head_reads)) in
        INPUTS.into_iter().flat_map(|input| HEADS.map(|head| (input, head)))
    {
        let cfg = SdidConfig { head_kernel, head_reads, ..narrow(token_input) };
        let params = ParamStore::new(Seed(0), DType::F64, &Device::Cpu);
        let sdid = Sdid::new(&cfg, params.builder()).unwrap();
        let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
        let h0 = maps((4, 2, 3), |i, j| ((i * 5 + j * 2) % 3) as u32);
        let (t, u) = draw_noise(&process, (4, 2, 3), Seed(0), "loss/0").unwrap();
        let value = || loss(&process, &sdid, &h0, &t, &u, Weighting::Elbo, true).unwrap();
        let grads = params.gradients(&value().backward().unwrap()).unwrap();
        let head: Vec<_> =
            params.trainable().into_iter().filter(|(name, _)| name.starts_with("head.")).collect();
        assert_eq!(head.len(), 2);
        for (name, var) in head {
            let grad: Vec<f64> = grads[&name].flatten_all().unwrap().to_vec1().unwrap();
            let at: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
            let moved = |i: usize, by: f64| {
                let mut values = at.clone();
                values[i] += by;
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
                value().to_scalar::<f64>().unwrap()
            };
            for (i, grad) in grad.iter().enumerate() {
                let slope = (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5;
                assert!((grad - slope).abs() < 1e-8, "{token_input:?} {name}[{i}]: {grad} {slope}");
            }
            assert!(
                grad.iter().filter(|grad| grad.abs() > 1e-3).count() > grad.len() / 2,
                "{name}: {grad:?}"
            );
            moved(0, 0.);
        }
    }
}

/// `n` of four 3x3 maps, the diagonals `i + j + shift mod 4`, all as likely: at each position on its own, the four
/// codes are equally likely, so whoever needs less than 2 bits per token has learned to look at the other tokens.
fn diagonals(n: usize, label: &str) -> Tensor {
    let mut rng = Seed(0).rng(label);
    let shifts: Vec<u32> = (0..n).map(|_| rng.random_range(0..4)).collect();
    maps((n, 3, 3), |i, j| ((j / 3 + j % 3) as u32 + shifts[i]) % 4)
}

#[test]
fn training_lowers_the_bound() {
    const STEPS: usize = 150;
    let process = AbsorbingProcess::new(4, 9).unwrap();
    // Of all sets of masked tokens, only the whole map leaves anything unknown, and it is 2 bits for each of them.
    let ideal = 2. * (1..=9).map(|t| f64::from(t).powi(8) / 9f64.powi(9)).sum::<f64>();
    let config = ElboConfig::default();
    for token_input in INPUTS {
        let cfg = SdidConfig {
            time_steps: 4,
            channels: vec![16; 5],
            token_input,
            ..SdidConfig::released_code(4, (3, 3))
        };
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let sdid = Sdid::new(&cfg, params.builder()).unwrap();
        let adamw = AdamWConfig { lr: 1e-2, ..Default::default() };
        let mut optimizer = AdamW::new(params.trainable(), adamw).unwrap();
        let schedule = LrSchedule::Cosine { floor: 0. };
        for step in 0..STEPS {
            let h0 = diagonals(32, &format!("data/{step}"));
            let (t, u) = draw_noise(&process, (32, 3, 3), Seed(0), &format!("loss/{step}")).unwrap();
            let total = loss(&process, &sdid, &h0, &t, &u, Weighting::Uniform, true).unwrap();
            let grads = params.gradients(&total.backward().unwrap()).unwrap();
            optimizer.step(&grads, schedule.factor(step, STEPS)).unwrap();
        }
        let bits = bits_per_token(&process, &sdid, &diagonals(256, "test"), &config, Seed(1)).unwrap();
        let slack = 4. * bits.standard_error;
        assert!(bits.mean < 1. && bits.mean > ideal - slack, "{token_input:?}: {bits:?}, ideal {ideal}");
    }
}

/// Asked for some positions, a prepared model gives what the model itself gives there; an image's bits are its own.
#[test]
fn prepared_logits_are_the_models_own() {
    for (token_input, (head_kernel, head_reads)) in INPUTS.into_iter().zip(HEADS) {
        let cfg =
            SdidConfig { height: 7, width: 7, steps: 49, head_kernel, head_reads, ..narrow(token_input) };
        let (_, sdid) = settled(&cfg);
        let (h_t, t) = inputs(&cfg, 5);
        let positions = [vec![0], vec![], vec![24, 3, 48], (0..49).collect(), vec![48]];
        let prepared = sdid.prepare().unwrap();
        let got = prepared.logits_at(&NoisyCodes::new(&h_t, &t, &[]), &positions).unwrap();
        assert_eq!(got.dims(), [1 + 3 + 49 + 1, cfg.codes]);
        let all = sdid.forward_t(&h_t, &t, false).unwrap().flatten_from(2).unwrap();
        let places =
            positions.iter().enumerate().flat_map(|(n, at)| at.iter().map(move |&p| (n, p as usize)));
        for (row, (n, p)) in got.to_vec2::<f32>().unwrap().into_iter().zip(places) {
            let wanted: Vec<f32> = all.get(n).unwrap().get_on_dim(1, p).unwrap().to_vec1().unwrap();
            let close = row.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "map {n}, position {p}: {row:?} and {wanted:?}");
        }
        let (h_t, t) = (h_t.narrow(0, 2, 1).unwrap(), t.narrow(0, 2, 1).unwrap());
        let alone = prepared.logits_at(&NoisyCodes::new(&h_t, &t, &[]), &positions[2..3]).unwrap();
        assert_eq!(bits(&alone), bits(&got.narrow(0, 1, 3).unwrap()));
        assert!(
            prepared.logits_at(&NoisyCodes::new(&h_t, &t, &[]), &[vec![49]]).is_err(),
            "a position outside the map"
        );
    }
}
