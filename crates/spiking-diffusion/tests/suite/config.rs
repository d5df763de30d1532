//! Experiment configs: round trips, unknown keys, every rejected value.

use proptest::prelude::*;
use spiking_diffusion::vq_svae::ImageSpec;
use spiking_diffusion::{ExperimentConfig, Preset};

use crate::{few_digits, rejects};

const PRESETS: [Preset; 5] = [Preset::Quick, Preset::Cpu, Preset::Best, Preset::Paper, Preset::ReleasedCode];

#[test]
fn presets_are_valid_for_grey_and_colour() {
    for preset in PRESETS {
        for image in [ImageSpec::MNIST, ImageSpec::CIFAR] {
            let cfg = ExperimentConfig::new(preset, image);
            cfg.validate().unwrap();
            assert_eq!(cfg.preset, preset);
            let json = serde_json::to_string(&cfg).unwrap();
            assert_eq!(serde_json::from_str::<ExperimentConfig>(&json).unwrap(), cfg);
        }
    }
}

#[test]
fn the_variance_is_that_of_the_training_pixels() {
    let data = few_digits();
    let cfg = ExperimentConfig::for_data(Preset::ReleasedCode, &data).unwrap();
    let variance =
        serde_json::to_value(cfg.vqsvae.reconstruction).unwrap()["over_variance"]["variance"].as_f64();
    assert_eq!(variance.unwrap(), data.train.pixel_variance().unwrap());
    assert_eq!((cfg.data.train_images, cfg.data.test_images, cfg.data.synthetic), (160, 24, true));
}

#[test]
fn a_preset_has_no_more_clusters_than_the_images_are_enough_for() {
    let data = few_digits();
    for preset in [Preset::Quick, Preset::Cpu, Preset::Best] {
        assert_eq!(ExperimentConfig::new(preset, ImageSpec::MNIST).sdid.classes, Some(600));
        assert_eq!(ExperimentConfig::for_data(preset, &data).unwrap().sdid.classes, Some(1));
    }
    assert_eq!(ExperimentConfig::for_data(Preset::Paper, &data).unwrap().sdid.classes, None);
}

#[test]
fn settings_reach_every_depth_and_misses_are_named() {
    let cfg = ExperimentConfig::new(Preset::Paper, ImageSpec::MNIST);
    let set = |key: &str, value: &str| cfg.with(key, value);
    assert_eq!(set("sdid.channels.2", "7").unwrap().sdid.channels, [64, 128, 7, 512, 256]);
    assert_eq!(set("vqsvae.lif.surrogate.atan.alpha", "3").unwrap().vqsvae.lif.surrogate.derivative(0.), 1.5);
    assert_eq!(set("weighting", "released").unwrap().weighting.factor(49, 49), 0.);
    assert_eq!(set("vqsvae_training.clip", "0.5").unwrap().vqsvae_training.clip, Some(0.5));
    // Left out where they have their defaults.
    assert_eq!(set("sampling.steps", "7").unwrap().sampling.steps, Some(7));
    assert!(set("vqsvae.revival", r#"{"every": 9, "until": 0.5}"#).unwrap().vqsvae.revival.is_some());
    for (key, value) in [("vqsvae.colour", "1"), ("sdid.channels.5", "1"), ("", "1"), ("samples.x", "1")] {
        rejects(set(key, value), &[key, "no such field"]);
    }
    for key in ["data.name", "preset", "seed"] {
        rejects(set(key, "1"), &[key, "--seed, --preset"]);
    }
    rejects(
        set("evaluation.distance_images", "1").unwrap().validate(),
        &["evaluation.distance_images", "at least 2"],
    );
    for (key, value) in
        [("samples", "-1"), ("weighting", "heavy"), ("sdid.time_steps", "4.5"), ("vqsvae", "{}")]
    {
        rejects(set(key, value), &[key, value]);
    }
}

#[test]
fn unknown_keys_are_rejected_at_every_depth() {
    let cfg = serde_json::to_value(ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST)).unwrap();
    for pointer in
        ["", "/vqsvae", "/vqsvae/lif", "/vqsvae/image", "/sdid", "/sampling", "/evaluation", "/data"]
    {
        let mut changed = cfg.clone();
        changed.pointer_mut(pointer).unwrap()["colour"] = 1.into();
        let message = serde_json::from_value::<ExperimentConfig>(changed).unwrap_err().to_string();
        assert!(message.contains("colour"), "{pointer}: {message}");
    }
}

#[test]
fn rejected_values_are_named() {
    let cfg = ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST);
    let cases = [
        ("vqsvae.time_steps", "0"),
        ("vqsvae.codes", "1"),
        ("vqsvae.image.height", "30"),
        ("vqsvae.image.channels", "2"),
        ("sdid.time_steps", "0"),
        ("sdid.codes", "64"),
        ("sdid.height", "8"),
        ("sdid.width", "6"),
        ("sampling.temperature", "0"),
        ("sampling.top_k", "0"),
        ("sampling.top_p", "1.5"),
        ("sampling.batch_size", "0"),
        ("vqsvae_training.epochs", "0"),
        ("vqsvae_training.batch_size", "1"),
        ("sdid_training.checkpoint_every", "0"),
        ("sdid_training.clip", "-1"),
        ("sdid_training.adamw.beta1", "1"),
        ("sdid_training.schedule.cosine.floor", "-5"),
        ("samples", "0"),
        ("evaluation.bound_images", "1"),
        ("evaluation.batch_size", "0"),
        ("evaluation.bound.strata", "0"),
    ];
    for (key, value) in cases {
        let field = key.rsplit('.').next().unwrap();
        rejects(cfg.with(key, value).unwrap().validate(), &[field, value]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    #[test]
    fn any_config_survives_json(
        preset in 0usize..4,
        seed in any::<u64>(),
        lr in 1e-9f64..1e3,
        temperature in 1e-6f64..1e6,
        channels in proptest::collection::vec(1usize..9999, 2..9),
        clip in proptest::option::of(1e-9f64..1e9),
    ) {
        let mut cfg = ExperimentConfig::new(PRESETS[preset], ImageSpec::CIFAR);
        cfg.seed.0 = seed;
        cfg.vqsvae_training.adamw.lr = lr;
        cfg.sampling.temperature = temperature.into();
        cfg.sdid.channels = channels;
        cfg.sdid_training.clip = clip;
        let json = serde_json::to_string_pretty(&cfg).unwrap();
        prop_assert_eq!(serde_json::from_str::<ExperimentConfig>(&json).unwrap(), cfg);
    }
}
