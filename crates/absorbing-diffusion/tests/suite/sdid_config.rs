//! [`SdidConfig`]: what it builds, what it rejects, how it is written.

use std::collections::BTreeMap;

use absorbing_diffusion::{Error, HeadReads, Sdid, SdidConfig, TokenInput};
use candle_core::{DType, Device};
use proptest::prelude::*;
use snn_core::{LifConfig, Model, ParamStore, Reset, Seed, Surrogate};

fn good() -> SdidConfig {
    SdidConfig::released_code(128, (7, 7))
}

fn build(cfg: &SdidConfig) -> (ParamStore, Sdid) {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let sdid = Sdid::new(cfg, params.builder()).unwrap();
    (params, sdid)
}

#[test]
fn the_released_code_is_what_it_was() {
    let cfg = good();
    assert_eq!((cfg.steps, cfg.time_steps, cfg.lif), (49, 16, LifConfig::default()));
    let (params, sdid) = build(&cfg);
    assert_eq!(params.parameter_count(), 3_101_504);
    assert_eq!(sdid.config(), &cfg);
    assert_eq!(SdidConfig::released_code(128, (8, 8)).steps, 64);
}

/// PyTorch's defaults: `U(-b, b)`, `b = 1/sqrt(9 C_in)`, for the weight and bias of every convolution.
#[test]
fn parameters_start_as_pytorchs_do() {
    let (params, _) = build(&good());
    let vars: BTreeMap<_, _> = params.vars().into_iter().collect();
    let values = |name: &str| vars[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let convolutions =
        [("layers.0.conv", 2), ("layers.1.conv", 64), ("layers.2.conv", 128), ("layers.3.conv", 256)]
            .into_iter()
            .chain([("layers.4.conv", 512), ("head", 256 + 64)]);
    for (name, c_in) in convolutions {
        let bound = 1. / f64::from(9 * c_in).sqrt();
        for part in ["weight", "bias"] {
            let xs: Vec<f64> =
                values(&format!("{name}.{part}")).into_iter().map(|x| f64::from(x) / bound).collect();
            let n = xs.len() as f64;
            let largest = xs.iter().fold(0., |a: f64, x| a.max(x.abs()));
            // All within a bound rounded to f32; and the chance of staying 20/n below it is e^-20.
            assert!(largest <= 1. + 1e-6 && largest > 1. - 20. / n, "{name}.{part}: {largest} of the bound");
            let (mean, square) = (xs.iter().sum::<f64>() / n, xs.iter().map(|x| x * x).sum::<f64>() / n);
            assert!(mean.abs() < 5. * (1. / 3. / n).sqrt(), "{name}.{part}: mean {mean}");
            assert!((square - 1. / 3.).abs() < 5. * (4. / 45. / n).sqrt(), "{name}.{part}: {square}");
        }
    }
    for i in 0..5 {
        for (part, value) in [("weight", 1.), ("bias", 0.), ("running_mean", 0.), ("running_var", 1.)] {
            let xs = values(&format!("layers.{i}.bn.{part}"));
            assert!(xs.len() == good().channels[i] && xs.iter().all(|&x| x == value), "{i} {part}");
        }
    }
}

#[test]
fn embeddings_start_normal() {
    let (params, _) = build(&SdidConfig { token_input: TokenInput::Embedding { dim: 32 }, ..good() });
    let vars: BTreeMap<_, _> = params.vars().into_iter().collect();
    for (name, rows) in [("token", 129), ("position", 49), ("time", 50)] {
        let table = &vars[&format!("{name}.weight")];
        assert_eq!(table.dims(), [rows, 32]);
        let xs = table.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let n = xs.len() as f64;
        let (mean, square) = (xs.iter().sum::<f64>() / n, xs.iter().map(|x| x * x).sum::<f64>() / n);
        assert!(mean.abs() < 5. / n.sqrt() && (square - 1.).abs() < 5. * (2. / n).sqrt(), "{mean} {square}");
    }
    // The first convolution grows from 2 to 32 input channels.
    assert_eq!(params.parameter_count(), 3_101_504 + 30 * 64 * 9 + (129 + 49 + 50) * 32);
}

/// Rejected on its own and on building a model, with the field and its value in the message.
#[track_caller]
fn rejects(cfg: SdidConfig, field: &str, value: &str) {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let built = Sdid::new(&cfg, params.builder()).map(|_| ());
    for result in [cfg.validate(), built] {
        let error = result.unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{field}` = {value}: ")), "{message}");
        assert!(matches!(error, Error::Core(snn_core::Error::Config { .. })), "{message}");
    }
    assert!(params.vars().is_empty(), "parameters of a rejected model");
}

#[test]
fn one_code_is_rejected() {
    rejects(SdidConfig { codes: 1, ..good() }, "sdid.codes", "1");
}

#[test]
fn no_code_is_rejected() {
    rejects(SdidConfig { codes: 0, ..good() }, "sdid.codes", "0");
}

#[test]
fn no_row_is_rejected() {
    rejects(SdidConfig { height: 0, ..good() }, "sdid.height", "0");
}

#[test]
fn no_column_is_rejected() {
    rejects(SdidConfig { width: 0, ..good() }, "sdid.width", "0");
}

#[test]
fn no_diffusion_step_is_rejected() {
    rejects(SdidConfig { steps: 0, ..good() }, "sdid.steps", "0");
}

#[test]
fn a_read_out_without_a_middle_is_rejected() {
    for side in [0, 2, 4, 17, usize::MAX] {
        rejects(SdidConfig { head_kernel: side, ..good() }, "sdid.head_kernel", &side.to_string());
    }
    let (params, _) = build(&SdidConfig { head_kernel: 1, ..good() });
    assert_eq!(params.parameter_count(), 3_101_504 - 8 * (256 + 64) * 128);
}

/// Above 2^24 f32, as which they reach the network, does not count.
#[test]
fn more_codes_or_steps_than_f32_counts_are_rejected() {
    let (most, above) = (1 << 24, (1 << 24) + 1);
    rejects(SdidConfig { codes: above, ..good() }, "sdid.codes", "16777217");
    rejects(SdidConfig { steps: above, ..good() }, "sdid.steps", "16777217");
    rejects(SdidConfig { steps: usize::MAX, ..good() }, "sdid.steps", "18446744073709551615");
    SdidConfig { codes: most, steps: most, ..good() }.validate().unwrap();
}

#[test]
fn no_time_step_is_rejected() {
    rejects(SdidConfig { time_steps: 0, ..good() }, "sdid.time_steps", "0");
}

#[test]
fn no_channel_is_rejected() {
    for i in 0..5 {
        let mut cfg = good();
        cfg.channels[i] = 0;
        rejects(cfg, "sdid.channels", "0");
    }
}

#[test]
fn empty_embeddings_are_rejected() {
    let token_input = TokenInput::Embedding { dim: 0 };
    rejects(SdidConfig { token_input, ..good() }, "sdid.token_input.embedding.dim", "0");
}

#[test]
fn bad_time_constants_are_rejected() {
    for (tau, value) in [(0.5, "0.5"), (f64::NAN, "NaN")] {
        rejects(
            SdidConfig { lif: LifConfig { tau: Some(tau), ..good().lif }, ..good() },
            "sdid.lif.tau",
            value,
        );
    }
}

#[test]
fn bad_thresholds_are_rejected() {
    let lif = LifConfig { v_threshold: -1., ..good().lif };
    rejects(SdidConfig { lif, ..good() }, "sdid.lif.v_threshold", "-1");
}

#[test]
fn bad_surrogates_are_rejected() {
    let lif = LifConfig { surrogate: Surrogate::Atan { alpha: 0. }, ..good().lif };
    rejects(SdidConfig { lif, ..good() }, "sdid.lif.surrogate.atan.alpha", "0");
}

#[test]
fn the_least_of_everything_is_accepted() {
    let token_input = TokenInput::Embedding { dim: 1 };
    let least = SdidConfig { steps: 1, time_steps: 1, channels: vec![1; 5], token_input, ..good() };
    for cfg in [good(), SdidConfig { codes: 2, height: 1, width: 1, ..least }] {
        cfg.validate().unwrap();
        build(&cfg);
    }
}

#[test]
fn json_is_as_documented() {
    let cfg = SdidConfig { token_input: TokenInput::Embedding { dim: 6 }, ..good() };
    let text = serde_json::to_string(&cfg).unwrap();
    assert!(text.starts_with(r#"{"codes":128,"height":7,"width":7,"steps":49,"time_steps":16,"lif":{"#));
    assert!(text.ends_with(r#""channels":[64,128,256,512,256],"token_input":{"embedding":{"dim":6}}}"#));
    assert!(serde_json::to_string(&good()).unwrap().ends_with(r#""token_input":"raw"}"#));
}

#[test]
fn unknown_and_missing_keys_are_rejected() {
    let cfg = SdidConfig { token_input: TokenInput::Embedding { dim: 6 }, ..good() };
    let text = serde_json::to_string(&cfg).unwrap();
    // In every object of it, one at a time: the config, the neuron, the surrogate, the input, the embedding.
    for (at, _) in text.match_indices('{') {
        let longer = format!("{}\"chanels\":2,{}", &text[..=at], &text[at + 1..]);
        assert!(serde_json::from_str::<SdidConfig>(&longer).is_err(), "accepts {longer}");
    }
    let error = serde_json::from_str::<SdidConfig>(&text.replacen('{', r#"{"chanels":2,"#, 1)).unwrap_err();
    assert!(error.to_string().contains("chanels"), "{error}");
    for key in ["codes", "height", "width", "steps", "time_steps", "lif", "channels", "token_input"] {
        let mut value = serde_json::to_value(&cfg).unwrap();
        value.as_object_mut().unwrap().remove(key).unwrap();
        let error = serde_json::from_value::<SdidConfig>(value).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

/// As many layers as are wanted, but a first and a last.
#[test]
fn two_layers_are_the_least() {
    for (channels, value) in [(vec![], "[]"), (vec![8], "[8]")] {
        rejects(SdidConfig { channels, ..good() }, "sdid.channels", value);
    }
    for channels in [vec![3, 2], vec![4; 8]] {
        let (params, _) = build(&SdidConfig { channels: channels.clone(), ..good() });
        let read: usize = params.vars().iter().filter(|(name, _)| name.ends_with("bn.weight")).count();
        assert_eq!(read, channels.len());
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn configs_survive_json(
        sizes: [usize; 6],
        channels in prop::collection::vec(any::<usize>(), 0..7),
        (dim, classes) in any::<(Option<usize>, Option<usize>)>(),
        tau in prop::option::of(number()),
        (v_threshold, v_reset, alpha) in (number(), prop::option::of(number()), number()),
        (decay_input, detach_reset, without_spikes, all) in any::<(bool, bool, bool, bool)>(),
    ) {
        let [codes, height, width, steps, time_steps, head_kernel] = sizes;
        let v_reset = v_reset.map_or(Reset::Soft, Reset::Hard);
        let surrogate = Surrogate::Sigmoid { alpha };
        let lif = LifConfig { tau, v_threshold, v_reset, decay_input, detach_reset, surrogate, ..LifConfig::default() };
        let token_input = dim.map_or(TokenInput::Raw, |dim| TokenInput::Embedding { dim });
        let head_reads = if all { HeadReads::All } else { HeadReads::LastAndFirst };
        let cfg = SdidConfig {
            codes, height, width, steps, time_steps, lif, channels, head_kernel, head_reads, token_input, classes, without_spikes,
        };
        let text = serde_json::to_string(&cfg).unwrap();
        prop_assert_eq!(serde_json::from_str::<SdidConfig>(&text).unwrap(), cfg, "{}", text);
    }
}
