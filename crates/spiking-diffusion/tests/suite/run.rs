//! Whole runs of a few steps: their files, their report, and what they refuse.

use std::path::Path;

use candle_core::{Device, Tensor};
use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::metrics::{Classifier, FeatureExtractor, frechet_distance_of_features};
use spiking_diffusion::snn_core::Seed;
use spiking_diffusion::{
    Experiment, ExperimentConfig, Features, Preset, Report, Result, RunDir, Silent, Trained, evaluate,
};

use crate::{REPRODUCIBLE, assert_same_bytes, few_digits, rejects, tiny};

fn run(cfg: &ExperimentConfig, data: &Dataset, out: &Path, resume: bool) -> Result<Report> {
    Experiment::new(cfg, data).out(out).resume(resume).run(&mut Silent)
}

#[test]
fn a_run_leaves_all_its_files_and_an_honest_report() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let report = run(&cfg, &data, folder.path(), false).unwrap();

    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert_eq!(
        (report.dataset.as_str(), report.synthetic, report.preset.as_str()),
        ("few-digits", true, "quick")
    );
    assert_eq!((report.train_images, report.test_images, report.samples), (160, 24, 5));
    assert!(report.metrics.mse > 0. && report.metrics.mse < 1.);
    assert!(report.metrics.bits_per_token > 0. && report.metrics.bits_per_token_images == 16);
    assert!((1..=128).contains(&report.metrics.codebook_used));
    assert_eq!(report.firing_rates.len(), 11, "{:?}", report.firing_rates);
    assert!(report.firing_rates.values().all(|rate| (0. ..=1.).contains(rate)));
    for stage in ["vqsvae", "encode", "sdid", "sample"] {
        assert!(report.seconds[stage] > 0. && report.images_per_second[stage] > 0., "{stage}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(page.contains("synthetic") && page.contains("samples.png") && page.contains(&report.protocol));
    let rows = std::fs::read_to_string(folder.path().join("vqsvae.csv")).unwrap();
    assert_eq!(rows.lines().count(), 11);
    assert!(rows.starts_with("step,epoch,lr,loss,reconstruction,dense,generator,commitment,grad_norm\n0,0,"));

    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut wanted =
        [&REPRODUCIBLE[..], &[".lock", "report.html", "report.json", "report.md", "timing.json"]].concat();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
}

/// Of the first images of a split, by the run's classifier.
fn fid_of_reconstructions(run: &Path, split: &Split, count: usize) -> f64 {
    let trained = Trained::load(run, &Device::Cpu).unwrap();
    let classifier = Classifier::load(run.join("classifier.safetensors")).unwrap();
    let images = split.range(0..count, &Device::Cpu).unwrap();
    let again: Tensor = trained.autoencoder.decode(&trained.autoencoder.encode(&images).unwrap()).unwrap();
    let pixels: Vec<f32> = again.flatten_all().unwrap().to_vec1().unwrap();
    let in_a_png = |pixel: f32| ((pixel + 0.5) * 255.).round().clamp(0., 255.) / 255. - 0.5;
    let pixels = pixels.into_iter().map(in_a_png).collect();
    let again = Tensor::from_vec(pixels, again.shape(), &Device::Cpu).unwrap();
    let [real, again] = [&images, &again].map(|images| classifier.extract(images).unwrap());
    frechet_distance_of_features(&real, &again).unwrap()
}

#[test]
fn distances_are_those_of_the_features_asked_for() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data).with("evaluation.distance_images", "20").unwrap();
    let with = |features: Features, resume: bool| {
        Experiment::new(&cfg, &data).out(folder.path()).resume(resume).features(features).run(&mut Silent)
    };
    let report = with(Features::Classifier, false).unwrap();
    let distance = report.metrics.distance.clone().unwrap();
    assert!(distance.fid > 0. && distance.kid.is_finite() && distance.dims == 128);
    assert_eq!((distance.real_images, distance.generated_images), (20, 20));
    assert_eq!(distance.reconstruction_fid, Some(fid_of_reconstructions(folder.path(), &data.test, 20)));
    for part in ["classifier of few-digits", "test accuracy"] {
        assert!(
            distance.extractor.contains(part) && report.protocol.contains(part),
            "{}",
            distance.extractor
        );
    }
    assert!(report.protocol.contains("Warning: "), "20 samples of 128 features: {}", report.protocol);
    // The classifier is kept, and gives the same numbers again.
    assert_eq!(with(Features::Classifier, true).unwrap().metrics, report.metrics);
    assert_eq!(with(Features::None, true).unwrap().metrics.distance, None);
    rejects(with(Features::Inception("no-such.pth".into()), true), &["no-such.pth"]);
}

#[test]
fn data_that_no_classifier_can_be_trained_on_are_refused_before_the_training() {
    let (digits, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let unlabelled = |split: &Split| {
        let pixels = (0..split.len()).flat_map(|i| split.bytes(i).unwrap().to_vec()).collect();
        Split::new(pixels, vec![0; split.len()], split.image()).unwrap()
    };
    let data = Dataset::new("own", unlabelled(&digits.train), unlabelled(&digits.test)).unwrap();
    let cfg = tiny(&data).with("evaluation.distance_images", "20").unwrap();
    let out = folder.path().join("run");
    let result = Experiment::new(&cfg, &data).out(&out).features(Features::Classifier).run(&mut Silent);
    rejects(result, &["classes", "at least 2"]);
    assert!(!out.exists());
}

/// A run takes the codes of the test images from the pass that measures their reconstructions.
#[test]
fn codes_are_those_of_every_image_encoded_by_itself() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let report = run(&cfg, &data, folder.path(), false).unwrap();
    let trained = Trained::load(folder.path(), &Device::Cpu).unwrap();
    let codes =
        candle_core::safetensors::load(folder.path().join("codes.safetensors"), &Device::Cpu).unwrap();
    // Measured again, all is as in the run.
    let (networks, test) = (trained.networks(), &codes["test"]);
    let found = evaluate(&cfg, networks, &data.test, test, &Device::Cpu, &mut Silent).unwrap();
    assert_eq!((found.metrics, found.firing_rates), (report.metrics, report.firing_rates));
    assert_eq!(Some(found.energy), report.energy);
    for (name, split) in [("train", &data.train), ("test", &data.test)] {
        assert_eq!(codes[name].dims(), [split.len(), 7, 7]);
        for i in 0..split.len() {
            let own = trained.autoencoder.encode(&split.range(i..i + 1, &Device::Cpu).unwrap()).unwrap();
            assert_eq!(
                codes[name].get(i).unwrap().to_vec2::<u32>().unwrap(),
                own.get(0).unwrap().to_vec2::<u32>().unwrap()
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let (a, b, c) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
    run(&cfg, &data, &a, false).unwrap();
    run(&cfg, &data, &b, false).unwrap();
    assert_same_bytes(&a, &b);
    run(&ExperimentConfig { seed: Seed(1), ..cfg.clone() }, &data, &c, false).unwrap();
    let read = |folder: &Path| std::fs::read(folder.join("samples.png")).unwrap();
    assert_ne!(read(&a), read(&c));
    // A finished run, resumed, does nothing but report again.
    run(&cfg, &data, &a, true).unwrap();
    assert_same_bytes(&a, &b);
}

#[test]
fn folders_of_others_are_refused_and_left_alone() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let out = folder.path().join("run");
    let held = RunDir::open(&out, &cfg, false).unwrap();
    rejects(RunDir::open(&out, &cfg, true), &["run", "another process"]);
    drop(held);
    rejects(RunDir::open(&out, &cfg, false), &["already holds a run", "--resume"]);
    let other = cfg.with("vqsvae.beta", "0.5").unwrap();
    rejects(RunDir::open(&out, &other, true), &["vqsvae.beta", "0.25", "0.5"]);
    RunDir::open(&out, &cfg, true).unwrap();
    // Fewer images: also another checksum, and another variance.
    let fewer = tiny(&few_digits().limit(72).unwrap());
    rejects(RunDir::open(&out, &fewer, true), &["`data.train_images` is 160 there and 72 here"]);
    let mut others = fewer;
    (others.data.train_images, others.evaluation.bound_images) = (160, 15);
    rejects(RunDir::open(&out, &others, true), &["`evaluation.bound_images` is 16 there and 15 here"]);
    others.evaluation.bound_images = 16;
    rejects(RunDir::open(&out, &others, true), &["`data.sha256` is"]);
    others.data.sha256.clone_from(&cfg.data.sha256);
    rejects(RunDir::open(&out, &others, true), &["`vqsvae.reconstruction.over_variance.variance` is"]);

    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("cat.jpg"), "meow").unwrap();
    rejects(RunDir::open(&photos, &cfg, true), &["photos", "cat.jpg"]);
    assert_eq!(std::fs::read(photos.join("cat.jpg")).unwrap(), b"meow");
    assert_eq!(std::fs::read_dir(&photos).unwrap().count(), 1);
}

#[test]
fn a_run_goes_on_by_no_other_kind_of_device() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    drop(RunDir::open(folder.path(), &cfg, false).unwrap());
    let begun = r#"{"device": "cuda", "precision": "tf32"}"#;
    std::fs::write(folder.path().join("device.json"), begun).unwrap();
    let resumed = run(&cfg, &data, folder.path(), true);
    rejects(resumed, &["`device` is cuda there and cpu here", "--device", "--resume"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    rejects(run(&tiny(&data), &data, &file.join("run"), false), &["file/run"]);
    rejects(run(&tiny(&data), &data, &file, false), &["file"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let mut cfg = tiny(&data);
    cfg.vqsvae_training.adamw.lr = 1e30;
    cfg.vqsvae_training.checkpoint_every = 1;
    rejects(
        run(&cfg, &data, folder.path(), false),
        &["vqsvae", "step", "vqsvae.state.safetensors", "last good"],
    );
    let kept = folder.path().join("vqsvae.state.safetensors");
    let tensors = candle_core::safetensors::load(&kept, &Device::Cpu).unwrap();
    assert!(tensors.contains_key("adamw.m.head.weight") && tensors.contains_key("model.head.weight"));
    assert!(!folder.path().join("vqsvae.safetensors").exists());
}

#[test]
fn damaged_results_of_a_stage_are_named() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let out = folder.path().join("run");
    run(&cfg, &data, &out, false).unwrap();
    for name in ["vqsvae.safetensors", "codes.safetensors", "sdid.safetensors"] {
        let whole = std::fs::read(out.join(name)).unwrap();
        std::fs::write(out.join(name), &whole[..whole.len() - 9]).unwrap();
        rejects(run(&cfg, &data, &out, true), &[name]);
        std::fs::write(out.join(name), whole).unwrap();
    }
    // The other model's weights under this one's name.
    std::fs::copy(out.join("sdid.safetensors"), out.join("vqsvae.safetensors")).unwrap();
    rejects(run(&cfg, &data, &out, true), &["vqsvae.safetensors", "`sdid`", "`vq-svae`"]);
}

#[test]
fn too_few_images_for_a_batch() {
    let (data, folder) = (few_digits().limit(20).unwrap(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    rejects(
        run(&cfg, &data, folder.path(), false),
        &["vqsvae_training.batch_size", "32", "only 20 to train on"],
    );
    rejects(few_digits().limit(0), &["limit", "0"]);
}

#[test]
fn other_data_are_refused() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let mut pixels: Vec<u8> = (0..24).flat_map(|i| data.test.bytes(i).unwrap().to_vec()).collect();
    pixels[0] ^= 1;
    let test = Split::new(pixels, data.test.labels().to_vec(), data.image()).unwrap();
    let other = Dataset { test, ..data.clone() };
    rejects(run(&cfg, &other, folder.path(), false), &["`data`", "sha256"]);
    rejects(
        run(&ExperimentConfig::new(Preset::Quick, cfg.vqsvae.image), &data, folder.path(), false),
        &["`data`"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn rows_that_are_missing_are_noticed() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data).with("vqsvae_training.adamw.lr", "1e30").unwrap();
    let cfg = cfg.with("vqsvae_training.checkpoint_every", "1").unwrap();
    assert!(run(&cfg, &data, folder.path(), false).is_err());
    std::fs::write(folder.path().join("vqsvae.csv"), "step\n").unwrap();
    rejects(run(&cfg, &data, folder.path(), true), &["vqsvae.csv", "0 rows", "step"]);
}

#[test]
fn the_html_report_needs_nothing_from_outside() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let report = run(&tiny(&data), &data, folder.path(), false).unwrap();
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(html, report.to_html(folder.path()).unwrap());
    for outside in ["http:", "https:", "<link", "<script", "@import", "url(", "src=\"//"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let sources: Vec<&str> = html.split("src=\"").skip(1).map(|rest| &rest[..15]).collect();
    assert_eq!(sources.len(), 7, "{sources:?}");
    assert!(sources.iter().all(|source| source.starts_with("data:image/")), "{sources:?}");
    // The same facts as the page of Markdown.
    let page = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    let energy = report.energy.unwrap();
    let mse = format!("{:.5}", report.metrics.mse);
    for fact in [mse.as_str(), "accumulate", &energy.work[2].name, "vqsvae.encoder.1", "Synthetic data"] {
        assert!(html.contains(fact) && page.contains(fact), "{fact}");
    }
    for file in ["samples.png", "unmasking.gif", "neighbours.png", "codebook.png", "firing_rates.png"] {
        assert!(page.contains(&format!("({file})")), "{file}");
    }
}

#[test]
fn the_energy_table_is_consistent() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let energy = run(&cfg, &data, folder.path(), false).unwrap().energy.unwrap();
    let cost = |name: &str| &energy.layers.iter().find(|line| line.name == name).unwrap().cost;
    assert_eq!(energy.layers.len(), 7 + 6);
    // By hand: a 3x3 convolution of stride 2 and padding 1 from 28 to 14 rows reaches 27 + 14 = 41 pairs of rows.
    let first = cost("vqsvae.encoder.0");
    assert_eq!((first.dense_macs, first.macs, first.accumulates), (8. * 41. * 41., 8. * 41. * 41., 0.));
    // 1x1 convolutions on 7x7 positions, 8 to 16 and 16 to 16 channels.
    assert_eq!(cost("vqsvae.encoder.2").dense_macs, 49. * 8. * 16.);
    assert_eq!(cost("vqsvae.generator").macs, 49. * 16. * 16.);
    // A 1x1 layer: its accumulates are the rate of the layer before it times everything.
    let rate = energy_rate(&folder.path().join("report.json"), "vqsvae.encoder.1");
    let wanted = rate * 2. * 49. * 8. * 16.;
    let found = cost("vqsvae.encoder.2").accumulates;
    assert!((found - wanted).abs() <= 1e-5 * wanted.max(1.), "{found} {wanted}");
    let pass: f64 = energy.layers[7..].iter().map(|line| line.cost.nanojoules).sum();
    assert!((energy.work[1].cost.nanojoules - pass).abs() < 1e-9 * pass);
    assert_eq!(energy.work[2].name, "generate an image: 49.0 passes, then decode");
}

fn energy_rate(report: &Path, layer: &str) -> f64 {
    let report: Report = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    report.firing_rates[layer]
}
