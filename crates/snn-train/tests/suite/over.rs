//! Trainings over workers that are threads: the same bytes with any number of them.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use snn_core::{
    AveragingConfig, LifConfig, Model, MuonConfig, ParamStore, Readout, ReadoutLayer, Seed, SpikingLayer,
    VarBuilder,
};
use snn_train::{
    Alone, Batch, Collective, Error, Progress, Result, RunDir, Silent, StepLoss, Trainer, TrainingConfig,
    in_threads,
};

use crate::{StopAfter, read, rejects};

/// A spiking layer with batch norm, and a read-out.
struct Net {
    width: usize,
    hidden: SpikingLayer,
    head: ReadoutLayer,
}

impl Model for Net {
    const KIND: &'static str = "net";
    type Config = usize;
    type Error = snn_core::Error;

    fn build(&width: &usize, vb: VarBuilder<'_>) -> snn_core::Result<Self> {
        Ok(Self {
            width,
            hidden: SpikingLayer::linear(3, width, LifConfig::default(), vb.pp("hidden"))?,
            head: ReadoutLayer::linear(width, 1, Readout::Mean, vb.pp("head"))?,
        })
    }

    fn config(&self) -> &usize {
        &self.width
    }
}

/// Gradients that go up a tree whole, and such that are summed in pieces.
const FEW: usize = 16;
const MANY: usize = 1_600;

impl Net {
    /// To learn the first of three numbers.
    fn loss(&self, items: &[u32]) -> Result<Tensor> {
        let xs = Seed(5).normal("items", (40, 3), (0., 1.), DType::F32, &Device::Cpu)?;
        let xs = xs.index_select(&Tensor::new(items, &Device::Cpu)?, 0)?;
        let found = self.head.forward(&self.hidden.forward_constant(&xs, 4, true)?)?.squeeze(1)?;
        Ok((found - xs.narrow(1, 0, 1)?.squeeze(1)?)?.sqr()?.mean_all()?)
    }
}

fn config(shards: Option<usize>) -> TrainingConfig {
    let average = Some(AveragingConfig { decay: 0.9, every: 2 });
    let muon = Some(MuonConfig { parameters: vec!["hidden.".to_owned()], ..MuonConfig::default() });
    let cfg = TrainingConfig::new(4);
    let mut cfg = TrainingConfig { batch_size: 12, checkpoint_every: 4, average, muon, shards, ..cfg };
    cfg.adamw.lr = 0.02;
    cfg
}

/// Trains as one worker of several; the first has the folder. Returns the parameters.
fn train(
    workers: &dyn Collective,
    (width, cfg): (usize, &TrainingConfig),
    folder: &Path,
    resume: bool,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>> {
    let run = (workers.rank() == 0).then(|| RunDir::open(folder, cfg, resume)).transpose()?;
    // Worker 0 tells the others what it begins with.
    let params = ParamStore::new(Seed(workers.rank() as u64), DType::F32, &Device::Cpu);
    let net = Net::build(&width, params.builder())?;
    let trainer = Trainer::new("net", cfg, &params, 40, Seed(3)).columns(&["items"]);
    let trainer = run.iter().fold(trainer, |trainer, run| trainer.in_run(run));
    let step = |batch: Batch<'_>| -> Result<StepLoss> {
        let (first, whole) = (batch.first, batch.whole);
        assert!(whole == 12 && first.is_multiple_of(batch.items.len()) && first < 12);
        Ok(StepLoss {
            loss: net.loss(batch.items)?,
            columns: vec![Tensor::new(batch.items.len() as f64, &Device::Cpu)?],
        })
    };
    trainer.train_model_over(workers, &net, progress, |_| Ok(()), step)?;
    let mut checkpoint = net.checkpoint(&params)?;
    checkpoint.kind = "net".to_owned();
    Ok(checkpoint.to_bytes()?)
}

const FILES: [&str; 2] = ["net.safetensors", "net.csv"];

#[test]
fn any_number_of_workers_leaves_the_same_bytes() {
    let (root, cfg) = (tempfile::tempdir().unwrap(), config(Some(6)));
    for (width, count) in [FEW, MANY].into_iter().flat_map(|width| (1..=6).map(move |count| (width, count))) {
        let (one, job) = (root.path().join(format!("{width} by one")), (width, &cfg));
        train(&Alone, job, &one, true, &mut Silent).unwrap();
        let folder = root.path().join(format!("{width} by {count}"));
        let all = in_threads(count, |workers| train(workers, job, &folder, false, &mut Silent).unwrap());
        for name in FILES {
            assert!(read(&folder, name) == read(&one, name), "{count} workers, {width}, {name}");
        }
        assert!(all.iter().all(|found| *found == read(&one, "net.safetensors")), "{count} workers");
        // Finished, it trains nothing more, and all get what there is.
        let again = in_threads(count, |workers| train(workers, job, &folder, true, &mut Silent).unwrap());
        assert!(again == all);
    }
}

#[test]
fn what_some_workers_began_others_end() {
    let root = tempfile::tempdir().unwrap();
    let (one, parts, cfg) = (root.path().join("one"), root.path().join("parts"), config(Some(6)));
    train(&Alone, (FEW, &cfg), &one, false, &mut Silent).unwrap();
    for (count, steps) in [(2, 3), (3, 7), (1, 9)] {
        let stopped = in_threads(count, |workers| {
            // The last worker asks, and all stop.
            let mut asks = StopAfter(steps - 1, 0);
            let mut silent = Silent;
            let last = workers.rank() + 1 == count;
            train(workers, (FEW, &cfg), &parts, true, if last { &mut asks } else { &mut silent }).map(drop)
        });
        for stopped in stopped {
            assert!(matches!(stopped, Err(Error::Stopped { done, .. }) if done == steps), "{stopped:?}");
        }
    }
    in_threads(5, |workers| train(workers, (FEW, &cfg), &parts, true, &mut Silent).unwrap());
    for name in FILES {
        assert!(read(&parts, name) == read(&one, name), "{name}");
    }
}

/// The same batches, losses and gradients, but for rounding.
#[test]
fn shards_train_as_the_whole_batch_does() {
    let root = tempfile::tempdir().unwrap();
    let losses = |name: &str, cfg: &TrainingConfig| -> Vec<f64> {
        let folder = root.path().join(name);
        train(&Alone, (FEW, cfg), &folder, false, &mut Silent).unwrap();
        let table = String::from_utf8(read(&folder, "net.csv")).unwrap();
        table.lines().skip(1).map(|row| row.split(',').nth(3).unwrap().parse().unwrap()).collect()
    };
    let (whole, cut) = (losses("whole", &config(None)), losses("cut", &config(Some(4))));
    assert_eq!(whole.len(), 12);
    assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-4 * a), "{whole:?} {cut:?}");
    assert!(root.path().join("whole/config.json").exists());
    let written = |name: &str| String::from_utf8(read(&root.path().join(name), "config.json")).unwrap();
    assert!(!written("whole").contains("shards") && written("cut").contains("\"shards\": 4"));
}

#[test]
fn what_cannot_work_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let with = |shards| config(shards).validate();
    with(Some(1)).unwrap();
    with(Some(12)).unwrap();
    rejects(with(Some(0)), &["`shards` = 0"]);
    rejects(with(Some(5)), &["`shards` = 5", "must divide the batch size, 12"]);
    let cfg = config(Some(2));
    let all = in_threads(3, |workers| train(workers, (FEW, &cfg), root.path(), false, &mut Silent).map(drop));
    for refused in all {
        rejects(refused, &["`shards` = 2", "each of the 3 workers needs one"]);
    }
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let net = Net::build(&FEW, params.builder()).unwrap();
    let step = |batch: Batch<'_>| -> Result<StepLoss> { Ok(net.loss(batch.items)?.into()) };
    let plain = Trainer::new("net", &cfg, &params, 40, Seed(3)).train(&mut Silent, step);
    rejects(plain, &["`shards` = 2", "train_over"]);
}

/// A shard that fails, a worker that has gone, and shards that do not run alike: nobody waits for ever.
#[test]
fn one_that_fails_fails_all() {
    let cfg = config(Some(6));
    let run = |workers: &dyn Collective, fails: &(dyn Fn(usize, usize) -> bool + Sync)| {
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let net = Net::build(&FEW, params.builder())?;
        let step = |batch: Batch<'_>| -> Result<StepLoss> {
            if fails(batch.step, batch.first) {
                return Err(Error::config("shard", batch.first, "fails"));
            }
            Ok(net.loss(batch.items)?.into())
        };
        let trainer = Trainer::new("net", &cfg, &params, 40, Seed(3));
        trainer.train_over(workers, &mut Silent, |_| Ok(()), step)
    };
    for count in [1, 2, 3] {
        let found = in_threads(count, |workers| run(workers, &|step, first| (step, first) == (2, 4)));
        let failed = found.iter().filter(|found| {
            let message = found.as_ref().err().map(ToString::to_string);
            message.is_some_and(|message| message.contains("`shard` = 4: fails"))
        });
        assert_eq!(
            (failed.count(), found.iter().filter(|found| found.is_err()).count()),
            (1, count),
            "{found:?}"
        );
    }
    let uneven = run(&Alone, &|_, _| false);
    uneven.unwrap();
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let net = Net::build(&FEW, params.builder()).unwrap();
    let step = |batch: Batch<'_>| -> Result<StepLoss> {
        let loss = net.loss(batch.items)?;
        Ok(if batch.first == 2 { (loss + net.loss(batch.items)?)?.into() } else { loss.into() })
    };
    let trainer = Trainer::new("net", &cfg, &params, 40, Seed(3));
    rejects(trainer.train_over(&Alone, &mut Silent, |_| Ok(()), step), &["shards", "exchange"]);
}
