//! Configs: what is rejected, how they are written, and what may cross threads.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use snn_core::{
    AdamWConfig, ConvConfig, LayerConfig, LifConfig, LrSchedule, Norm, Readout, Reset, Seed, Surrogate,
};

#[track_caller]
fn rejects(result: snn_core::Result<()>, field: &str, value: &str) {
    match result.expect_err(field) {
        snn_core::Error::Config { field: f, value: v, reason } => {
            assert_eq!((f.as_str(), v.as_str()), (field, value), "{reason}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn neurons_are_validated() {
    let good = LifConfig::default();
    let lif = |cfg: LifConfig, field: &str, value: &str| rejects(cfg.validate(), field, value);
    for cfg in [good, LifConfig::integrate_and_fire(), LifConfig { v_reset: Reset::Soft, ..good }] {
        cfg.validate().expect("good");
    }
    LifConfig { tau: Some(1.), ..good }.validate().expect("tau = 1 is the limit");
    for (tau, value) in [(0.5, "0.5"), (0., "0"), (-2., "-2"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        lif(LifConfig { tau: Some(tau), ..good }, "lif.tau", value);
    }
    for (v_threshold, value) in [(-0.1, "-0.1"), (0., "0"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        lif(LifConfig { v_threshold, ..good }, "lif.v_threshold", value);
        lif(LifConfig { v_threshold, v_reset: Reset::Soft, ..good }, "lif.v_threshold", value);
    }
    lif(LifConfig { v_reset: Reset::Hard(1.5), ..good }, "lif.v_threshold", "1");
    for (v, value) in [(f64::NAN, "NaN"), (f64::NEG_INFINITY, "-inf")] {
        lif(LifConfig { v_reset: Reset::Hard(v), ..good }, "lif.v_reset", value);
    }
}

#[test]
fn convolutions_are_validated() {
    ConvConfig::new(1, 1, 0).validate().expect("good");
    ConvConfig::new(3, 2, 1).with_output_padding(1).validate().expect("good");
    rejects(ConvConfig::new(0, 1, 0).validate(), "conv.kernel", "0");
    rejects(ConvConfig::new(3, 0, 0).validate(), "conv.stride", "0");
    rejects(ConvConfig::new(3, 2, 0).with_output_padding(2).validate(), "conv.output_padding", "2");
}

/// Every surrogate, once for each of its numbers that must be positive: the number is `x`, and the text names its field.
fn surrogates(x: f64) -> [(Surrogate, &'static str); 7] {
    [
        (Surrogate::Atan { alpha: x }, "surrogate.atan.alpha"),
        (Surrogate::Sigmoid { alpha: x }, "surrogate.sigmoid.alpha"),
        (Surrogate::Rectangle { width: x }, "surrogate.rectangle.width"),
        (Surrogate::Triangle { width: x }, "surrogate.triangle.width"),
        (Surrogate::Gaussian { sigma: x }, "surrogate.gaussian.sigma"),
        (Surrogate::Window { centre: 0., width: x, height: 1. }, "surrogate.window.width"),
        (Surrogate::Window { centre: 0., width: 1., height: x }, "surrogate.window.height"),
    ]
}

#[test]
fn surrogates_are_validated() {
    for (bad, value) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let window = Surrogate::Window { centre: bad, width: 1., height: 1. };
        rejects(window.validate(), "surrogate.window.centre", value);
    }
    for (bad, value) in [(0., "0"), (-1., "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        for (surrogate, field) in surrogates(bad) {
            rejects(surrogate.validate(), field, value);
            let lif = LifConfig { surrogate, ..LifConfig::default() };
            rejects(lif.validate(), &format!("lif.{field}"), value);
        }
    }
}

#[test]
fn layers_are_validated() {
    let good = LayerConfig::from(LifConfig::default());
    for (bad, value) in [(0., "0"), (-1., "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let norm = |alpha, v_threshold| Norm::ThresholdDependent { alpha, v_threshold };
        rejects(good.with_norm(norm(bad, 1.)).validate(), "norm.threshold_dependent.alpha", value);
        rejects(good.with_norm(norm(1., bad)).validate(), "norm.threshold_dependent.v_threshold", value);
    }
    round_trip(&good.with_norm(Norm::ThresholdDependent { alpha: 0.5, v_threshold: 1. }));
    let lif = LifConfig { tau: Some(0.5), ..LifConfig::default() };
    rejects(LayerConfig::from(lif).validate(), "neuron.tau", "0.5");
}

#[test]
fn readouts_are_validated() {
    for good in [
        Readout::Mean,
        Readout::Psp { tau: 1. },
        Readout::ExponentialSum { decay: 1. },
        Readout::ExponentialSum { decay: 0.8 },
    ] {
        good.validate("head").expect("good");
    }
    for (tau, value) in [(0.5, "0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        rejects(Readout::Psp { tau }.validate("head"), "head.psp.tau", value);
    }
    for (decay, value) in [(0., "0"), (1.1, "1.1"), (f64::NAN, "NaN")] {
        rejects(Readout::ExponentialSum { decay }.validate("head"), "head.exponential_sum.decay", value);
    }
}

#[test]
fn optimisers_are_validated() {
    let good = AdamWConfig::default();
    good.validate().expect("good");
    AdamWConfig { lr: 0., beta1: 0., weight_decay: 0., ..good }.validate().expect("limits");
    rejects(AdamWConfig { lr: -1., ..good }.validate(), "adamw.lr", "-1");
    rejects(AdamWConfig { lr: f64::NAN, ..good }.validate(), "adamw.lr", "NaN");
    rejects(AdamWConfig { eps: 0., ..good }.validate(), "adamw.eps", "0");
    rejects(AdamWConfig { eps: f64::INFINITY, ..good }.validate(), "adamw.eps", "inf");
    rejects(AdamWConfig { weight_decay: -0.1, ..good }.validate(), "adamw.weight_decay", "-0.1");
    rejects(AdamWConfig { beta1: 1., ..good }.validate(), "adamw.beta1", "1");
    rejects(AdamWConfig { beta2: f64::NAN, ..good }.validate(), "adamw.beta2", "NaN");
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("writes");
    assert_eq!(&serde_json::from_str::<T>(&text).expect("reads"), value, "{text}");
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn surrogate() -> impl Strategy<Value = Surrogate> {
    (0..=surrogates(1.).len(), number()).prop_map(|(i, x)| match surrogates(x).get(i) {
        Some((surrogate, _)) => *surrogate,
        None => Surrogate::Window { centre: x, width: 1., height: -x },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn configs_survive_json(
        tau in prop::option::of(number()),
        v in (number(), prop::option::of(number())),
        flags in (any::<bool>(), any::<bool>()),
        surrogate in surrogate(),
        xs in [number(), number(), number(), number(), number()],
        seed: u64,
    ) {
        round_trip(&LifConfig {
            tau,
            v_threshold: v.0,
            v_reset: v.1.map_or(Reset::Soft, Reset::Hard),
            decay_input: flags.0,
            detach_reset: flags.1,
            surrogate,
            strict_threshold: flags.0 != flags.1,
        });
        let [lr, beta1, beta2, eps, weight_decay] = xs;
        round_trip(&AdamWConfig { lr, beta1, beta2, eps, weight_decay });
        for readout in [Readout::Mean, Readout::Psp { tau: lr }, Readout::ExponentialSum { decay: lr }] {
            round_trip(&readout);
        }
        round_trip(&LrSchedule::Cosine { floor: lr });
        round_trip(&Seed(seed));
        round_trip(&ConvConfig::new(seed as usize, 2, 1).with_output_padding(1));
    }
}

/// Adds a key to every object in the text, one at a time.
fn rejects_unknown_keys<T: Serialize + DeserializeOwned>(value: &T) {
    let text = serde_json::to_string(value).expect("writes");
    for (at, _) in text.match_indices('{') {
        let longer = format!("{}\"taau\":2,{}", &text[..=at], &text[at + 1..]);
        assert!(serde_json::from_str::<T>(&longer).is_err(), "accepts {longer}");
    }
}

#[test]
fn unknown_keys_are_rejected() {
    let lif = serde_json::to_string(&LifConfig::default()).expect("writes");
    let error = serde_json::from_str::<LifConfig>(&lif.replacen('{', r#"{"taau":2,"#, 1)).unwrap_err();
    assert!(error.to_string().contains("taau"), "{error}");
    rejects_unknown_keys(&LifConfig::default());
    rejects_unknown_keys(&Surrogate::Triangle { width: 1. });
    rejects_unknown_keys(&Surrogate::Window { centre: 0., width: 1., height: 1. });
    rejects_unknown_keys(&LayerConfig::from(LifConfig::default()).with_norm(Norm::None));
    rejects_unknown_keys(&AdamWConfig::default());
    rejects_unknown_keys(&ConvConfig::new(3, 1, 1));
    rejects_unknown_keys(&Readout::Psp { tau: 2. });
    rejects_unknown_keys(&LrSchedule::Cosine { floor: 0. });
    assert!(serde_json::from_str::<Readout>(r#""median""#).is_err());
}

#[test]
fn missing_keys_are_rejected() {
    let error = serde_json::from_str::<AdamWConfig>(r#"{"lr": 0.1}"#).unwrap_err().to_string();
    assert!(error.contains("beta1"), "{error}");
    let without = |key: &str| {
        let mut value = serde_json::to_value(LifConfig::default()).expect("writes");
        value.as_object_mut().expect("an object").remove(key);
        serde_json::from_value::<LifConfig>(value)
    };
    assert!(without("v_threshold").is_err());
    // What came later is written only where it is set.
    let text = serde_json::to_string(&LifConfig::default()).expect("writes");
    assert!(!text.contains("strict"), "{text}");
    let layer = serde_json::to_string(&LayerConfig::default()).expect("writes");
    assert_eq!(layer, format!(r#"{{"neuron":{text}}}"#));
    // As serde has it, a missing `tau` reads as null: integrate-and-fire.
    assert_eq!(without("tau").expect("reads").tau, None);
}

#[test]
fn autotraits() {
    fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<snn_core::AdamW>();
    crosses_threads::<snn_core::AdamWConfig>();
    crosses_threads::<snn_core::BatchNormed>();
    crosses_threads::<snn_core::Checkpoint>();
    crosses_threads::<snn_core::ConvConfig>();
    crosses_threads::<snn_core::Error>();
    crosses_threads::<snn_core::FiringRates>();
    crosses_threads::<snn_core::LifConfig>();
    crosses_threads::<snn_core::LrSchedule>();
    crosses_threads::<snn_core::ParamStore>();
    crosses_threads::<snn_core::Readout>();
    crosses_threads::<snn_core::ReadoutLayer>();
    crosses_threads::<snn_core::Reset>();
    crosses_threads::<snn_core::Seed>();
    crosses_threads::<snn_core::SpikingLayer>();
    crosses_threads::<snn_core::Surrogate>();
}
