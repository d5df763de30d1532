//! Trainings of so many minutes.

use candle_core::Device;
use snn_train::TrainingConfig;
use spiking_diffusion::data::Dataset;
use spiking_diffusion::{ExperimentConfig, ModelName, Progress, Silent};

use crate::models::tiny_of;
use crate::{example, few_digits, rejects};

/// Of each stage that the model has.
fn trainings(cfg: &ExperimentConfig) -> Vec<TrainingConfig> {
    match &cfg.vae {
        Some(vae) => vec![vae.training.clone()],
        None => vec![cfg.vqsvae_training.clone(), cfg.sdid_training.clone()],
    }
}

fn within(
    cfg: &ExperimentConfig,
    minutes: f64,
    data: &Dataset,
) -> spiking_diffusion::Result<ExperimentConfig> {
    cfg.clone().within_minutes(minutes, data, &Device::Cpu, &mut Silent)
}

#[test]
fn a_time_sets_the_steps_of_each_network_and_nothing_else() {
    let data = few_digits();
    for model in [ModelName::SpikingDiffusion, ModelName::Fsvae, ModelName::AnnTwin] {
        let cfg = tiny_of(model, &data);
        let long = within(&cfg, 60., &data).unwrap();
        let mut again = long.clone();
        for (training, before) in trainings(&long).into_iter().zip(trainings(&cfg)) {
            let (items, steps) = (data.train.len(), training.max_steps.unwrap());
            // An hour is enough for many steps of so small a network, on any machine.
            assert!(steps > 100, "{model:?}: {steps} steps");
            assert_eq!(training.epochs, steps.div_ceil(items / training.batch_size), "{model:?}");
            assert_eq!(training.steps(items).unwrap(), steps);
            assert_eq!(TrainingConfig { epochs: before.epochs, max_steps: None, ..training }, before);
        }
        match &mut again.vae {
            Some(vae) => vae.training = cfg.vae.as_ref().unwrap().training.clone(),
            None => {
                (again.vqsvae_training, again.sdid_training) =
                    (cfg.vqsvae_training.clone(), cfg.sdid_training.clone());
            }
        }
        assert_eq!(again, cfg);
        // However short the time, there is a step.
        assert!(
            trainings(&within(&cfg, 1e-9, &data).unwrap())
                .iter()
                .all(|training| training.max_steps == Some(1))
        );
    }
}

#[test]
fn no_time_is_refused_and_a_stop_is_heard() {
    struct Stop;
    impl Progress for Stop {
        fn stop_requested(&self) -> bool {
            true
        }
    }
    let data = few_digits();
    let cfg = tiny_of(ModelName::SpikingDiffusion, &data);
    for minutes in [0., -1., f64::NAN, f64::INFINITY] {
        rejects(within(&cfg, minutes, &data), &["`minutes`", "positive and finite"]);
    }
    let stopped = cfg.within_minutes(1., &data, &Device::Cpu, &mut Stop).unwrap_err().to_string();
    assert!(stopped.contains("stopped"), "{stopped}");
}

#[test]
fn a_run_keeps_the_steps_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut command = example("mnist")?;
        command.current_dir(&folder).args([
            "--limit",
            "64",
            "--samples",
            "2",
            "--distance-images",
            "0",
            "--out",
            "run",
        ]);
        command.args(["--set", "sdid.channels=[8,8]", "--set", "evaluation.bound_images=8"]);
        let output = command.args(more).output().unwrap();
        Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let config = || std::fs::read(folder.path().join("run/config.json")).unwrap();
    let Some((code, said)) = run(&["--minutes", "0.001"]) else { return };
    assert!(
        code == Some(0) && said.contains("0.001 minutes are") && said.contains("steps of `sdid_training`"),
        "{said}"
    );
    let before = config();
    let (code, said) = run(&["--minutes", "0.001", "--resume"]).unwrap();
    assert!(code == Some(0) && !said.contains("timing"), "{said}");
    assert_eq!(config(), before);
    for flag in ["--epochs-vqsvae", "--epochs-sdid"] {
        let (code, said) = run(&["--minutes", "1", flag, "2"]).unwrap();
        assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
    }
    let (code, said) = run(&["--minutes", "1"]).unwrap();
    assert!(code == Some(1) && said.contains("already holds a run") && !said.contains("timing"), "{said}");
    assert_eq!(config(), before);
}

#[test]
fn files_that_are_not_there_are_missed_before_steps_are_timed() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--inception", "--fad"] {
        let Some(mut command) = example("mnist") else { return };
        command.current_dir(&folder).args(["--limit", "64", "--minutes", "1", flag, "none.pth"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let missed = output.status.code() == Some(1) && said.contains("none.pth");
        assert!(missed && !said.contains("timing"), "{said}");
    }
}
