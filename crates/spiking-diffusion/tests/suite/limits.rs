//! What a later stage would reject is refused before anything is trained: every field, with values of every bad kind.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::{Error, Experiment, ExperimentConfig, Features, Preset, Result, Silent};

use crate::rejects;

/// Ten images of 4 x 4 pixels, six to train on.
fn dots() -> Dataset {
    let split = |n: u8| {
        let pixels = (0..u16::from(n) * 16).map(|i| (i * 37 % 256) as u8).collect();
        Split::new(pixels, (0..n).map(|i| i % 2).collect(), (1, 4, 4)).unwrap()
    };
    Dataset::new("dots", split(6), split(4)).unwrap()
}

/// The smallest run of a preset: one step of each training, or two.
fn smallest(preset: Preset, data: &Dataset) -> ExperimentConfig {
    let mut cfg = ExperimentConfig::for_data(preset, data).unwrap();
    (cfg.vqsvae.time_steps, cfg.vqsvae.codes, cfg.vqsvae.code_channels) = (2, 4, 2);
    (cfg.vqsvae.encoder_channels, cfg.vqsvae.decoder_channels) = ([2; 2], [2; 2]);
    (cfg.sdid.time_steps, cfg.sdid.codes, cfg.sdid.steps, cfg.sdid.channels) = (2, 4, 2, vec![2; 5]);
    for training in [&mut cfg.vqsvae_training, &mut cfg.sdid_training] {
        (training.epochs, training.batch_size) = (2, 3);
    }
    (cfg.samples, cfg.evaluation.bound_images, cfg.evaluation.distance_images) = (2, 2, 0);
    cfg
}

/// The paths of everything in a tree that has no fields of its own.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    if children.is_empty() {
        found.insert(path.to_owned());
    }
    children.iter().for_each(|(name, value)| leaves(value, &format!("{path}/{name}"), found));
}

/// Nothing, too little, too much, of another type.
fn bad_values(good: &Value) -> Vec<Value> {
    let reals = [0., -1., 1e12, -1e12, 1e300, -1e300, f64::MAX, 1e-12, 1e-300, 5e-324];
    let counts = [0, 1, 1 << 32, u64::MAX];
    let others = [json!(null), json!(true), json!("NaN"), json!(-1), json!(0.5), json!(1e300), json!([])];
    if good.is_f64() { json!(reals) } else { json!(counts) }
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .chain(others)
        .collect()
}

fn run(cfg: &ExperimentConfig, data: &Dataset) -> (Result<()>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let result = Experiment::new(cfg, data).out(&out).run(&mut Silent).map(|_| ());
    (result, out.exists())
}

/// Whether a config is refused before its run has a folder; otherwise its run must end well. (A training may go off at any
/// learning rate, and then says so.)
fn refused(cfg: &ExperimentConfig, data: &Dataset) -> std::result::Result<bool, String> {
    match run(cfg, data) {
        (Err(_), false) => Ok(true),
        (Ok(()), true) => Ok(false),
        (Err(Error::Training(snn_train::Error::NotFinite { .. })), true) if lr(cfg) > 1. => Ok(false),
        (result, _) => Err(format!("{result:?} after the run had begun")),
    }
}

fn lr(cfg: &ExperimentConfig) -> f64 {
    cfg.vqsvae_training.adamw.lr.max(cfg.sdid_training.adamw.lr)
}

/// Puts every bad value into every field of these configs whose path `chosen` picks.
fn walk(chosen: impl Fn(&str) -> bool) {
    let data = dots();
    let (mut seen, mut counts, mut failures) = (BTreeSet::new(), [0, 0], Vec::new());
    for preset in [Preset::Quick, Preset::Paper] {
        let base = smallest(preset, &data);
        assert_eq!(refused(&base, &data), Ok(false));
        let (tree, mut paths) = (serde_json::to_value(&base).unwrap(), BTreeSet::new());
        leaves(&tree, "", &mut paths);
        for path in paths.iter().filter(|path| chosen(path) && seen.insert(path.to_string())) {
            let good = tree.pointer(path).unwrap();
            for value in bad_values(good) {
                let mut changed = tree.clone();
                *changed.pointer_mut(path).unwrap() = value.clone();
                let Ok(cfg) = serde_json::from_value::<ExperimentConfig>(changed) else { continue };
                match refused(&cfg, &data) {
                    Ok(refused) => counts[usize::from(refused)] += 1,
                    Err(e) => failures.push(format!("{path} = {value}: {e}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
}

#[test]
fn every_bad_value_of_the_autoencoder_is_refused_at_once_or_runs() {
    walk(|path| path.starts_with("/vqsvae"));
}

#[test]
fn every_bad_value_of_the_rest_is_refused_at_once_or_runs() {
    walk(|path| !path.starts_with("/vqsvae"));
}

/// Sets both of what must agree, too.
#[test]
fn what_is_beyond_all_size_is_refused_by_field_and_value() {
    let cfg = smallest(Preset::Quick, &dots());
    let refuse = |settings: &[(&str, &str)], parts: &[&str]| {
        let cfg = settings.iter().fold(cfg.clone(), |cfg, (key, value)| cfg.with(key, value).unwrap());
        let (result, began) = run(&cfg, &dots());
        assert!(!began, "{settings:?}");
        rejects(result, parts);
    };
    refuse(&[("sdid.steps", "1000000000000")], &["`sdid.steps` = 1000000000000:", "2^24"]);
    refuse(&[("sdid.steps", "16777217")], &["`sdid.steps` = 16777217:"]);
    let codes = |n| [("sdid.codes", n), ("vqsvae.codes", n)];
    refuse(&codes("16777217"), &["`sdid.codes` = 16777217:"]);
    refuse(&codes("99999999999"), &["`vqsvae.codes` = 99999999999:"]);
    refuse(&[("vqsvae.time_steps", "999999999")], &["`vqsvae.time_steps` = 999999999:", "2^32"]);
    refuse(&[("sdid.time_steps", "999999999")], &["`sdid.time_steps` = 999999999:", "2^32"]);
    refuse(&[("sdid.channels.1", "999999999")], &["`sdid.channels` = 999999999:", "weights"]);
    refuse(&[("samples", "500000000")], &["`samples` = 500000000:", "2^32"]);
    refuse(&[("samples", "10000000")], &["`samples` = 10000000:", "samples.png", "`generate`"]);
    refuse(&[("evaluation.distance_images", "999999999")], &["`evaluation.distance_images` = 999999999:"]);
    refuse(&[("evaluation.bound.strata", "65537")], &["evaluation.bound.strata", "65537", "65536"]);
    refuse(&[("sdid_training.epochs", "2147483648")], &["`sdid_training.epochs` = 2147483648:", "2^31 - 1"]);
    refuse(&[("vqsvae_training.adamw.lr", "1e300")], &["`vqsvae_training.adamw.lr` = 1e300:", "f32"]);
    refuse(&[("vqsvae_training.adamw.weight_decay", "501")], &["weight_decay", "501", "1 / lr = 500"]);
    refuse(&[("sdid.lif.surrogate.atan.alpha", "1e-300")], &["`sdid.lif.surrogate.atan.alpha` = 1e-300:"]);
}

/// The fewest images that there is a distance of.
#[test]
fn two_images_have_a_distance() {
    let split = |n: u8| {
        let pixels = (0..u16::from(n) * 256).map(|i| (i * 37 % 256) as u8).collect();
        Split::new(pixels, (0..n).map(|i| i % 2).collect(), (1, 16, 16)).unwrap()
    };
    let data = Dataset::new("spots", split(6), split(2)).unwrap();
    let cfg = smallest(Preset::Quick, &data).with("evaluation.distance_images", "2").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let experiment = Experiment::new(&cfg, &data).out(folder.path()).features(Features::Classifier);
    let report = experiment.run(&mut Silent).unwrap();
    assert!(report.metrics.distance.unwrap().fid.is_finite());
}

#[test]
fn images_of_another_shape_than_the_config_are_refused() {
    let cfg = smallest(Preset::Quick, &dots());
    let cfg = [("vqsvae.image.height", "8"), ("sdid.height", "2")]
        .iter()
        .fold(cfg, |cfg, (key, value)| cfg.with(key, value).unwrap());
    cfg.validate().unwrap();
    let (result, began) = run(&cfg, &dots());
    assert!(!began);
    rejects(result, &["`vqsvae.image` = (1, 8, 4):", "(1, 4, 4)"]);
}

/// No spread to divide the error by; without that division they are images as any others.
#[test]
fn images_all_alike_are_refused_with_what_to_set() {
    for byte in [0, 77] {
        let split = |n: usize| Split::new(vec![byte; n * 16], vec![0; n], (1, 4, 4)).unwrap();
        let data = Dataset::new("alike", split(32), split(2)).unwrap();
        let cfg = smallest(Preset::Quick, &data);
        let (result, began) = run(&cfg, &data);
        assert!(!began);
        let parts = ["`vqsvae.reconstruction.variance` = ", "all training pixels are equal"];
        rejects(result, &[&parts[..], &["set vqsvae.reconstruction to plain"]].concat());
        let plain = cfg.with("vqsvae.reconstruction", "plain").unwrap();
        assert_eq!(refused(&plain, &data), Ok(false));
    }
}
