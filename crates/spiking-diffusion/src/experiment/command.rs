//! The command that makes a run again.

use candle_core::Device;
use snn_train::differences;
use vq_svae::Reconstruction;

use super::config::ExperimentConfig;
use super::device::Kind;
use super::distance::Features;
use super::fad::FadFiles;
use super::shell::quoted;
use super::starter::Starter;
use crate::data::{KnownSet, synthetic};

/// What a run was asked for beside its config.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) features: &'a Features,
    pub(super) fad: Option<&'a FadFiles>,
    pub(super) starter: Starter,
    /// The variance of the training images' pixels, by which a preset's loss divides.
    pub(super) pixel_variance: f64,
    pub(super) device: &'a Device,
}

/// The command that makes a run of this config in another folder, by the program that made it, with every field that differs
/// from the preset's. None for data that no program loads, and for a device that none takes.
pub(super) fn of(cfg: &ExperimentConfig, asked: Asked<'_>) -> Option<String> {
    let Asked { features, fad, starter, pixel_variance, device } = asked;
    let data = &cfg.data;
    let (set, official) = if data.name == synthetic::NAME {
        (KnownSet::Mnist, synthetic::TRAIN)
    } else {
        let set = KnownSet::named(&data.name)?;
        (set, set.counts().0)
    };
    let kind = Kind::of(device);
    let on_gpu = match kind.device {
        "cpu" => false,
        "cuda" => true,
        _ => return None,
    };
    let mut words = vec![starter.train(set, on_gpu)];
    if !data.synthetic {
        words.push("--data-dir \"$SPIKING_DATA_DIR\"".to_owned());
    }
    if data.partial.is_some() {
        words.push("--allow-partial".to_owned());
    }
    if data.held_out > 0 {
        words.push(format!("--held-out {}", data.held_out));
    }
    if data.train_images + data.held_out < official {
        words.push(format!("--limit {}", data.train_images));
    }
    if !cfg.model.is_the_papers() {
        words.push(format!("--model {}", cfg.model.name()));
    }
    words.push(format!("--preset {} --seed {} --out again", cfg.preset.name(), cfg.seed.0));
    if on_gpu {
        words.push(format!("--device {} --precision {}", kind.device, kind.precision));
    }
    if let Features::Inception(file) = features {
        words.push(format!("--inception {}", quoted(&file.to_string_lossy())));
    }
    if let Some(files) = fad {
        words.push(format!("--fad {}", quoted(&files.path().to_string_lossy())));
    }
    words.extend(
        settings(cfg, pixel_variance)?
            .into_iter()
            .map(|(key, value)| quoted(&format!("{key}={value}")))
            .map(|s| format!("--set {s}")),
    );
    Some(words.join(" "))
}

/// Fields, dotted, that differ from the preset's for such data, with their values.
fn settings(cfg: &ExperimentConfig, pixel_variance: f64) -> Option<Vec<(String, String)>> {
    let preset = ExperimentConfig::of_model(cfg.model, cfg.preset, cfg.vqsvae.image);
    let mut preset = preset.published_for(&cfg.data.name).with_clusters_for(cfg.data.train_images);
    // These follow from the data and the seed.
    (preset.data, preset.seed) = (cfg.data.clone(), cfg.seed);
    if let Reconstruction::OverVariance { variance } = &mut preset.vqsvae.reconstruction {
        *variance = pixel_variance;
    }
    let found = differences(&preset.to_value().ok()?, &cfg.to_value().ok()?);
    Some(found.into_iter().map(|(field, [_, value])| (field, value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use vq_svae::ImageSpec;

    use super::*;
    use crate::{ModelName, Preset};

    fn of(cfg: &ExperimentConfig, features: &Features, starter: Starter) -> Option<String> {
        let Reconstruction::OverVariance { variance: pixel_variance } =
            ExperimentConfig::new(cfg.preset, cfg.vqsvae.image).vqsvae.reconstruction
        else {
            panic!("a preset's loss divides by the variance")
        };
        super::of(cfg, Asked { features, fad: None, starter, pixel_variance, device: &Device::Cpu })
    }

    /// Applies the `--set`s of a command to the preset again.
    fn read_back(command: &str, cfg: &ExperimentConfig) -> ExperimentConfig {
        let preset = ExperimentConfig::new(cfg.preset, cfg.vqsvae.image);
        let mut again = preset.with_clusters_for(cfg.data.train_images);
        (again.data, again.seed) = (cfg.data.clone(), cfg.seed);
        for setting in command.split(" --set ").skip(1) {
            let (key, value) = setting.trim_matches('\'').split_once('=').unwrap();
            again = again.with(key, value).unwrap();
        }
        again
    }

    #[test]
    fn a_command_says_what_differs_from_the_preset() {
        let mut cfg = ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST);
        (cfg.data.name, cfg.data.train_images) = ("mnist".to_owned(), 60_000);
        let plain = "cargo run --release --example mnist -- --data-dir \"$SPIKING_DATA_DIR\" --preset quick --seed 0 --out again";
        assert_eq!(of(&cfg, &Features::Classifier, Starter::Example).as_deref(), Some(plain));
        let installed =
            plain.replace("cargo run --release --example mnist --", "spiking-diffusion train mnist");
        assert_eq!(of(&cfg, &Features::Classifier, Starter::Program), Some(installed));
        let mut cfg = cfg.with_clusters_for(20_000);
        cfg.data.train_images = 20_000;
        assert!(of(&cfg, &Features::Classifier, Starter::Example).unwrap().contains(" --limit 20000 "));
        cfg.data.partial = Some("some are missing".to_owned());
        let command = of(&cfg, &Features::Inception("my weights".into()), Starter::Example).unwrap();
        assert!(
            command.contains(" --allow-partial --limit 20000 ")
                && command.ends_with(" --inception 'my weights'")
        );
        let plain = cfg.with("vqsvae.reconstruction", "plain").unwrap();
        assert_eq!(read_back(&of(&plain, &Features::None, Starter::Example).unwrap(), &plain), plain);
        let cfg = cfg.with("sdid.token_input", "raw").unwrap();
        let cfg =
            cfg.with("sdid.channels", "[8,8,8,8,8]").unwrap().with("vqsvae_training.clip", "null").unwrap();
        let command = of(&cfg, &Features::Classifier, Starter::Example).unwrap();
        assert!(command.contains("--set 'sdid.token_input=\"raw\"'"), "{command}");
        assert_eq!(read_back(&command, &cfg), cfg);
        assert_eq!(command.matches("--set").count(), 3, "{command}");
    }

    #[test]
    fn a_command_has_fields_that_the_preset_leaves_out_and_a_variance_of_ones_own() {
        let mut cfg = ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST);
        (cfg.data.name, cfg.data.train_images) = ("mnist".to_owned(), 60_000);
        let set =
            ["sdid.classes=10", "label_dropout=0.2", "vqsvae.reconstruction.over_variance.variance=0.5"];
        for (key, value) in set.iter().map(|setting| setting.split_once('=').unwrap()) {
            cfg = cfg.with(key, value).unwrap();
        }
        let command = of(&cfg, &Features::None, Starter::Program).unwrap();
        assert_eq!(command.matches("--set").count(), 3, "{command}");
        assert!(set.iter().all(|setting| command.contains(setting)), "{command}");
        assert_eq!(read_back(&command, &cfg), cfg);
    }

    /// Fields that are left out where they have their default, and keys with dots.
    #[test]
    fn a_command_has_fields_that_are_at_a_default_that_is_not_the_presets() {
        let mut cfg = ExperimentConfig::new(Preset::Quick, ImageSpec::MNIST);
        (cfg.data.name, cfg.data.train_images) = ("mnist".to_owned(), 60_000);
        let cfg = cfg.with("vqsvae.margin", "0").unwrap().with("sdid.head_kernel", "3").unwrap();
        let command = of(&cfg, &Features::None, Starter::Program).unwrap();
        assert_eq!(read_back(&command, &cfg), cfg, "{command}");
        assert!(cfg.with("vqsvae.nonsense", "null").is_err() && cfg.with("sdid.codes", "null").is_err());

        let mut preset = ExperimentConfig::of_model(ModelName::Esvae, Preset::Cpu, ImageSpec::MNIST);
        (preset.data.name, preset.data.train_images) = ("mnist".to_owned(), 60_000);
        for rates in ["{}", r#"{"prior.":5.0}"#, r#"{"prior.":10.0,"encoder.":2.0}"#] {
            let cfg = preset.with("vae.training.rates", rates).unwrap();
            let command = of(&cfg, &Features::None, Starter::Program).unwrap();
            let mut again = preset.clone();
            for setting in command.split(" --set ").skip(1) {
                let (key, value) = setting.trim_matches('\'').split_once('=').unwrap();
                again = again.with(key, value).unwrap();
            }
            assert_eq!(again, cfg, "{command}");
        }
    }

    #[test]
    fn a_command_says_nothing_of_clusters_that_the_data_limit() {
        let mut cfg = ExperimentConfig::new(Preset::Best, ImageSpec::MNIST).with_clusters_for(6_000);
        (cfg.data.name, cfg.data.train_images) = ("mnist".to_owned(), 6_000);
        let command = of(&cfg, &Features::None, Starter::Program).unwrap();
        assert!(cfg.sdid.classes == Some(60) && !command.contains("--set"), "{command}");
        let labels = cfg.with("sdid.classes", "10").unwrap().with("classes_from", "labels").unwrap();
        let without = cfg.with("sdid.classes", "null").unwrap().with("classes_from", "labels").unwrap();
        for cfg in [labels, without] {
            cfg.validate().unwrap();
            assert_eq!(read_back(&of(&cfg, &Features::None, Starter::Program).unwrap(), &cfg), cfg);
        }
    }

    #[test]
    fn a_command_names_another_model() {
        let mut cfg = ExperimentConfig::of_model(ModelName::Fsvae, Preset::Cpu, ImageSpec::MNIST);
        (cfg.data.name, cfg.data.train_images) = ("mnist".to_owned(), 60_000);
        let cfg = cfg.with("vae.training.epochs", "3").unwrap();
        let command = of(&cfg, &Features::None, Starter::Program).unwrap();
        assert!(
            command.contains(" --model fsvae --preset cpu ")
                && command.ends_with(" --set vae.training.epochs=3"),
            "{command}"
        );
    }

    #[test]
    fn a_command_says_whether_images_are_flipped_where_the_preset_does_otherwise() {
        let image = ImageSpec { channels: 3, height: 32, width: 32 };
        let mut cfg = ExperimentConfig::of_model(ModelName::Esvae, Preset::Cpu, image);
        (cfg.data.name, cfg.data.train_images) = ("cifar-10".to_owned(), 50_000);
        let published = cfg.clone().published_for("cifar-10");
        let command = of(&published, &Features::None, Starter::Program).unwrap();
        assert!(!command.contains("--set"), "{command}");
        let command = of(&cfg, &Features::None, Starter::Program).unwrap();
        let (_, setting) = command.split_once(" --set ").unwrap();
        let (key, value) = setting.trim_matches('\'').split_once('=').unwrap();
        assert_eq!(published.with(key, value).unwrap(), cfg);
        assert_ne!(published, cfg);
    }

    #[test]
    fn data_without_an_example_have_no_command() {
        assert_eq!(
            of(&ExperimentConfig::new(Preset::Cpu, ImageSpec::MNIST), &Features::None, Starter::Example),
            None
        );
    }
}
