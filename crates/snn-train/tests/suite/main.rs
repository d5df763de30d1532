//! The loop on a network of two numbers: exact resume, what is written, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod over;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use snn_core::{AveragingConfig, Model, MuonConfig, ParamStore, Seed, VarBuilder};
use snn_train::{Batch, Error, Progress, Result, RunDir, Silent, StepLoss, Trainer, TrainingConfig};

/// `slope x + offset`.
struct Line {
    slope: Tensor,
    offset: Tensor,
}

impl Model for Line {
    const KIND: &'static str = "line";
    type Config = ();
    type Error = snn_core::Error;

    fn build((): &(), vb: VarBuilder<'_>) -> snn_core::Result<Self> {
        let number = |name| vb.get_with_hints(1, name, Init::Randn { mean: 0., stdev: 1. });
        Ok(Self { slope: number("slope")?, offset: number("offset")? })
    }

    fn config(&self) -> &() {
        &()
    }
}

impl Line {
    fn loss(&self, items: &[u32]) -> Result<Tensor> {
        let xs = (Tensor::new(items, &Device::Cpu)?.to_dtype(DType::F32)? * 0.1)?;
        let guess = xs.broadcast_mul(&self.slope)?.broadcast_add(&self.offset)?;
        Ok((guess - ((xs * 2.)? + 1.)?)?.sqr()?.mean_all()?)
    }
}

fn config() -> TrainingConfig {
    let mut cfg = TrainingConfig { batch_size: 4, checkpoint_every: 5, ..TrainingConfig::new(7) };
    cfg.adamw.lr = 0.05;
    cfg
}

/// Asks for a stop after so many steps.
struct StopAfter(usize, usize);

impl Progress for StopAfter {
    fn advance(&mut self, done: usize, _: Option<f64>) {
        self.1 = done;
    }
    fn stop_requested(&self) -> bool {
        self.1 == self.0
    }
}

/// Remembers messages.
struct Said(Vec<String>);

impl Progress for Said {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Trains a line in this folder, with a column of its own.
fn train(folder: &Path, resume: bool, progress: &mut dyn Progress) -> Result<()> {
    train_as(&config(), folder, resume, progress)
}

fn train_as(cfg: &TrainingConfig, folder: &Path, resume: bool, progress: &mut dyn Progress) -> Result<()> {
    let run = RunDir::open(folder, cfg, resume)?;
    let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
    let line = Line::build(&(), params.builder())?;
    let trainer = Trainer::new("line", cfg, &params, 22, Seed(3)).columns(&["first, item"]).in_run(&run);
    trainer.train_model(&line, progress, |batch: Batch<'_>| -> Result<StepLoss> {
        assert_eq!(batch.epoch, batch.step / 5);
        Ok(StepLoss {
            loss: line.loss(batch.items)?,
            columns: vec![Tensor::new(batch.items[0], &Device::Cpu)?],
        })
    })
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

fn stopped_at(result: Result<()>, step: usize) {
    assert!(matches!(result, Err(Error::Stopped { done, total: 35, .. }) if done == step), "{result:?}");
}

#[track_caller]
fn rejects<T>(result: Result<T>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, wanted {parts:?}"));
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}

#[test]
fn a_training_that_was_stopped_ends_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    train(&whole, false, &mut Silent).unwrap();
    stopped_at(train(&parts, false, &mut StopAfter(3, 0)), 3);
    stopped_at(train(&parts, true, &mut StopAfter(13, 0)), 13);
    train(&parts, true, &mut Silent).unwrap();
    for name in ["line.csv", "line.safetensors"] {
        assert!(read(&whole, name) == read(&parts, name), "{name}");
    }
    let table = String::from_utf8(read(&whole, "line.csv")).unwrap();
    assert!(table.starts_with("step,epoch,lr,loss,\"first, item\",grad_norm\n0,0,5.000000e-2,"), "{table}");
    assert_eq!(table.lines().count(), 36);
    assert!(!whole.join("line.state.safetensors").exists());
    // Finished, it trains nothing more.
    train(&whole, true, &mut StopAfter(0, 0)).unwrap();
}

/// The schedule ends with the last step, and until then everything goes as in a training that is longer.
#[test]
fn a_training_may_end_within_an_epoch() {
    let root = tempfile::tempdir().unwrap();
    let schedule = snn_core::LrSchedule::Cosine { floor: 0. };
    let cosine = TrainingConfig { schedule, max_steps: Some(8), ..config() };
    let rows = |name: &str, cfg: &TrainingConfig| {
        train_as(cfg, &root.path().join(name), false, &mut Silent).unwrap();
        let table = String::from_utf8(read(&root.path().join(name), "line.csv")).unwrap();
        table.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let (all, first) =
        (rows("all", &config()), rows("first", &TrainingConfig { max_steps: Some(8), ..config() }));
    assert_eq!((all.len(), &all[..8]), (35, &first[..]));
    assert_eq!(rows("most", &TrainingConfig { max_steps: Some(99), ..config() }), all);
    let short = rows("short", &cosine);
    let rate = |row: &String| row.split(',').nth(2).unwrap().parse::<f64>().unwrap();
    let expected = |step: usize| 0.05 * cosine.rate(step, 8);
    assert!(
        short.iter().enumerate().all(|(step, row)| (rate(row) - expected(step)).abs() < 1e-7),
        "{short:?}"
    );
    // A config that does not say so is written as before.
    assert!(!serde_json::to_string(&config()).unwrap().contains("max_steps"));
}

/// The average of all 35 steps, recomputed from the parameters that each step saw.
#[test]
fn an_average_is_what_remains_and_survives_a_stop() {
    let root = tempfile::tempdir().unwrap();
    let cfg =
        TrainingConfig { average: Some(AveragingConfig { decay: 0.9, every: 2 }), warm_up: 4, ..config() };
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    train_as(&cfg, &whole, false, &mut Silent).unwrap();
    stopped_at(train_as(&cfg, &parts, false, &mut StopAfter(7, 0)), 7);
    stopped_at(train_as(&cfg, &parts, true, &mut StopAfter(20, 0)), 20);
    train_as(&cfg, &parts, true, &mut Silent).unwrap();
    for name in ["line.csv", "line.safetensors"] {
        assert!(read(&whole, name) == read(&parts, name), "{name}");
    }

    let plain = TrainingConfig { average: None, ..cfg };
    let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
    let line = Line::build(&(), params.builder()).unwrap();
    let mut seen = Vec::new();
    let value = |line: &Line| line.slope.to_vec1::<f32>().unwrap()[0];
    Trainer::new("line", &plain, &params, 22, Seed(3))
        .train(&mut Silent, |batch: Batch<'_>| -> Result<StepLoss> {
            seen.push(value(&line));
            Ok(line.loss(batch.items)?.into())
        })
        .unwrap();
    let mut average = f64::from(seen[0]);
    for (update, &slope) in seen[2..].iter().step_by(2).enumerate() {
        let kept = f64::min(0.9 * 0.9, (1. + update as f64) / (10. + update as f64));
        average = kept * average + (1. - kept) * f64::from(slope);
    }
    let (found, averaged) = (ParamStore::new(Seed(0), DType::F32, &Device::Cpu), "line.safetensors");
    let trained = Line::build(&(), found.builder()).unwrap();
    let file = snn_core::Checkpoint::load(&whole.join(averaged), "line", &Device::Cpu).unwrap();
    found.restore(&file, "").unwrap();
    assert!((f64::from(value(&trained)) - average).abs() < 1e-6, "{} {average}", value(&trained));
    assert!((f64::from(value(&line)) - average).abs() > 1e-4, "the average is not the last value");
    // A quarter, a half, ... of the rate.
    let table = String::from_utf8(read(&whole, "line.csv")).unwrap();
    let rates: Vec<f64> =
        table.lines().skip(1).take(6).map(|row| row.split(',').nth(2).unwrap().parse().unwrap()).collect();
    assert_eq!(rates, [0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05]);
}

/// `slope` times one and `offset` times one, as matrices that Muon takes.
#[test]
fn muon_moves_what_it_is_given_and_survives_a_stop() {
    let root = tempfile::tempdir().unwrap();
    let muon = MuonConfig { parameters: vec!["hidden.".into()], ..MuonConfig::default() };
    let cfg = TrainingConfig { muon: Some(muon.clone()), ..config() };
    let run = |name: &str, resume, progress: &mut dyn Progress| -> Result<Vec<f32>> {
        let run = RunDir::open(&root.path().join(name), &cfg, resume)?;
        let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
        let (vb, init) = (params.builder(), Init::Randn { mean: 0., stdev: 1. });
        let hidden = vb.get_with_hints((2, 3), "hidden.weight", init)?;
        let (bias, head) =
            (vb.get_with_hints(3, "hidden.bias", init)?, vb.get_with_hints((3, 1), "head", init)?);
        Trainer::new("net", &cfg, &params, 22, Seed(3)).in_run(&run).train(
            progress,
            |batch| -> Result<_> {
                let xs = Tensor::new(batch.items, &Device::Cpu)?.to_dtype(DType::F32)?.affine(0.1, -1.)?;
                let xs = Tensor::stack(&[xs.sqr()?, xs], 1)?;
                let guess = xs.matmul(&hidden)?.broadcast_add(&bias)?.tanh()?.matmul(&head)?;
                Ok((guess - xs.sum_keepdim(1)?)?.sqr()?.mean_all()?.into())
            },
        )?;
        Ok(Tensor::cat(&[hidden.flatten_all()?, bias, head.flatten_all()?], 0)?.to_vec1()?)
    };
    let whole = run("whole", false, &mut Silent).unwrap();
    run("parts", false, &mut StopAfter(13, 0)).unwrap_err();
    assert_eq!(run("parts", true, &mut Silent).unwrap(), whole);

    let table = String::from_utf8(read(&root.path().join("whole"), "net.csv")).unwrap();
    let loss = |row: Option<&str>| row.unwrap().split(',').nth(3).unwrap().parse::<f64>().unwrap();
    assert!(loss(table.lines().last()) < 0.3 * loss(table.lines().nth(1)), "{table}");

    let other =
        TrainingConfig { muon: Some(MuonConfig { parameters: vec!["slope".into()], ..muon }), ..config() };
    // Where nothing is for Muon, AdamW moves all, and that is said.
    let (line, plain, mut said) = (root.path().join("line"), root.path().join("plain"), Said(Vec::new()));
    train_as(&other, &line, false, &mut said).unwrap();
    assert!(
        said.0.len() == 1 && said.0[0].contains("Muon none") && said.0[0].contains("slope"),
        "{:?}",
        said.0
    );
    train(&plain, false, &mut Silent).unwrap();
    assert!(read(&line, "line.csv") == read(&plain, "line.csv"));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    train(&whole, false, &mut Silent).unwrap();
    stopped_at(train(&parts, false, &mut StopAfter(13, 0)), 13);
    let last = parts.join("line.state.safetensors");
    let mut bytes = std::fs::read(&last).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    std::fs::write(&last, &bytes).unwrap();
    let mut said = Said(Vec::new());
    train(&parts, true, &mut said).unwrap();
    assert!(said.0[0].contains("SHA-256") && said.0[0].contains("at step 10"), "{:?}", said.0);
    assert!(read(&whole, "line.safetensors") == read(&parts, "line.safetensors"));
}

#[test]
fn what_is_not_finite_stops_and_names_the_last_good_state() {
    let root = tempfile::tempdir().unwrap();
    let cfg = config();
    let run = RunDir::open(root.path(), &cfg, false).unwrap();
    let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
    let line = Line::build(&(), params.builder()).unwrap();
    let trainer = Trainer::new("line", &cfg, &params, 22, Seed(3)).in_run(&run);
    let result = trainer.train(&mut Silent, |batch: Batch<'_>| -> Result<StepLoss> {
        let loss = line.loss(batch.items)?;
        Ok(if batch.step == 8 { (loss * f64::NAN)? } else { loss }.into())
    });
    rejects(result, &["line: the loss of step 8 is NaN", "line.state.safetensors still holds"]);
}

#[test]
fn a_training_in_memory_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    train(root.path(), false, &mut Silent).unwrap();
    let (cfg, params) = (config(), ParamStore::new(Seed(3), DType::F32, &Device::Cpu));
    let line = Line::build(&(), params.builder()).unwrap();
    let trainer = Trainer::new("line", &cfg, &params, 22, Seed(3));
    let step = |batch: Batch<'_>| -> Result<StepLoss> { Ok(line.loss(batch.items)?.into()) };
    trainer.train(&mut Silent, step).unwrap();
    let file = root.path().join("again.safetensors");
    line.checkpoint(&params).unwrap().save(&file).unwrap();
    assert!(read(root.path(), "line.safetensors") == read(root.path(), "again.safetensors"));
    rejects(trainer.train_model(&line, &mut Silent, step), &["`run` = line", "in_run"]);
}

#[test]
fn another_models_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    RunDir::open(root.path(), &config(), false).unwrap();
    let other = snn_core::Checkpoint::new("circle", &()).unwrap();
    other.save(&root.path().join("line.safetensors")).unwrap();
    rejects(train(root.path(), true, &mut Silent), &["line.safetensors", "holds a `circle`, not a `line`"]);
}

/// Its batches would be others than those of any training that was never stopped, or its table one of two.
#[test]
fn a_training_goes_on_with_its_own_items_seed_and_columns_alone() {
    let root = tempfile::tempdir().unwrap();
    let go_on = |items, seed, columns: &[&str], returned: usize| {
        let (cfg, resume) = (config(), root.path().join("config.json").exists());
        let run = RunDir::open(root.path(), &cfg, resume)?;
        let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
        let line = Line::build(&(), params.builder())?;
        let trainer = Trainer::new("line", &cfg, &params, items, Seed(seed)).columns(columns).in_run(&run);
        trainer.train_model(&line, &mut StopAfter(3, 0), |batch: Batch<'_>| -> Result<StepLoss> {
            let columns = vec![Tensor::new(batch.items[0], &Device::Cpu)?; returned];
            Ok(StepLoss { loss: line.loss(batch.items)?, columns })
        })
    };
    rejects(go_on(22, 3, &["item"], 2), &["`columns` = 2", "the table has [\"item\"]"]);
    stopped_at(go_on(22, 3, &["item"], 1), 3);
    let state = "line.state.safetensors";
    rejects(go_on(21, 3, &["item"], 1), &[state, "22 items in the order of seed 3", "21 items"]);
    rejects(go_on(22, 4, &["item"], 1), &[state, "not on 22 items in the order of seed 4"]);
    rejects(go_on(22, 3, &["other"], 1), &["line.csv", "`step,epoch,lr,loss,item,grad_norm`", "other"]);
    go_on(22, 3, &["item"], 1).unwrap();
}

#[test]
fn configs_that_make_no_sense_are_refused_by_field() {
    let with = |change: &dyn Fn(&mut TrainingConfig)| {
        let mut cfg = config();
        change(&mut cfg);
        cfg.validate()
    };
    with(&|_| ()).unwrap();
    rejects(with(&|cfg| cfg.epochs = 0), &["`epochs` = 0"]);
    rejects(with(&|cfg| cfg.max_steps = Some(0)), &["`max_steps` = 0"]);
    rejects(with(&|cfg| cfg.batch_size = 0), &["`batch_size` = 0"]);
    with(&|cfg| cfg.batch_size = 1).unwrap();
    rejects(with(&|cfg| cfg.checkpoint_every = 0), &["`checkpoint_every` = 0"]);
    rejects(with(&|cfg| cfg.clip = Some(0.)), &["`clip` = 0"]);
    let average = |decay, every| Some(AveragingConfig { decay, every });
    rejects(with(&|cfg| cfg.average = average(1., 1)), &["`average.decay` = 1", "[0, 1)"]);
    rejects(with(&|cfg| cfg.average = average(0.9, 0)), &["`average.every` = 0"]);
    rejects(with(&|cfg| cfg.schedule = snn_core::LrSchedule::Cosine { floor: 2. }), &["floor", "2"]);
    rejects(with(&|cfg| cfg.adamw.lr = f64::NAN), &["adamw.lr", "NaN"]);
    rejects(with(&|cfg| cfg.adamw.weight_decay = 30.), &["adamw.weight_decay", "30", "1 / lr"]);
    let fast = |cfg: &mut TrainingConfig| {
        (cfg.adamw.lr, cfg.adamw.weight_decay) = (0.01, 20.);
        cfg.rates = [("head.".to_owned(), 10.)].into();
    };
    rejects(with(&fast), &["adamw.weight_decay", "20", "`rates` above 1"]);
    // Rates of prefixes that never meet do not multiply.
    let decay = |names: [&str; 2]| {
        with(&|cfg: &mut TrainingConfig| {
            (cfg.adamw.lr, cfg.adamw.weight_decay) = (0.1, 0.5);
            cfg.rates = names.map(|name| (name.to_owned(), 10.)).into();
        })
    };
    decay(["encoder.", "decoder."]).unwrap();
    rejects(decay(["encoder.", "encoder.0."]), &["adamw.weight_decay", "0.5", "= 0.1"]);
    let bounded = TrainingConfig { epochs: usize::MAX, max_steps: Some(9), ..config() };
    assert_eq!(bounded.steps(8).unwrap(), 9);
    rejects(config().steps(3), &["batch_size", "only 3"]);
    rejects(TrainingConfig { epochs: usize::MAX, ..config() }.steps(8), &["epochs", "2^31"]);
}

/// The first step, where the gradients are the same: each parameter moves as it would were its rate that of all.
#[test]
fn parameters_may_have_a_rate_of_their_own() {
    let moved = |lr: f64, rates: &[(&str, f64)]| {
        let mut cfg = TrainingConfig { batch_size: 4, ..TrainingConfig::new(1) };
        (cfg.adamw.lr, cfg.adamw.weight_decay) = (lr, 0.5);
        cfg.rates = rates.iter().map(|(name, factor)| ((*name).to_owned(), *factor)).collect();
        let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
        let line = Line::build(&(), params.builder()).unwrap();
        let trainer = Trainer::new("line", &cfg, &params, 4, Seed(3));
        trainer
            .train(&mut Silent, |batch| -> Result<StepLoss> { Ok(line.loss(batch.items)?.into()) })
            .unwrap();
        [&line.slope, &line.offset].map(|x| x.to_vec1::<f32>().unwrap()[0])
    };
    let ([slope, offset], [fast, faster]) = (moved(0.125, &[]), moved(0.5, &[]));
    assert!(slope != fast && offset != faster);
    assert_eq!(moved(0.125, &[("slo", 4.)]), [fast, offset]);
    assert_eq!(moved(0.125, &[("slope", 2.), ("", 2.)])[0], fast);
    let wrong = TrainingConfig { rates: [("slope".to_owned(), f64::NAN)].into(), ..config() };
    rejects(wrong.validate(), &["rates.slope", "NaN"]);
}
