//! A run of every model: stopped and resumed to the same bytes, reported, generated from, and what each refuses.

use std::cell::Cell;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::generation::{self, Formats, Saved};
use spiking_diffusion::vq_svae::ImageSpec;
use spiking_diffusion::{
    Experiment, ExperimentConfig, Features, ModelName, Preset, Progress, Report, Silent, Trained, TrainedVae,
    VaeNetwork, pack, pytorch,
};

use crate::{few_digits, rejects, tiny};

const BASELINES: [ModelName; 5] =
    [ModelName::Fsvae, ModelName::FsvaeOriginal, ModelName::Esvae, ModelName::Ann, ModelName::AnnTwin];

/// A run of ten steps a stage and a checkpoint every third, of any model.
pub(crate) fn tiny_of(model: ModelName, data: &Dataset) -> ExperimentConfig {
    let small = tiny(data);
    let mut cfg = ExperimentConfig::for_model(model, Preset::Quick, data).unwrap();
    (cfg.samples, cfg.evaluation.bound_images) = (small.samples, small.evaluation.bound_images);
    cfg.evaluation.distance_images = 20;
    let [encoder, decoder] = [small.vqsvae.encoder_channels, small.vqsvae.decoder_channels];
    (cfg.vqsvae.encoder_channels, cfg.vqsvae.decoder_channels) = (encoder, decoder);
    cfg.sdid.channels = small.sdid.channels;
    let mut trainings = vec![&mut cfg.vqsvae_training, &mut cfg.sdid_training];
    if let Some(vae) = &mut cfg.vae {
        let body = match &mut vae.network {
            VaeNetwork::Fsvae(cfg) => {
                (cfg.candidates, cfg.hidden) = (4, vec![8, 12]);
                if let Some(scheduled) = &mut cfg.scheduled {
                    (scheduled.first_step, scheduled.start) = (1, 0.5);
                }
                &mut cfg.body
            }
            VaeNetwork::Esvae(cfg) => &mut cfg.body,
            _ => panic!("a network more"),
        };
        (body.time_steps, body.latent) = (3, 8);
        for channels in body.encoder.iter_mut().chain(&mut body.decoder) {
            *channels = 8;
        }
        trainings.push(&mut vae.training);
    }
    for training in trainings {
        (training.epochs, training.batch_size, training.checkpoint_every) = (2, 32, 3);
    }
    cfg
}

fn run(
    cfg: &ExperimentConfig,
    out: &Path,
    resume: bool,
    progress: &mut dyn Progress,
) -> Result<Report, String> {
    let data = few_digits();
    Experiment::new(cfg, &data).out(out).resume(resume).run(progress).map_err(|e| e.to_string())
}

/// Asks to stop after so many steps of anything.
pub(crate) struct StopAfter(pub(crate) Cell<usize>);

impl Progress for StopAfter {
    fn advance(&mut self, _done: usize, _loss: Option<f64>) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn stop_requested(&self) -> bool {
        self.0.get() == 0
    }
}

/// Every file whose bytes follow from the seed, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| !name.starts_with("report.") && name != "timing.json" && name != ".lock")
        .collect();
    files.sort();
    files
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_run_of_every_model_stopped_and_resumed_ends_with_the_same_bytes() {
    for model in BASELINES {
        let (cfg, folder) = (tiny_of(model, &few_digits()), tempfile::tempdir().unwrap());
        let report = run_and_resume(&cfg, folder.path());
        check_report(model, &cfg, &report);
        check_folder(model, &folder.path().join("whole"));
    }
}

/// A run into `whole`, and one into `parts` that is stopped and resumed, whose bytes must be the same.
fn run_and_resume(cfg: &ExperimentConfig, folder: &Path) -> Report {
    let (model, whole, parts) = (cfg.model, folder.join("whole"), folder.join("parts"));
    let report = run(cfg, &whole, false, &mut Silent).unwrap();
    let mut sessions = 0;
    while let Err(message) = run(cfg, &parts, true, &mut StopAfter(Cell::new(4))) {
        assert!(message.contains("stopped"), "{model:?}: {message}");
        sessions += 1;
        assert!(sessions < 60, "{model:?} never ends");
        if sessions > 3 {
            run(cfg, &parts, true, &mut Silent).unwrap();
            break;
        }
    }
    assert!(sessions >= 3, "{model:?} was stopped {sessions} times");
    let (whole_files, part_files) = (files(&whole), files(&parts));
    assert_eq!(names(&whole), names(&parts), "{model:?}");
    for ((name, a), (_, b)) in whole_files.into_iter().zip(part_files) {
        assert!(a == b, "{model:?}: {name} differs");
    }
    report
}

#[test]
fn a_run_on_flipped_images_stopped_and_resumed_ends_with_the_same_bytes() {
    let (mut cfg, folder) = (tiny_of(ModelName::Esvae, &few_digits()), tempfile::tempdir().unwrap());
    cfg.evaluation.distance_images = 0;
    let network = |name: &str| std::fs::read(folder.path().join(name).join("esvae.safetensors")).unwrap();
    run(&cfg, &folder.path().join("as-they-are"), false, &mut Silent).unwrap();
    cfg.vae.as_mut().unwrap().flip = Some(0.5);
    run_and_resume(&cfg, folder.path());
    assert!(network("whole") != network("as-they-are"), "no image was flipped");
}

/// As the FSVAE's and the ESVAE's authors do, and with no other data or model, whose configs say nothing of it.
#[test]
fn only_cifar_10_is_flipped_and_only_by_two_models() {
    let pixels = |n: usize| (0..n * 3072).map(|i| (i % 251) as u8).collect();
    let some = |n: usize| Split::new(pixels(n), vec![0; n], (3, 32, 32)).unwrap();
    for name in ["cifar-10", "colours"] {
        let data = Dataset::new(name, some(4), some(2)).unwrap();
        for model in BASELINES {
            let cfg = ExperimentConfig::for_model(model, Preset::Quick, &data).unwrap();
            let flips = name == "cifar-10" && matches!(model, ModelName::FsvaeOriginal | ModelName::Esvae);
            assert_eq!(
                cfg.vae.as_ref().and_then(|vae| vae.flip),
                flips.then_some(0.5),
                "{model:?} on {name}"
            );
            assert_eq!(serde_json::to_string(&cfg).unwrap().contains("\"flip\""), flips);
        }
    }
    let data = Dataset::new("cifar-10", some(4), some(2)).unwrap();
    let cfg = ExperimentConfig::for_model(ModelName::Esvae, Preset::Quick, &data).unwrap();
    assert_eq!(cfg.with("vae.flip", "null").unwrap().vae.unwrap().flip, None);
    rejects(cfg.with("vae.flip", "1.5").unwrap().validate(), &["vae.flip", "1.5", "[0, 1]"]);
}

fn check_report(model: ModelName, cfg: &ExperimentConfig, report: &Report) {
    assert_eq!(report.model.as_deref(), Some(model.name()));
    assert!(report.metrics.mse > 0. && report.metrics.mse < 1., "{model:?}: {}", report.metrics.mse);
    assert!(report.neighbours.is_some());
    let energy = report.energy.as_ref().unwrap();
    let work: Vec<&str> = energy.work.iter().map(|line| line.name.as_str()).collect();
    if cfg.vae.is_some() {
        assert_eq!((report.epochs.vqsvae, report.epochs.sdid), (2., 0.));
        assert_eq!((report.metrics.bits_per_token_images, report.metrics.codebook_used), (0, 0));
        assert!(report.firing_rates.values().all(|rate| (0. ..=1.).contains(rate)));
        assert_eq!(work, ["reconstruct an image", "generate an image"]);
        let draws = energy.work[1].cost.dense_macs;
        assert!(draws > 0. && draws < energy.work[0].cost.dense_macs, "{model:?}");
        assert_eq!(report.protocol.contains("of 32 x 32"), model != ModelName::Fsvae);
    } else {
        assert_eq!((report.epochs.vqsvae, report.epochs.sdid), (2., 2.));
        assert!(report.metrics.bits_per_token_images > 0 && report.firing_rates.is_empty());
        // No spikes: every connection multiplies.
        assert!(energy.layers.iter().chain(&energy.work).all(|line| line.cost.accumulates == 0.));
        assert!(energy.work.iter().all(|line| line.cost.macs == line.cost.dense_macs && line.cost.macs > 0.));
        assert_eq!(
            energy.layers.iter().any(|line| line.name.contains("generator")),
            model == ModelName::AnnTwin
        );
    }
}

fn check_folder(model: ModelName, folder: &Path) {
    let found = names(folder);
    let has = |name: &str| found.iter().any(|found| found == name);
    let network = match model {
        ModelName::Fsvae | ModelName::FsvaeOriginal => "fsvae.safetensors",
        ModelName::Esvae => "esvae.safetensors",
        _ => "sdid.safetensors",
    };
    for name in [network, "samples.png", "reconstructions.png", "neighbours.png", "loss.png", "config.json"] {
        assert!(has(name), "{model:?}: no {name} in {found:?}");
    }
    let codes = matches!(model, ModelName::Ann | ModelName::AnnTwin);
    assert_eq!(
        (has("codes.safetensors"), has("unmasking.gif"), has("firing_rates.png")),
        (codes, codes, !codes)
    );
    let page = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(page.contains(&format!("# {} on few-digits", model.name())), "{page}");
    assert_eq!((page.contains("codebook.png"), page.contains("bits per token")), (codes, codes), "{page}");
    assert_eq!(page.contains("firing_rates.png"), !codes);
    for picture in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(!picture.ends_with(".png") || has(picture), "{model:?}: the page shows {picture}");
    }
}

fn load(folder: &Path) -> Tensor {
    let blocks =
        candle_core::safetensors::load(folder.join("images-0000.safetensors"), &Device::Cpu).unwrap();
    blocks["images"].clone()
}

#[test]
fn images_of_a_vae_depend_on_their_numbers_alone() {
    for model in [ModelName::Fsvae, ModelName::FsvaeOriginal, ModelName::Esvae] {
        let (mut cfg, folder) = (tiny_of(model, &few_digits()), tempfile::tempdir().unwrap());
        cfg.evaluation.distance_images = 0;
        // So long that running statistics are those of the network.
        cfg.vae.as_mut().unwrap().training.epochs = 12;
        let out = folder.path().join("run");
        run(&cfg, &out, false, &mut Silent).unwrap();
        let mut trained = TrainedVae::load(&out, &Device::Cpu).unwrap();
        let formats = Formats { png: true, safetensors: true };
        let save = |trained: &TrainedVae, count, to: &str| {
            generation::save(trained, count, &folder.path().join(to), formats, &Device::Cpu, &mut Silent)
        };
        assert_eq!(save(&trained, 5, "a").unwrap(), Saved { drawn: 5, present: 0 });
        assert_eq!(save(&trained, 5, "a").unwrap(), Saved { drawn: 0, present: 5 });
        trained.cfg.sampling.batch_size = 2;
        save(&trained, 5, "b").unwrap();
        let values = |images: &Tensor| images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let a = load(&folder.path().join("a"));
        assert_eq!(values(&a), values(&load(&folder.path().join("b"))), "{model:?}");
        let side = if model == ModelName::Fsvae { 28 } else { 32 };
        assert_eq!(a.dims(), [5, 1, side, side]);
        // Without a norm, a prior that has learned nothing is silent.
        let differ = values(&a.get(0).unwrap()) != values(&a.get(1).unwrap());
        assert!(differ || model == ModelName::Fsvae, "{model:?}");
        let samples = trained.samples(5, &Device::Cpu, &mut Silent).unwrap().to_dtype(DType::F32).unwrap();
        let clamped = (samples + 0.5).unwrap().clamp(0f32, 1f32).unwrap();
        assert_eq!(values(&clamped), values(&a));
        trained.cfg.seed = spiking_diffusion::snn_core::Seed(1);
        rejects(save(&trained, 5, "a"), &["`seed`", "another folder"]);
    }
}

#[test]
fn what_a_model_has_not_is_refused() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let fsvae = ExperimentConfig::for_model(ModelName::Fsvae, Preset::Quick, &data).unwrap();
    rejects(fsvae.with("sdid.classes", "10"), &["sdid.classes", "10", "`fsvae`", "no codes"]);
    rejects(fsvae.with("sampling.temperature", "1"), &["sampling.temperature", "`fsvae`"]);
    assert_eq!(fsvae.with("sampling.batch_size", "3").unwrap().sampling.batch_size, 3);
    rejects(fsvae.with("model", "esvae"), &["model", "--model"]);
    rejects(tiny(&data).with("vae.training.epochs", "1"), &["vae.training.epochs", "no such field"]);
    let unfit = |cfg: &ExperimentConfig| cfg.validate();
    rejects(unfit(&ExperimentConfig { vae: None, ..fsvae.clone() }), &["model", "fsvae", "needs `vae`"]);
    rejects(
        unfit(&ExperimentConfig { model: ModelName::Ann, ..fsvae.clone() }),
        &["model", "ann", "has no `vae`"],
    );
    let wrong = fsvae.with("vae.network.fsvae.candidates", "0").unwrap();
    rejects(unfit(&wrong), &["fsvae.candidates", "0", "at least 1"]);
    let wrong = fsvae.with("vae.training.rates", "{\"prior.\": -1}").unwrap();
    rejects(unfit(&wrong), &["vae.training.rates.prior.", "-1"]);
    let wrong = fsvae.with("vae.network.fsvae.body.time_steps", "99999999").unwrap();
    rejects(unfit(&wrong), &["vae.network", "99999999", "2^32"]);
    let twin = ExperimentConfig::for_model(ModelName::AnnTwin, Preset::Quick, &data).unwrap();
    rejects(
        twin.with("sdid.time_steps", "2").unwrap().validate(),
        &["sdid.time_steps", "2", "without spikes"],
    );

    let out = folder.path().join("run");
    let mut cfg = tiny_of(ModelName::Fsvae, &data);
    cfg.evaluation.distance_images = 0;
    run(&cfg, &out, false, &mut Silent).unwrap();
    rejects(Trained::load(&out, &Device::Cpu), &["run", "`fsvae`", "no codes", "`generate`"]);
    rejects(pack(&out, &folder.path().join("run.safetensors"), DType::F16), &["`fsvae`"]);
    let codes = folder.path().join("codes");
    Experiment::new(&tiny(&data), &data).out(&codes).run(&mut Silent).unwrap();
    rejects(TrainedVae::load(&codes, &Device::Cpu), &["codes", "`spiking-diffusion`"]);
}

#[test]
fn a_network_without_spikes_is_packed_and_drawn_from_like_any() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let (cfg, out) = (tiny_of(ModelName::AnnTwin, &data), folder.path().join("run"));
    Experiment::new(&cfg, &data).out(&out).features(Features::None).run(&mut Silent).unwrap();
    let file = folder.path().join("run.safetensors");
    pack(&out, &file, DType::F32).unwrap();
    rejects(pytorch::export(&out, folder.path()), &["vqsvae.without_spikes", "spiking"]);
    let draw = |run: &Path| {
        let images = Trained::load(run, &Device::Cpu).unwrap().samples(3, &Device::Cpu, &mut Silent).unwrap();
        images.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(draw(&out), draw(&file));
}

/// The config of the paper's model says nothing of models; configs of before are read.
#[test]
fn the_papers_config_has_no_new_fields() {
    for preset in [Preset::Quick, Preset::Cpu, Preset::Best, Preset::Paper, Preset::ReleasedCode] {
        let json = serde_json::to_string(&ExperimentConfig::new(preset, ImageSpec::MNIST)).unwrap();
        for field in ["\"model\"", "\"vae\"", "without_spikes", "\"rates\"", "analog"] {
            assert!(!json.contains(field), "{field}: {json}");
        }
        let read: ExperimentConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(read.model, ModelName::SpikingDiffusion);
    }
    for model in BASELINES {
        // Only what has a denoiser can tell it classes.
        let best = ExperimentConfig::for_model(model, Preset::Best, &few_digits()).unwrap();
        assert_eq!(best.sdid.classes, best.vae.is_none().then_some(1));
        best.validate().unwrap();
        let cfg = ExperimentConfig::of_model(model, Preset::Paper, ImageSpec::MNIST);
        let json = serde_json::to_string(&cfg).unwrap();
        assert_eq!(serde_json::from_str::<ExperimentConfig>(&json).unwrap(), cfg);
        assert!(json.contains(&format!("\"model\":\"{}\"", model.name())));
    }
}
