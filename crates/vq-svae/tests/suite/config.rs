//! What is rejected, and how a config is written.

use candle_core::DType;
use proptest::prelude::*;
use snn_core::{LifConfig, Readout, Reset, Surrogate};
use vq_svae::{
    Activation, DenseTerm, ImageSpec, Reconstruction, Reduction, Revival, StraightThrough, VqSvaeConfig,
    WithoutSpikes,
};

use crate::{rejects, tiny};

/// Makes one change to the paper's config and asserts that it is refused, by field, value and reason.
#[track_caller]
fn refuses(change: impl FnOnce(&mut VqSvaeConfig), field: &str, value: &str, reason: &str) {
    let mut cfg = VqSvaeConfig::paper(ImageSpec::MNIST);
    change(&mut cfg);
    rejects(cfg.validate(), &[&format!("`{field}` = {value}:"), reason]);
}

/// Values that are no finite number of at least 0.
const NO_WEIGHTS: [(f64, &str); 3] = [(-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")];

#[test]
fn published_configs_are_accepted() {
    for image in [ImageSpec::MNIST, ImageSpec::CIFAR, ImageSpec { channels: 3, height: 4, width: 12 }] {
        VqSvaeConfig::paper(image).validate().unwrap();
        VqSvaeConfig::released_code(image).validate().unwrap();
    }
}

#[test]
fn models_refuse_what_validation_refuses() {
    let params = snn_core::ParamStore::new(snn_core::Seed(0), DType::F32, &candle_core::Device::Cpu);
    let cfg = VqSvaeConfig { codes: 1, ..tiny(VqSvaeConfig::paper) };
    rejects(vq_svae::VqSvae::new(&cfg, params.builder()), &["`vqsvae.codes` = 1:"]);
    assert_eq!(params.parameter_count(), 0, "parameters of a config that was refused");
}

#[test]
fn image_channels() {
    for (channels, value) in [(0, "0"), (2, "2"), (4, "4")] {
        refuses(|cfg| cfg.image.channels = channels, "vqsvae.image.channels", value, "must be 1 or 3");
    }
}

#[test]
fn image_height() {
    for (height, value) in [(0, "0"), (2, "2"), (29, "29"), (30, "30")] {
        refuses(|cfg| cfg.image.height = height, "vqsvae.image.height", value, "multiple of 4");
    }
}

#[test]
fn image_width() {
    for (width, value) in [(0, "0"), (3, "3"), (31, "31")] {
        refuses(|cfg| cfg.image.width = width, "vqsvae.image.width", value, "multiple of 4");
    }
}

#[test]
fn time_steps() {
    refuses(|cfg| cfg.time_steps = 0, "vqsvae.time_steps", "0", "at least 1");
}

#[test]
fn codes() {
    for (codes, value) in [(0, "0"), (1, "1")] {
        refuses(|cfg| cfg.codes = codes, "vqsvae.codes", value, "at least 2");
    }
}

#[test]
fn code_channels() {
    refuses(|cfg| cfg.code_channels = 0, "vqsvae.code_channels", "0", "at least 1");
}

#[test]
fn encoder_channels() {
    for channels in [[0, 64], [32, 0]] {
        refuses(|cfg| cfg.encoder_channels = channels, "vqsvae.encoder_channels", "0", "at least 1");
    }
}

#[test]
fn decoder_channels() {
    for channels in [[0, 32], [64, 0]] {
        refuses(|cfg| cfg.decoder_channels = channels, "vqsvae.decoder_channels", "0", "at least 1");
    }
}

#[test]
fn beta() {
    for (beta, value) in NO_WEIGHTS {
        refuses(|cfg| cfg.beta = beta, "vqsvae.beta", value, "finite and not negative");
    }
}

#[test]
fn codebook_std() {
    for (std, value) in NO_WEIGHTS {
        refuses(|cfg| cfg.codebook_std = std, "vqsvae.codebook_std", value, "finite and not negative");
    }
}

#[test]
fn commitment() {
    for (commitment, value) in NO_WEIGHTS {
        let dense = DenseTerm::Balanced { commitment };
        refuses(|cfg| cfg.dense = dense, "vqsvae.dense.commitment", value, "finite and not negative");
    }
}

#[test]
fn variance() {
    for (variance, value) in [(0., "0"), (-1., "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let over = Reconstruction::OverVariance { variance };
        refuses(|cfg| cfg.reconstruction = over, "vqsvae.reconstruction.variance", value, "positive");
    }
    // Equal bytes may leave the rounding of their mean.
    for (variance, value) in [(0., "0"), (1e-34, "0.0000000000000000000000000000000001")] {
        let over = Reconstruction::OverVariance { variance };
        for part in ["training pixels are equal", "set vqsvae.reconstruction to plain"] {
            refuses(|cfg| cfg.reconstruction = over, "vqsvae.reconstruction.variance", value, part);
        }
    }
}

/// Squares of these overflow f32, and with them the loss or its gradient at the first step.
#[test]
fn magnitudes() {
    let (size, value, at_most) = (1.5e6, "1500000", "at most 1e6");
    refuses(|cfg| cfg.beta = size, "vqsvae.beta", value, at_most);
    refuses(|cfg| cfg.codebook_std = size, "vqsvae.codebook_std", value, at_most);
    refuses(|cfg| cfg.initial_k = -size, "vqsvae.initial_k", "-1500000", at_most);
    let over = Reconstruction::OverVariance { variance: size };
    refuses(|cfg| cfg.reconstruction = over, "vqsvae.reconstruction.variance", value, at_most);
    refuses(|cfg| cfg.codes = 1 << 32, "vqsvae.codes", "4294967296", "less than 2^32");
}

#[test]
fn initial_k() {
    for (k, value) in [(f64::NAN, "NaN"), (f64::NEG_INFINITY, "-inf")] {
        refuses(|cfg| cfg.initial_k = k, "vqsvae.initial_k", value, "must be finite");
    }
}

/// Time constants that are no finite number of at least 1.
const NO_TAUS: [(f64, &str); 4] = [(0.5, "0.5"), (-2., "-2"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")];

#[test]
fn tau_syn() {
    for (tau, value) in NO_TAUS {
        refuses(|cfg| cfg.tau_syn = tau, "vqsvae.tau_syn", value, "at least 1 time step");
    }
}

#[test]
fn features() {
    for (tau, value) in NO_TAUS {
        let features = Readout::Psp { tau };
        refuses(|cfg| cfg.features = features, "vqsvae.features.psp.tau", value, "at least 1 time step");
    }
}

#[test]
fn readout() {
    for (decay, value) in [(0., "0"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let readout = Readout::ExponentialSum { decay };
        refuses(|cfg| cfg.readout = readout, "vqsvae.readout.exponential_sum.decay", value, "(0, 1]");
    }
}

#[test]
fn lif() {
    for (tau, value) in NO_TAUS {
        refuses(|cfg| cfg.lif.tau = Some(tau), "vqsvae.lif.tau", value, "at least 1 time step");
    }
    refuses(|cfg| cfg.lif.v_threshold = 0., "vqsvae.lif.v_threshold", "0", "above the reset potential");
    refuses(
        |cfg| cfg.lif.v_reset = Reset::Hard(1.),
        "vqsvae.lif.v_threshold",
        "1",
        "above the reset potential",
    );
    let surrogate = Surrogate::Atan { alpha: 0. };
    refuses(|cfg| cfg.lif.surrogate = surrogate, "vqsvae.lif.surrogate.atan.alpha", "0", "positive");
}

/// Adds a key to every object in the text, one at a time.
#[test]
fn unknown_keys_are_rejected_everywhere() {
    let text = serde_json::to_string(&VqSvaeConfig::released_code(ImageSpec::MNIST)).unwrap();
    // The config, the image, the neuron with its reset and its surrogate, and four enums of two objects each.
    let objects: Vec<_> = text.match_indices('{').map(|(at, _)| at).collect();
    assert_eq!(objects.len(), 14, "{text}");
    for at in objects {
        let longer = format!("{}\"betaa\":2,{}", &text[..=at], &text[at + 1..]);
        let result = serde_json::from_str::<VqSvaeConfig>(&longer);
        assert!(result.is_err(), "accepts {longer}");
    }
    let longer = text.replacen('{', r#"{"betaa":2,"#, 1);
    rejects(serde_json::from_str::<VqSvaeConfig>(&longer), &["unknown field `betaa`", "`beta`"]);
}

#[test]
fn missing_keys_are_rejected() {
    let mut value = serde_json::to_value(VqSvaeConfig::paper(ImageSpec::MNIST)).unwrap();
    value.as_object_mut().unwrap().remove("beta");
    rejects(serde_json::from_value::<VqSvaeConfig>(value), &["missing field `beta`"]);
}

#[test]
fn json_says_what_it_means() {
    let json = |cfg: VqSvaeConfig| serde_json::to_value(cfg).unwrap();
    let paper = json(VqSvaeConfig::paper(ImageSpec::MNIST));
    assert_eq!(paper["straight_through"], "spikes");
    assert_eq!(paper["reduction"], "mean");
    assert_eq!(paper["reconstruction"], "plain");
    assert_eq!(paper["dense"], "unbalanced");
    let released = json(VqSvaeConfig::released_code(ImageSpec::MNIST));
    assert_eq!(released["straight_through"], "embedding");
    assert_eq!(released["reconstruction"]["over_variance"]["variance"], 0.0949);
    assert_eq!(released["dense"]["balanced"]["commitment"], 0.25);
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn any_readout() -> impl Strategy<Value = Readout> {
    prop_oneof![
        Just(Readout::Mean),
        number().prop_map(|tau| Readout::Psp { tau }),
        number().prop_map(|decay| Readout::ExponentialSum { decay }),
    ]
}

fn choices() -> impl Strategy<Value = (StraightThrough, Reduction, Reconstruction, DenseTerm)> {
    (
        prop_oneof![Just(StraightThrough::Spikes), Just(StraightThrough::Embedding)],
        prop_oneof![Just(Reduction::Mean), Just(Reduction::Sum)],
        prop_oneof![
            Just(Reconstruction::Plain),
            number().prop_map(|variance| Reconstruction::OverVariance { variance }),
        ],
        prop_oneof![
            Just(DenseTerm::Unbalanced),
            number().prop_map(|commitment| DenseTerm::Balanced { commitment }),
        ],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn configs_survive_json(
        sizes in any::<[usize; 10]>(),
        numbers in [number(), number(), number(), number(), number(), number()],
        readouts in (any_readout(), any_readout()),
        (straight_through, reduction, reconstruction, dense) in choices(),
        output in prop_oneof![Just(Activation::Tanh), Just(Activation::ClampedTanh), Just(Activation::Linear)],
        hidden in 0..4usize,
        without_spikes in prop_oneof![Just(None), Just(Some(WithoutSpikes::Twin)), Just(Some(WithoutSpikes::VqVae))],
        revival in prop_oneof![Just(None), (any::<usize>(), number()).prop_map(|(every, until)| Some(Revival { every, until }))],
    ) {
        let [channels, height, width, time_steps, e0, e1, code_channels, codes, d0, d1] = sizes;
        let [v_threshold, codebook_std, initial_k, tau_syn, beta, margin] = numbers;
        let cfg = VqSvaeConfig {
            image: ImageSpec { channels, height, width },
            time_steps,
            lif: LifConfig { v_threshold, ..LifConfig::default() },
            encoder_channels: [e0, e1],
            encoder_hidden: vec![e0; hidden],
            code_channels,
            codes,
            decoder_hidden: vec![d0; hidden / 2],
            decoder_channels: [d0, d1],
            codebook_std,
            features: readouts.0,
            initial_k,
            tau_syn,
            readout: readouts.1,
            output,
            margin,
            straight_through,
            reduction,
            reconstruction,
            dense,
            beta,
            revival,
            without_spikes,
        };
        let text = serde_json::to_string(&cfg).unwrap();
        prop_assert_eq!(serde_json::from_str::<VqSvaeConfig>(&text).unwrap(), cfg);
    }
}

#[test]
fn the_two_published_models_differ_where_the_reference_says() {
    let paper = VqSvaeConfig::paper(ImageSpec::MNIST);
    let released = VqSvaeConfig::released_code(ImageSpec::MNIST);
    assert_eq!(paper.features, Readout::Psp { tau: 2. });
    assert_eq!(released.features, Readout::ExponentialSum { decay: 0.8 });
    assert_eq!((paper.codebook_std, released.codebook_std), (0.1, 1.));
    let common = VqSvaeConfig {
        codebook_std: paper.codebook_std,
        features: paper.features,
        straight_through: paper.straight_through,
        reconstruction: paper.reconstruction,
        dense: paper.dense,
        ..released
    };
    assert_eq!(common, paper);
}

#[test]
fn a_config_from_before_there_was_a_choice_of_output_has_tanh() {
    let cfg = VqSvaeConfig::paper(ImageSpec::MNIST);
    let mut tree = serde_json::to_value(&cfg).unwrap();
    assert_eq!(tree.as_object_mut().unwrap().remove("output").unwrap(), "tanh");
    assert_eq!(serde_json::from_value::<VqSvaeConfig>(tree).unwrap(), cfg);
}

#[test]
fn a_clamped_output_wants_a_mean_squared_error() {
    let sum =
        |cfg: &mut VqSvaeConfig| (cfg.output, cfg.reduction) = (Activation::ClampedTanh, Reduction::Sum);
    refuses(sum, "vqsvae.output", "clamped_tanh", "mean only");
}

#[test]
fn a_margin_wants_a_clamp_and_room() {
    refuses(|cfg: &mut VqSvaeConfig| cfg.margin = 0.1, "vqsvae.margin", "0.1", "clamped_tanh");
    for margin in [-0.1, 0.5, f64::NAN] {
        let clamped = |cfg: &mut VqSvaeConfig| (cfg.output, cfg.margin) = (Activation::ClampedTanh, margin);
        refuses(clamped, "vqsvae.margin", &margin.to_string(), "must lie in [0, 0.4]");
    }
}

#[test]
fn revivals_that_make_no_sense_are_refused_by_field() {
    let with = |every, until| {
        let revival = Some(Revival { every, until });
        VqSvaeConfig { revival, ..VqSvaeConfig::paper(ImageSpec::MNIST) }.validate()
    };
    assert!(with(1, 1.).is_ok());
    for (every, until, parts) in [
        (0, 0.5, ["vqsvae.revival.every", "0"]),
        (9, 1.5, ["vqsvae.revival.until", "1.5"]),
        (9, f64::NAN, ["vqsvae.revival.until", "NaN"]),
    ] {
        rejects(with(every, until), &parts);
    }
}

#[test]
fn networks_without_spikes_have_one_time_step_and_no_spikes_to_jump_over() {
    let cfg = VqSvaeConfig::paper(ImageSpec::MNIST);
    cfg.clone().twin().validate().unwrap();
    let vq_vae = VqSvaeConfig::vq_vae(ImageSpec::MNIST);
    vq_vae.validate().unwrap();
    let wrong = VqSvaeConfig { time_steps: 2, ..cfg.twin() };
    rejects(wrong.validate(), &["vqsvae.time_steps", "2", "1 without spikes"]);
    let wrong = VqSvaeConfig { straight_through: StraightThrough::Spikes, ..vq_vae };
    rejects(wrong.validate(), &["vqsvae.straight_through", "spikes", "embedding"]);
}
