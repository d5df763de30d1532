//! Whole runs over workers that are threads: the same files with any number of them.

use std::path::Path;

use candle_core::Device;
use spiking_diffusion::generation::{self, Formats};
use spiking_diffusion::snn_train::{Alone, Collective, in_threads};
use spiking_diffusion::{Experiment, ExperimentConfig, Features, Report, Result, Silent, Trained};

use crate::{assert_same_bytes, few_digits, rejects, tiny};

fn config(shards: &str) -> ExperimentConfig {
    let cfg = tiny(&few_digits()).with("vqsvae_training.shards", shards).unwrap();
    let cfg = cfg.with("sdid_training.shards", shards).unwrap();
    let cfg = cfg.with("evaluation.batch_size", "10").unwrap().with("sampling.batch_size", "2").unwrap();
    cfg.with("evaluation.distance_images", "9").unwrap()
}

fn run(workers: &dyn Collective, cfg: &ExperimentConfig, out: &Path) -> Result<Option<Report>> {
    let data = few_digits();
    let experiment = Experiment::new(cfg, &data).out(out).resume(true).features(Features::Classifier);
    experiment.run_over(workers, &mut Silent)
}

#[test]
fn any_number_of_workers_leaves_the_same_run() {
    let root = tempfile::tempdir().unwrap();
    // With classes, which worker 0 finds, and which are dropped at random.
    let cfg = config("4").with("sdid.classes", "10").unwrap().with("classes_from", "clusters").unwrap();
    let one = root.path().join("one");
    let wanted = run(&Alone, &cfg, &one).unwrap().unwrap();
    for count in [2, 3] {
        let folder = root.path().join(count.to_string());
        let mut reports = in_threads(count, |workers| run(workers, &cfg, &folder).unwrap()).into_iter();
        let report = reports.next().unwrap().unwrap();
        assert!(reports.all(|report| report.is_none()));
        assert_same_bytes(&one, &folder);
        assert_eq!((report.metrics, report.energy), (wanted.metrics.clone(), wanted.energy.clone()));
        // Only what the last stages leave is made again.
        std::fs::remove_file(folder.join("sdid.safetensors")).unwrap();
        in_threads(2, |workers| run(workers, &cfg, &folder).map(drop).unwrap());
        assert_same_bytes(&one, &folder);
    }
    let images = |count: usize| {
        let folder = root.path().join(format!("images-{count}"));
        let formats = Formats { png: false, safetensors: true };
        in_threads(count, |workers| {
            let trained = Trained::load(&one, &Device::Cpu).unwrap();
            let saved =
                generation::save_over(workers, &trained, 7, &folder, formats, &Device::Cpu, &mut Silent);
            assert_eq!(saved.unwrap().map(|saved| saved.drawn), (workers.rank() == 0).then_some(7));
        });
        std::fs::read(folder.join("images-0000.safetensors")).unwrap()
    };
    assert!(images(1) == images(3));
}

#[test]
fn workers_that_do_not_fit_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let refused = in_threads(3, |workers| run(workers, &config("2"), root.path()).map(drop));
    for refused in refused {
        rejects(refused, &["`vqsvae_training.shards` = 2", "each of the 3 workers needs one"]);
    }
    let mut found = in_threads(2, |workers| {
        let seed = if workers.rank() == 0 { "0.5" } else { "0.25" };
        run(workers, &config("2").with("vqsvae.beta", seed).unwrap(), root.path()).map(drop)
    });
    rejects(found.remove(1), &["worker 1 of 2", "`vqsvae.beta` is 0.5 in worker 0 and 0.25 here"]);
    rejects(found.remove(0), &["worker 0 of 2", "worker 1 has ended"]);
    assert!(!root.path().join("config.json").exists());
}
