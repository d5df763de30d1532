//! Codes of another run instead of the first two stages.

use std::fs;
use std::path::Path;

use spiking_diffusion::{Experiment, ExperimentConfig, Report, Result, Silent};

use crate::{few_digits, rejects, tiny};

fn run(cfg: &ExperimentConfig, out: &Path, from: Option<&Path>) -> Result<Report> {
    let data = few_digits();
    let experiment = Experiment::new(cfg, &data).out(out);
    match from {
        Some(from) => experiment.codes_from(from).run(&mut Silent),
        None => experiment.run(&mut Silent),
    }
}

#[test]
fn a_run_on_the_codes_of_another_ends_as_if_it_had_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cfg = tiny(&few_digits());
    let mut wider = cfg.clone();
    wider.sdid.channels = vec![12; 5];
    run(&cfg, &at("first"), None).unwrap();
    run(&wider, &at("by-itself"), None).unwrap();
    run(&wider, &at("reused"), Some(&at("first"))).unwrap();
    for name in [
        "vqsvae.safetensors",
        "codes.safetensors",
        "vqsvae.csv",
        "sdid.safetensors",
        "sdid.csv",
        "config.json",
    ] {
        assert!(
            fs::read(at("by-itself").join(name)).unwrap() == fs::read(at("reused").join(name)).unwrap(),
            "{name}"
        );
    }
    let seconds = |run: &str| -> f64 {
        let text = fs::read(at(run).join("timing.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["vqsvae"].as_f64().unwrap()
    };
    assert_eq!(seconds("reused"), seconds("first"));
}

#[test]
fn other_codes_are_refused_by_the_field_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cfg = tiny(&few_digits());
    run(&cfg, &at("first"), None).unwrap();
    let mut other = cfg.clone();
    other.vqsvae.beta = 0.5;
    rejects(
        run(&other, &at("a"), Some(&at("first"))),
        &["first", "`vqsvae.beta` is 0.25 there and 0.5 here"],
    );
    let mut other = cfg.clone();
    other.seed.0 = 7;
    rejects(run(&other, &at("b"), Some(&at("first"))), &["first", "`seed` is 0 there and 7 here"]);
    rejects(run(&cfg, &at("c"), Some(&at("none"))), &["none"]);
    let device = at("first/device.json");
    fs::write(&device, r#"{"device": "cuda", "precision": "tf32"}"#).unwrap();
    rejects(run(&cfg, &at("d"), Some(&at("first"))), &["first", "`device` is cuda there and cpu here"]);
    fs::remove_file(device).unwrap();
    for name in ["codes.safetensors", "vqsvae.safetensors", "vqsvae.csv", "timing.json"] {
        let (file, aside) = (at("first").join(name), at("aside"));
        fs::rename(&file, &aside).unwrap();
        rejects(run(&cfg, &at("d"), Some(&at("first"))), &["first", name]);
        fs::rename(&aside, &file).unwrap();
    }
    // And no folder is left that would have to be removed.
    ["a", "b", "c", "d"].iter().for_each(|name| assert!(!at(name).exists(), "{name}"));
}

#[test]
fn a_run_that_has_its_codes_goes_on_without_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cfg = tiny(&few_digits());
    run(&cfg, &at("first"), None).unwrap();
    run(&cfg, &at("second"), Some(&at("first"))).unwrap();
    fs::remove_dir_all(at("first")).unwrap();
    let data = few_digits();
    let again = Experiment::new(&cfg, &data).out(at("second")).codes_from(at("first"));
    again.clone().resume(true).run(&mut Silent).unwrap();
    rejects(again.run(&mut Silent), &["first"]);
}

/// A finished run may be measured again, but not by less than before.
#[test]
fn a_report_is_not_written_over_by_one_that_measures_less() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (few_digits(), folder.path().join("run"));
    let cfg = tiny(&data);
    run(&cfg, &out, None).unwrap();
    let again = || Experiment::new(&cfg, &data).out(&out).resume(true).run(&mut Silent);
    let report = again().unwrap();
    let distance = spiking_diffusion::Distance {
        fid: 1.,
        kid: 1.,
        kid_std: 0.,
        reconstruction_fid: None,
        dims: 768,
        real_images: 2,
        generated_images: 2,
        extractor: "FID Inception 2015-12-05, 768 features".into(),
        protocol: String::new(),
        seed: 0,
        warnings: Vec::new(),
    };
    let mut measured = report;
    measured.metrics.distance = Some(distance);
    let text = serde_json::to_vec(&measured).unwrap();
    fs::write(out.join("report.json"), &text).unwrap();
    rejects(again(), &["report.json", "FID", "--inception"]);
    assert!(fs::read(out.join("report.json")).unwrap() == text);
}
