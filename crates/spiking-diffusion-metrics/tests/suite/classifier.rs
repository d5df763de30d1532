use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use snn_core::Checkpoint;
use snn_train::{Progress, Silent};
use spiking_diffusion_metrics::{
    Classifier, ClassifierConfig, FeatureExtractor, Labelled, extract_batches, score_samples,
};

use crate::{message, with_value};

/// Bars: class 0 lies, class 1 stands, class 2 is a block; anywhere, in noise.
fn bars(count: usize, (channels, height, width): (usize, usize, usize), seed: u64) -> (Tensor, Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::new();
    let labels: Vec<u32> = (0..count as u32).map(|i| i % 3).collect();
    for &label in &labels {
        let (h, w) = [(2, 10), (10, 2), (6, 6)][label as usize];
        let (top, left) = (rng.random_range(2..height - 10), rng.random_range(2..width - 10));
        for at in 0..channels * height * width {
            let (y, x) = (at / width % height, at % width);
            let inside = (top..top + h).contains(&y) && (left..left + w).contains(&x);
            values.push(if inside { 0.4f32 } else { -0.45 } + rng.random_range(-0.05f32..0.05));
        }
    }
    (Tensor::from_vec(values, (count, channels, height, width), &Device::Cpu).unwrap(), labels)
}

fn config(epochs: usize) -> ClassifierConfig {
    ClassifierConfig {
        features: 16,
        epochs,
        batch_size: 20,
        max_shift: 1,
        ..ClassifierConfig::new("bars", 3)
    }
}

fn labelled((images, labels): &(Tensor, Vec<u32>)) -> Labelled<'_> {
    Labelled { images, labels }
}

fn trained(epochs: usize, image: (usize, usize, usize)) -> Classifier {
    let (train, test) = (bars(300, image, 0), bars(90, image, 1));
    Classifier::train(&config(epochs), labelled(&train), labelled(&test), &mut Silent).unwrap()
}

fn bytes(classifier: &Classifier) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    classifier.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn learns_bars_and_knows_how_well() {
    let image = (1, 20, 17);
    let classifier = trained(10, image);
    let card = classifier.card();
    assert_eq!((card.image, card.train_images, card.test_images), ([1, 20, 17], 300, 90));
    assert_eq!(card.steps, 10 * 15);
    assert!(card.test_accuracy > 0.97, "{}", card.test_accuracy);
    assert!(classifier.name().contains("classifier of bars 1x20x17, 16 features (10 epochs of 300 images"));

    let (images, labels) = bars(60, image, 2);
    let accuracy = classifier.accuracy(Labelled { images: &images, labels: &labels }).unwrap();
    assert!(accuracy > 0.95, "{accuracy}");
    let wrong: Vec<u32> = labels.iter().map(|label| (label + 1) % 3).collect();
    let swapped = classifier.accuracy(Labelled { images: &images, labels: &wrong }).unwrap();
    assert!(swapped < 0.05, "{swapped}");
}

#[test]
fn other_shapes_and_colours() {
    for image in [(3, 16, 16), (1, 40, 16), (3, 33, 64)] {
        let classifier = trained(1, image);
        let (images, _) = bars(5, image, 3);
        assert_eq!(classifier.extract(&images).unwrap().dims(), [5, 16]);
        let sums: Vec<f32> = classifier.probabilities(&images).unwrap().sum(1).unwrap().to_vec1().unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.).abs() < 1e-5), "{sums:?}");
    }
}

#[test]
fn features_do_not_depend_on_the_batch() {
    let classifier = trained(1, (1, 16, 16));
    let (images, _) = bars(300, (1, 16, 16), 4);
    let whole = classifier.extract(&images.to_dtype(DType::F64).unwrap()).unwrap();
    let pieces = extract_batches(&classifier, &images, 7).unwrap();
    let gap = (whole - pieces).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(gap < 1e-5, "{gap}");
}

#[test]
fn the_seed_alone_decides_the_bytes() {
    let train = || bytes(&trained(2, (1, 16, 16)));
    let with = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(train);
    let one = with(1);
    assert_eq!(one, with(5));
    let data = bars(300, (1, 16, 16), 0);
    let other = ClassifierConfig { seed: 1, ..config(2) };
    let other = Classifier::train(&other, labelled(&data), labelled(&data), &mut Silent).unwrap();
    assert_ne!(one, bytes(&other));
}

/// Candle reads the number of threads once a process: so in processes of their own.
#[test]
fn the_number_of_threads_changes_no_byte() {
    const TASK: &str = "CLASSIFIER_THREADS_TASK";
    if let Ok(path) = std::env::var(TASK) {
        trained(2, (1, 28, 28)).save(path).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let with = |threads: &str| {
        let path = folder.path().join(threads);
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "classifier::the_number_of_threads_changes_no_byte"])
            .env(TASK, &path)
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap()
            .status;
        assert!(status.success());
        std::fs::read(path).unwrap()
    };
    let one = with("1");
    assert!(one == with("2") && one == with("5"), "the weights depend on the number of threads");
}

#[test]
fn a_file_gives_back_the_classifier() {
    let (classifier, (images, _)) = (trained(2, (1, 16, 16)), bars(10, (1, 16, 16), 5));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    classifier.save(&path).unwrap();
    let again = Classifier::load(&path).unwrap();
    assert_eq!(again.card(), classifier.card());
    let features = |c: &Classifier| c.extract(&images).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(features(&again), features(&classifier));
    assert_eq!(bytes(&again), std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    let good = bytes(&trained(1, (1, 16, 16)));
    let load = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let message = message(Classifier::load(&path));
        assert!(message.contains("c.safetensors"), "{message}");
        message
    };
    load(b"");
    load(&good[..good.len() / 2]);
    assert!(load(&replace(&good, "classifier", "vq-svaeeee")).contains("vq-svaeeee"));
    assert!(load(&replace(&good, "spiking-diffusion", "spiking-confusion")).contains("spiking-diffusion"));
    let mut damaged = good.clone();
    let end = damaged.len();
    damaged[end - 2] ^= 1;
    assert!(load(&damaged).contains("SHA-256"));
    assert!(load(&replace(&good, "\\\"epochs\\\":1", "\\\"epochs\\\":2")).contains("SHA-256"));
    // Whole files of something else.
    let changed = |change: &dyn Fn(&mut serde_json::Value, &mut BTreeMap<String, Tensor>)| {
        let read = Checkpoint::from_bytes(&good, &path, "classifier", &Device::Cpu).unwrap();
        let (mut card, mut tensors) = (read.config().unwrap(), read.tensors);
        change(&mut card, &mut tensors);
        let mut checkpoint = Checkpoint::new("classifier", &card).unwrap();
        checkpoint.tensors = tensors;
        load(&checkpoint.to_bytes().unwrap())
    };
    let renamed = changed(&|_, tensors| {
        let bias = tensors.remove("hidden.bias").unwrap();
        tensors.insert("hidden.bijs".into(), bias);
    });
    assert!(renamed.contains("hidden.bias"), "{renamed}");
    assert!(changed(&|card, _| card["config"]["features"] = 17.into()).contains("[1024, 17]"));
    assert!(changed(&|card, _| card["config"]["features"] = (-1).into()).contains("config"));
    assert!(changed(&|card, _| card["config"]["epochs"] = 0.into()).contains("`epochs` = 0"));
    let none = changed(&|_, tensors| {
        let bias = tensors.get_mut("hidden.bias").unwrap();
        *bias = (&*bias * f64::NAN).unwrap();
    });
    assert!(none.contains("holds NaN"), "{none}");
    let missing = message(Classifier::load(folder.path().join("missing")));
    assert!(missing.contains("missing"), "{missing}");
    let nowhere = folder.path().join("no/such/folder/c.safetensors");
    assert!(message(trained(1, (1, 16, 16)).save(nowhere)).contains("no/such/folder"));
}

/// One piece of text for another of the same length, inside a file.
fn replace(content: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = content.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut changed = content.to_vec();
    changed[at..at + to.len()].copy_from_slice(to.as_bytes());
    changed
}

#[test]
fn nonsense_is_named() {
    let (images, labels) = bars(9, (1, 16, 16), 0);
    let with = |cfg: &ClassifierConfig, images: &Tensor, labels: &[u32]| {
        let set = Labelled { images, labels };
        message(Classifier::train(cfg, set, set, &mut Silent))
    };
    let good = config(1);
    assert_eq!(with(&good, &images, &labels[..8]), "training labels differ: [9] and [8]");
    let mut far = labels.clone();
    far[4] = 3;
    assert_eq!(with(&good, &images, &far), "`labels` = 3: label 4 of the training labels must be below 3");
    let nan = with_value(&images.to_dtype(DType::F64).unwrap(), 256 + 7, f64::NAN);
    assert_eq!(with(&good, &nan, &labels), "images: row 1, column 7 is NaN");
    assert!(with(&good, &bars(9, (2, 16, 16), 0).0, &labels).contains("`channels` = 2"));
    assert!(with(&good, &bars(9, (1, 15, 16), 0).0, &labels).contains("`height` = 15"));
    assert!(with(&good, &images.to_dtype(DType::U8).unwrap(), &labels).contains("U8"));
    assert!(with(&ClassifierConfig { epochs: 0, ..good.clone() }, &images, &labels).contains("`epochs` = 0"));
    let no_batch = ClassifierConfig { batch_size: 0, ..good.clone() };
    assert!(with(&no_batch, &images, &labels).contains("`batch_size` = 0"));
    let no_rate = ClassifierConfig { learning_rate: f64::NAN, ..good.clone() };
    assert!(with(&no_rate, &images, &labels).contains("`learning_rate` = NaN"));
    let most = usize::MAX;
    let memory = |field: &str| format!("`{field}` = {most}: needs more memory");
    for (cfg, want) in [
        (ClassifierConfig { features: most, ..good.clone() }, memory("features")),
        (ClassifierConfig { classes: most, ..good.clone() }, memory("classes")),
        (
            ClassifierConfig { epochs: most, batch_size: 2, ..good.clone() },
            format!("`epochs` = {most}: no machine"),
        ),
        (ClassifierConfig { max_shift: most, ..good.clone() }, format!("`max_shift` = {most}: must be less")),
        (ClassifierConfig { max_shift: 16, ..good.clone() }, "`max_shift` = 16: must be less".into()),
        (ClassifierConfig { weight_decay: f64::INFINITY, ..good.clone() }, "`weight_decay` = inf".into()),
        (ClassifierConfig { classes: 1, ..good.clone() }, "`classes` = 1: must be at least 2".into()),
    ] {
        let text = with(&cfg, &images, &labels);
        assert!(text.contains(&want), "{text}");
    }
    // One step, after which no loss is computed.
    let last = ClassifierConfig { learning_rate: 1e300, ..good.clone() };
    assert!(with(&last, &images, &labels).contains("after the update of step 0"));
    let widest = ClassifierConfig { max_shift: 15, batch_size: most, ..good.clone() };
    let set = Labelled { images: &images, labels: &labels };
    Classifier::train(&widest, set, set, &mut Silent).unwrap();
    let wild = ClassifierConfig { learning_rate: 1e30, epochs: 9, ..good.clone() };
    assert!(with(&wild, &images, &labels).contains("lower the rate"));

    let (set, larger) = (Labelled { images: &images, labels: &labels }, bars(9, (1, 17, 16), 0));
    let error = message(Classifier::train(&good, set, labelled(&larger), &mut Silent));
    assert_eq!(error, "images: expected [N, 1, 16, 16], got [9, 1, 17, 16]");
}

#[test]
fn a_trained_classifier_rejects_what_it_was_not_made_for() {
    let classifier = trained(1, (1, 16, 16));
    let (images, labels) = bars(300, (1, 16, 16), 0);
    let flat = images.flatten_from(1).unwrap();
    assert_eq!(message(classifier.extract(&flat)), "images: expected [N, 1, 16, 16], got [256, 256]");
    let nan = with_value(&images.to_dtype(DType::F64).unwrap(), 270 * 256 + 3, f64::INFINITY);
    assert_eq!(message(classifier.probabilities(&nan)), "images: row 270, column 3 is inf");
    let none = images.narrow(0, 0, 0).unwrap();
    assert_eq!(message(classifier.probabilities(&none)), "images: got 0, need at least 1");
    let few = Labelled { images: &images, labels: &labels[1..] };
    assert_eq!(message(classifier.accuracy(few)), "labels differ: [300] and [299]");
    assert!(message(score_samples(&classifier, &images, 1.5)).contains("`threshold` = 1.5"));
}

#[test]
fn scores_count_every_image_once() {
    let classifier = trained(10, (1, 16, 16));
    let (images, labels) = bars(90, (1, 16, 16), 7);
    let score = score_samples(&classifier, &images, 0.9).unwrap();
    assert_eq!((score.images, score.predicted.iter().sum::<usize>()), (90, 90));
    assert!(score.confident_share > 0.8 && score.confident_classes == [0, 1, 2], "{score:?}");
    let all = score_samples(&classifier, &images, 0.).unwrap();
    assert_eq!((all.confident_share, &all.confident), (1., &all.predicted));
    let lying = score_samples(&classifier, &images.narrow(0, 0, 1).unwrap(), 0.).unwrap();
    assert_eq!((lying.confident_classes, labels[0]), (vec![0], 0));
    let json = serde_json::to_value(&score).unwrap();
    assert_eq!(json["predicted"].as_array().unwrap().len(), 3);
}

/// What it was told: totals, then steps with their losses. Stops after one step, if it is to.
#[derive(Default)]
struct Told {
    totals: Vec<usize>,
    steps: Vec<(usize, f64)>,
    stops: bool,
}

impl Progress for Told {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        assert_eq!((stage, done), ("classifier", 0));
        self.totals.push(total);
    }
    fn advance(&mut self, done: usize, loss: Option<f64>) {
        self.steps.push((done, loss.unwrap()));
    }
    fn stop_requested(&self) -> bool {
        self.stops
    }
}

#[test]
fn every_step_is_told() {
    let data = bars(45, (1, 16, 16), 0);
    let train = |told: &mut Told| Classifier::train(&config(2), labelled(&data), labelled(&data), told);
    let mut told = Told::default();
    // Two epochs of two batches of 20; the last 5 images of each are left out.
    assert_eq!(train(&mut told).unwrap().card().steps, 4);
    assert_eq!(told.totals, [4]);
    assert!(told.steps.iter().map(|(done, _)| *done).eq(1..=4));
    assert!(told.steps.iter().all(|(_, loss)| loss.is_finite()));
    let stopped = train(&mut Told { stops: true, ..Told::default() });
    assert!(message(stopped).contains("`classifier` at 1 of 4"));
}
