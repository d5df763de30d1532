//! What users do with a run: images of a class, completions, few steps, neighbours.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, Conditioned, Order, SamplingConfig, Schedule, bits_per_token,
};
use spiking_diffusion::data::Split;
use spiking_diffusion::generation::{self, Formats};
use spiking_diffusion::judge::{Against, FeatureNetwork, Judge};
use spiking_diffusion::metrics::Pixels;
use spiking_diffusion::snn_core::{Checkpoint, Seed};
use spiking_diffusion::sweep::{self, Sweep};
use spiking_diffusion::{
    Condition, DataConfig, Experiment, ExperimentConfig, Progress, Report, Silent, Trained, find_classes,
    inpaint, neighbours, pack, train_sdid,
};

use crate::models::StopAfter;
use crate::{few_digits, rejects, tiny};

fn with_classes() -> ExperimentConfig {
    let mut cfg = tiny(&few_digits());
    cfg.sdid.classes = Some(10);
    // Enough for images that differ.
    (cfg.vqsvae.time_steps, cfg.vqsvae.codebook_std, cfg.vqsvae_training.epochs) = (4, 1., 12);
    cfg
}

fn bytes(images: &Tensor) -> Vec<u32> {
    let values = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn condition(classes: &[u32], guidance: impl Into<Schedule>) -> Condition {
    Condition { classes: classes.to_vec(), guidance: guidance.into() }
}

#[test]
fn a_run_with_classes_draws_them() {
    let (folder, data) = (tempfile::tempdir().unwrap(), few_digits());
    let run = folder.path().join("run");
    let report = Experiment::new(&with_classes(), &data).out(&run).run(&mut Silent).unwrap();
    assert_eq!(report.classes, Some(10));
    let page = std::fs::read_to_string(run.join("report.md")).unwrap();
    assert!(page.contains("classes.png") && page.contains("neighbours.png"));
    // 10 rows; at each of 4 guidances 4 images, and 3 empty columns.
    let size = image::image_dimensions(run.join("classes.png")).unwrap();
    assert_eq!(size, (19 * (28 * 3 + 2) - 2, 10 * (28 * 3 + 2) - 2));

    let load = || Trained::load(&run, &Device::Cpu).unwrap();
    let drawn = |classes: &[u32], guidance: f64, count| {
        let trained = load().of_classes(condition(classes, guidance)).unwrap();
        trained.samples(count, &Device::Cpu, &mut Silent).unwrap()
    };
    let (threes, sevens) = (drawn(&[3], 2., 6), drawn(&[7], 2., 6));
    assert!(bytes(&threes) != bytes(&sevens));
    assert!(bytes(&threes) != bytes(&drawn(&[3], 0., 6)), "guidance changes nothing");
    // Classes in turn are those classes.
    let turns = drawn(&[3, 7], 2., 6);
    for i in 0..6 {
        let alone = if i % 2 == 0 { &threes } else { &sevens };
        assert!(bytes(&turns.get(i).unwrap()) == bytes(&alone.get(i).unwrap()), "{i}");
    }

    // A folder knows which classes it holds.
    let out = folder.path().join("sevens");
    let formats = Formats { png: true, safetensors: true };
    let save = |classes: &[u32], guidance: f64| {
        let trained = load().of_classes(condition(classes, guidance)).unwrap();
        generation::save(&trained, 3, &out, formats, &Device::Cpu, &mut Silent)
    };
    save(&[7], 2.).unwrap();
    assert_eq!(save(&[7], 2.).unwrap().drawn, 0);
    rejects(save(&[6], 2.), &["holds other images", "condition.classes"]);
    rejects(save(&[7], 1.), &["holds other images", "condition.guidance"]);
    rejects(generation::save(&load(), 3, &out, formats, &Device::Cpu, &mut Silent), &["condition"]);
    rejects(load().of_classes(condition(&[11], 0.)), &["class", "11"]);
    rejects(load().of_classes(condition(&[1], -1.)), &["guidance", "-1"]);
}

#[test]
fn labels_and_classes_must_fit() {
    let data = few_digits();
    let cfg = with_classes();
    rejects(cfg.with("label_dropout", "1.5").unwrap().validate(), &["label_dropout", "1.5"]);
    let plain = cfg.with("sdid.classes", "null").unwrap();
    rejects(plain.with("label_dropout", "0.2").unwrap().validate(), &["label_dropout", "sdid.classes"]);
    assert!(!serde_json::to_string(&plain).unwrap().contains("label_dropout"));
    rejects(cfg.with("label_dropout", "1").unwrap().validate(), &["label_dropout", "[0, 1)"]);
    cfg.with("label_dropout", "0").unwrap().validate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let few = cfg.with("sdid.classes", "9").unwrap();
    let experiment = Experiment::new(&few, &data).out(folder.path().join("few"));
    rejects(experiment.run(&mut Silent), &["sdid.classes", "9", "go up to 9"]);
    // A test image of a class that no training image has.
    let mut labels = data.test.labels().to_vec();
    labels[3] = 11;
    let mut strange = data.clone();
    let pixels = strange.test.range(0..24, &Device::Cpu).unwrap();
    let pixels = ((pixels + 0.5).unwrap() * 255.).unwrap().round().unwrap().to_dtype(DType::U8).unwrap();
    let pixels = pixels.flatten_all().unwrap().to_vec1().unwrap();
    strange.test = Split::new(pixels, labels, data.image()).unwrap();
    let ten = ExperimentConfig { data: DataConfig::of(&strange), ..cfg.clone() };
    let experiment = Experiment::new(&ten, &strange).out(folder.path().join("strange"));
    rejects(experiment.run(&mut Silent), &["sdid.classes", "10", "test images go up to 11"]);
    let run = spiking_diffusion::RunDir::open(folder.path(), &cfg, false).unwrap();
    let codes = Tensor::zeros((160, 7, 7), candle_core::DType::U32, &Device::Cpu).unwrap();
    let train = |labels: &[u32]| train_sdid(&cfg, &codes, labels, &run, &Device::Cpu, &mut Silent);
    rejects(train(&[1; 159]), &["classes", "159", "160"]);
    rejects(train(&[10; 160]), &["sdid.classes", "of class 10"]);

    let clusters = cfg.with("classes_from", "clusters").unwrap();
    clusters.validate().unwrap();
    assert!(!serde_json::to_string(&cfg).unwrap().contains("classes_from"));
    let refused =
        |classes| clusters.with("sdid.classes", classes).unwrap().with("label_dropout", "null").unwrap();
    rejects(refused("null").validate(), &["classes_from", "clusters", "`sdid.classes`"]);
    let many = refused("161");
    let experiment = Experiment::new(&many, &data).out(folder.path().join("many"));
    rejects(experiment.run(&mut Silent), &["sdid.classes", "161", "160 training images"]);
}

/// Without labels: clusters of the training images take their place, and each image's is drawn.
#[test]
fn a_run_with_clusters_draws_them_first() {
    let (folder, data) = (tempfile::tempdir().unwrap(), few_digits());
    let cfg = with_classes().with("sdid.classes", "6").unwrap().with("classes_from", "clusters").unwrap();
    let run = |name: &str| {
        let folder = folder.path().join(name);
        let report = Experiment::new(&cfg, &data).out(&folder).run(&mut Silent).unwrap();
        let files = ["sdid.safetensors", "clusters.safetensors"];
        (report, files.map(|file| std::fs::read(folder.join(file)).unwrap()))
    };
    let ((report, files), (_, again)) = (run("one"), run("two"));
    assert!(files == again, "the same seed, the same bytes");
    assert_eq!((report.classes, report.clusters), (None, Some(6)));
    assert!(report.protocol.contains("one of 6 clusters of the training images"), "{}", report.protocol);
    let page = std::fs::read_to_string(folder.path().join("one/report.md")).unwrap();
    assert!(page.contains("clusters.png") && !page.contains("classes.png"));
    let size = image::image_dimensions(folder.path().join("one/clusters.png")).unwrap();
    assert_eq!(size, (3 * 86 - 2, 2 * 86 - 2));

    // What is drawn is what `Conditioned` draws by the clusters' shares.
    let load = || Trained::load(&folder.path().join("one"), &Device::Cpu).unwrap();
    let clusters =
        Checkpoint::load(&folder.path().join("one/clusters.safetensors"), "clusters", &Device::Cpu);
    let train = clusters.unwrap().tensor("train").unwrap().to_vec1::<u32>().unwrap();
    let shares: Vec<f64> =
        (0..6).map(|c| train.iter().filter(|&&of| of == c).count() as f64 / train.len() as f64).collect();
    for (share, kept) in shares.iter().zip(load().denoiser.class_shares().unwrap()) {
        assert!((share - kept).abs() < 1e-6, "{shares:?}");
    }
    // Whoever goes stage by stage finds the same, also after a stop on the way, which leaves nothing.
    let run = spiking_diffusion::RunDir::open(&folder.path().join("three"), &cfg, false).unwrap();
    let stopped = find_classes(&cfg, &data, &run, &mut StopAfter(Cell::new(1)));
    rejects(stopped, &["stopped", "`clusters`", "1 of"]);
    assert!(!run.file("clusters.safetensors").exists());
    let found = find_classes(&cfg, &data, &run, &mut Silent).unwrap();
    assert!(found.train == train && found.test.len() == data.test.len());
    assert!(std::fs::read(folder.path().join("three/clusters.safetensors")).unwrap() == files[1]);

    let drawn = bytes(&load().samples(12, &Device::Cpu, &mut Silent).unwrap());
    let by = |condition| {
        bytes(&load().of_classes(condition).unwrap().samples(12, &Device::Cpu, &mut Silent).unwrap())
    };
    assert!(drawn == by(condition(&[], 0.)));
    let file = folder.path().join("run.safetensors");
    pack(&folder.path().join("one"), &file, DType::F16).unwrap();
    let packed = Trained::load(&file, &Device::Cpu).unwrap();
    assert!((packed.denoiser.class_shares().unwrap().iter().sum::<f64>() - 1.).abs() < 1e-2);
    assert_eq!(packed.samples(2, &Device::Cpu, &mut Silent).unwrap().dims(), [2, 1, 28, 28]);
    assert!(drawn != by(condition(&[], 3.)) && drawn != by(condition(&[6], 0.)));

    // The bits tell the cluster, and then the tokens, where the denoiser knows it.
    let (cfg, trained) = (&load().cfg, load());
    let clusters =
        Checkpoint::load(&folder.path().join("one/clusters.safetensors"), "clusters", &Device::Cpu);
    let test = clusters.unwrap().tensor("test").unwrap().to_vec1::<u32>().unwrap();
    let codes =
        Checkpoint::load(&folder.path().join("one/codes.safetensors"), "codes", &Device::Cpu).unwrap();
    let told = Conditioned::new(&trained.denoiser, test.clone()).unwrap();
    let images = cfg.evaluation.bound_images.min(test.len());
    let (process, bound) =
        (AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps).unwrap(), &cfg.evaluation.bound);
    let codes = codes.tensor("test").unwrap().narrow(0, 0, images).unwrap();
    let of_tokens = bits_per_token(&process, &told, &codes, bound, cfg.seed).unwrap().mean;
    // A cluster that no training image is in counts too.
    let share =
        |c: u32| (train.iter().filter(|&&of| of == c).count() as f64 + 1.) / (train.len() as f64 + 6.);
    let of_class = test[..images].iter().map(|&c| -share(c).log2()).sum::<f64>() / images as f64 / 49.;
    let found = report.metrics.bits_per_token;
    assert!((found - of_tokens - of_class).abs() < 1e-9, "{found} {of_tokens} {of_class}");

    // A file of clusters that was changed is named.
    let file = folder.path().join("two/clusters.safetensors");
    let mut changed = Checkpoint::load(&file, "clusters", &Device::Cpu).unwrap();
    for clusters in [vec![6u32; test.len()], vec![0; 3]] {
        changed.tensors.insert("test".to_owned(), Tensor::new(clusters, &Device::Cpu).unwrap());
        changed.save(&file).unwrap();
        let again = Experiment::new(cfg, &data).out(folder.path().join("two")).resume(true);
        rejects(again.run(&mut Silent), &["clusters.safetensors", "`test`", "below 6"]);
    }
}

#[test]
fn completions_keep_what_is_known() {
    let (folder, data) = (tempfile::tempdir().unwrap(), few_digits());
    Experiment::new(&with_classes(), &data).out(folder.path()).run(&mut Silent).unwrap();
    let trained = Trained::load(folder.path(), &Device::Cpu).unwrap();
    let images = data.test.range(0..3, &Device::Cpu).unwrap();
    let complete = |images: &Tensor| {
        inpaint(&trained, images, &|row, _| row < 16, 4, &Device::Cpu, &mut Silent).unwrap()
    };
    let drawn = complete(&images);
    assert_eq!(
        (drawn.images.dims(), drawn.codes.dims()),
        ([12, 1, 28, 28].as_slice(), [12, 7, 7].as_slice())
    );
    // Four rows of tokens have known pixels, the last of which touches what is not.
    assert_eq!(drawn.known, [[true; 21].as_slice(), &[false; 28]].concat());
    // What is known stays in each completion, and is what the encoder says of an image whose hole is black.
    let black = Tensor::full(-0.5f32, (3, 1, 12, 28), &Device::Cpu).unwrap();
    let seen = Tensor::cat(&[&images.narrow(2, 0, 16).unwrap(), &black], 2).unwrap();
    let codes = trained.autoencoder.encode(&seen).unwrap().to_vec3::<u32>().unwrap();
    let all = drawn.codes.to_vec3::<u32>().unwrap();
    for (i, map) in all.iter().enumerate() {
        assert_eq!(map[..3], codes[i / 4][..3], "{i}");
        assert!(map.iter().flatten().all(|&code| (code as usize) < trained.cfg.sdid.codes));
    }
    assert!((0..4).any(|i| all[i] != all[0]), "completions differ");
    // Nothing of the hole gets through, whatever it holds.
    let bright = Tensor::full(0.5f32, (3, 1, 12, 28), &Device::Cpu).unwrap();
    let other = Tensor::cat(&[&images.narrow(2, 0, 16).unwrap(), &bright], 2).unwrap();
    assert!(bytes(&complete(&other).images) == bytes(&drawn.images));
    let none = inpaint(&trained, &images, &|_, _| true, 0, &Device::Cpu, &mut Silent);
    rejects(none, &["inpaint", "0 completions"]);
}

/// Keeps what it is told, and then asks to stop.
#[derive(Default)]
struct StopWhenTold(Vec<String>);

impl Progress for StopWhenTold {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn stop_requested(&self) -> bool {
        !self.0.is_empty()
    }
}

#[test]
fn steps_are_a_table_of_orders_and_their_neighbours_are_told() {
    let (folder, data) = (tempfile::tempdir().unwrap(), few_digits());
    let run = folder.path().join("run");
    let report = Experiment::new(&with_classes(), &data).out(&run).run(&mut Silent).unwrap();
    let told = report.neighbours.unwrap();
    assert!(told.images == 5 && told.samples > 0. && told.test > 0.);
    let read: Report = serde_json::from_slice(&std::fs::read(run.join("report.json")).unwrap()).unwrap();
    assert_eq!(read.neighbours, Some(told));
    assert_eq!(image::image_dimensions(run.join("neighbours.png")).unwrap(), (5 * 86 - 2, 2 * 86 - 2));
    // The numbers are those of the library: of the first samples, and of the first test images.
    let trained = Trained::load(&run, &Device::Cpu).unwrap();
    let test = data.test.range(0..5, &Device::Cpu).unwrap();
    let found = neighbours::nearest(&test, &data.train, &mut Silent).unwrap();
    let mean = found.iter().map(|neighbour| neighbour.distance).sum::<f64>() / 5.;
    assert!((mean - told.test).abs() < 1e-9);

    let pixels = FeatureNetwork::Extractor(Box::new(Pixels::new(1, 28, 28)));
    let judges = [Judge::new(pixels, Against::Train, &data, 6, &mut Silent).unwrap()];
    let sweep = |orders: &[Order], numbers: &[usize], count| {
        let with = |order, steps| SamplingConfig { order, steps: Some(steps), ..trained.cfg.sampling };
        let settings: Vec<_> =
            orders.iter().flat_map(|&order| numbers.iter().map(move |&steps| with(order, steps))).collect();
        sweep::sweep(&trained, &settings, count, &judges, &Device::Cpu, &mut Silent)
    };
    let found = sweep(&[Order::ExactK, Order::Halton], &[2, 49], 6).unwrap();
    let rows: Vec<_> = found.rows.iter().map(|row| (row.sampling.order, row.steps, row.passes)).collect();
    let expected = [(Order::ExactK, 2), (Order::ExactK, 49), (Order::Halton, 2), (Order::Halton, 49)];
    assert_eq!(rows, expected.map(|(order, steps)| (order, steps, Some(steps as f64))));
    assert!(found.rows.iter().all(|row| row.distances.len() == 1 && row.distances[0].is_finite()));
    let out = folder.path().join("sweep");
    found.save(&out).unwrap();
    let mut again = Sweep::load(&out).unwrap();
    assert_eq!(again, found);
    // A setting that is there is not drawn again; another one is, and other images are refused.
    let mut add = |trained: &Trained, sampling| {
        again.add(trained, sampling, &judges, &Device::Cpu, &mut Silent).map(|()| again.rows.clone())
    };
    assert_eq!(add(&trained, found.rows[1].sampling).unwrap(), found.rows);
    let three = SamplingConfig { steps: Some(3), ..found.rows[1].sampling };
    assert_eq!(add(&trained, three).unwrap()[4].steps, 3);
    let mut other = Trained::load(&run, &Device::Cpu).unwrap();
    other.cfg.seed = Seed(9);
    rejects(add(&other, three), &["`sweep.seed`", "9", "\"0\""]);
    let sevens = Trained::load(&run, &Device::Cpu).unwrap().of_classes(condition(&[7], 1.)).unwrap();
    let refused = again.add(&sevens, three, &judges, &Device::Cpu, &mut Silent);
    rejects(refused, &["`sweep.condition`", "[7]"]);
    again.device = "cuda (tf32)".to_owned();
    let refused = again.add(&trained, three, &judges, &Device::Cpu, &mut Silent);
    rejects(refused, &["`sweep.device`", "cuda (tf32)"]);
    rejects(Sweep::load(folder.path()), &["sweep.json"]);
    let page = std::fs::read_to_string(out.join("sweep.md")).unwrap();
    assert!(page.contains("| halton | 49 | 49.0 |") && page.contains("Distance 1: "), "{page}");
    assert!(image::open(out.join("sweep.png")).is_ok());
    // A row that is done outlives a stop in the next.
    let (mut told, halton) = (StopWhenTold::default(), &found.rows[2..]);
    let settings: Vec<_> = halton.iter().map(|row| row.sampling).collect();
    let stopped = sweep::sweep(&trained, &settings, 6, &judges, &Device::Cpu, &mut told);
    rejects(stopped, &["stopped", "`sample`"]);
    let [line] = &told.0[..] else { panic!("{:?}", told.0) };
    let distance = format!(", distance {:.3}", halton[0].distances[0]);
    assert!(line.contains("order halton, steps 2: ") && line.ends_with(&distance), "{line}");
    rejects(sweep(&[], &[2], 6), &["sweep", "at least one setting"]);
    rejects(sweep(&[Order::ExactK], &[0], 6), &["sampling.steps"]);
}
