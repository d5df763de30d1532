//! The command `classify`: what a classifier of the data set makes of generated images.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use absorbing_diffusion::Schedule;
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use serde::Serialize;
use snn_core::Seed;
use spiking_diffusion_metrics::{
    ClassScore, Classifier, ClassifierCard, ClassifierConfig, FeatureExtractor, ImageFolder, ImageSource,
    one_channel, score_samples,
};

use super::input::Input;
use super::signals::Signals;
use super::{answer, flags, parsed, say};
use crate::data::{Dataset, KnownSet, Partial};
use crate::error::{Error, Result};
use crate::experiment::{classifier, in_8_bits};
use crate::{ClassesFrom, Condition, Progress, Trained};

/// Train a small classifier on the data set, or load it, and see what it makes of generated images.
#[derive(Debug, Parser)]
#[command(
    name = "classify",
    after_help = "On a machine whose cores other programs use, RAYON_NUM_THREADS=1 trains \
    several times faster; the classifier is the same to the byte."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Data set of the classifier: mnist, fashion-mnist, kmnist, emnist-letters or cifar-10 [default: that of --run, else mnist]
    #[arg(long, value_name = "NAME", value_parser = flags::data_set)]
    data_set: Option<KnownSet>,
    /// Take files of --data-set that hold less than the official ones; a lone split is cut 90/10 by --seed
    #[arg(long, requires = "data_set")]
    allow_partial: bool,
    /// The trained classifier: read if the file is there, else trained and written
    #[arg(long, value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Folder of a finished run: draw images from its networks, with its own sampling config
    #[arg(long, value_name = "RUN_DIR", conflicts_with = "images")]
    run: Option<PathBuf>,
    /// A folder of PNG or JPEG files, or a safetensors file with a tensor `images` [N, C, H, W] in [0, 1]: `generate` writes both
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Images to draw from the run
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = flags::count, allow_hyphen_values = true)]
    samples: usize,
    /// Seed of the samples [default: the run's own]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    sample_seed: Option<u64>,
    /// With --run: draw images of all classes in turn, guided so far (0 is the class alone), and say how many of them are seen as what
    /// they were asked to be. The run must have been trained with --set sdid.classes=N --set classes_from=labels
    #[arg(long, value_name = "G", requires = "run", value_parser = flags::guidance, allow_hyphen_values = true)]
    guidance: Option<Schedule>,
    /// Seed of the classifier's training
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = flags::seed, allow_hyphen_values = true)]
    seed: u64,
    /// Passes over the training images [default: the library's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    epochs: Option<usize>,
    /// An image is confident if its most probable class has at least this probability
    #[arg(long, value_name = "P", default_value_t = 0.9, value_parser = flags::probability, allow_hyphen_values = true)]
    threshold: f64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What the program prints.
#[derive(Debug, Serialize)]
struct Outcome {
    classifier: ClassifierCard,
    /// The real test images.
    test: ClassScore,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<Samples>,
}

#[derive(Debug, Serialize)]
struct Samples {
    /// The run's folder, or the file.
    source: PathBuf,
    #[serde(flatten)]
    score: ClassScore,
    /// The share of images whose most probable class is the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_asked: Option<f64>,
}

/// Runs the whole of the example `classify`.
pub fn classify() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    let signals = Signals::listen();
    match judge(arguments, &mut signals.progress()) {
        Ok(text) => answer(&text),
        Err(e) => signals.failure(&e, "a trained classifier is kept if --classifier names its file"),
    }
}

/// What there is to print, after everything is done.
pub(super) fn judge(arguments: &Arguments, progress: &mut dyn Progress) -> Result<String> {
    let run = arguments.run.as_deref().map(|folder| Trained::load(folder, &Device::Cpu)).transpose()?;
    let partial = Partial::when(arguments.allow_partial, Seed(arguments.seed));
    let data = match (&run, arguments.data_set) {
        (Some(run), None) => arguments.input.load_of_run(&run.cfg, progress)?,
        (_, set) => arguments.input.load(set.unwrap_or(KnownSet::Mnist), partial, progress)?,
    };
    let test = data.test.range(0..data.test.len(), &Device::Cpu)?;
    // First what may be wrong, then what takes long.
    let file = arguments.images.as_deref().map(|path| read_images(path, data.image().0)).transpose()?;
    let classes = run.as_ref().and_then(|run| run.cfg.classes_that_are(ClassesFrom::Labels));
    if let (Some(guidance), None) = (&arguments.guidance, classes) {
        let reason = "the run was trained without labels (--set sdid.classes=N --set classes_from=labels)";
        return Err(Error::config("--guidance", format!("{guidance:?}"), reason));
    }
    let classifier = trained(arguments, &data, progress)?;
    let images = match (run, file) {
        (Some(run), _) => Some(draw(arguments, run, progress)?),
        (_, file) => file,
    };
    let score = |images: &Tensor| score_samples(&classifier, images, arguments.threshold);
    let samples = match (images, arguments.run.as_ref().or(arguments.images.as_ref())) {
        (Some(images), Some(source)) => {
            let (images, source) = (in_8_bits(&images)?, source.clone());
            let asked =
                arguments.guidance.and(classes).map(|classes| as_asked(&classifier, &images, classes));
            Some(Samples { source, score: score(&images)?, as_asked: asked.transpose()? })
        }
        _ => None,
    };
    let outcome = Outcome { classifier: classifier.card().clone(), test: score(&test)?, samples };
    if !arguments.json {
        return Ok(table(&classifier, &outcome));
    }
    serde_json::to_string_pretty(&outcome).map_err(|e| Error::config("--json", true, e.to_string()))
}

/// The classifier of the file, or a new one.
fn trained(arguments: &Arguments, data: &Dataset, progress: &mut dyn Progress) -> Result<Classifier> {
    let file = arguments.classifier.as_deref();
    if let Some(file) = file.filter(|file| file.exists()) {
        let classifier = Classifier::load(file)?;
        let trained_on = &classifier.card().config.dataset;
        if *trained_on != data.name {
            let message = format!("was trained on {trained_on}, and the data set is {}", data.name);
            return Err(Error::run(file, message));
        }
        return Ok(classifier);
    }
    let mut cfg = ClassifierConfig { seed: arguments.seed, ..classifier::config(data) };
    cfg.epochs = arguments.epochs.unwrap_or(cfg.epochs);
    let clock = Instant::now();
    let classifier = classifier::train(&cfg, data, progress)?;
    say(&format!("trained in {:.0} s", clock.elapsed().as_secs_f64()));
    if let Some(file) = file {
        classifier.save(file)?;
    }
    Ok(classifier)
}

/// Samples of a run.
fn draw(arguments: &Arguments, mut run: Trained, progress: &mut dyn Progress) -> Result<Tensor> {
    run.cfg.seed = arguments.sample_seed.map_or(run.cfg.seed, Seed);
    match arguments.guidance {
        None => run.samples(arguments.samples, &Device::Cpu, progress),
        Some(guidance) => {
            let classes = (0..run.cfg.sdid.classes.unwrap_or(0) as u32).collect();
            let run = run.of_classes(Condition { classes, guidance })?;
            run.samples(arguments.samples, &Device::Cpu, progress)
        }
    }
}

/// The share of images that are seen as what they were asked to be: of all classes in turn.
fn as_asked(classifier: &Classifier, images: &Tensor, classes: usize) -> Result<f64> {
    let seen: Vec<u32> = classifier.probabilities(images)?.argmax(1)?.to_vec1()?;
    let right = seen.iter().enumerate().filter(|(i, seen)| i % classes == **seen as usize).count();
    Ok(right as f64 / seen.len() as f64)
}

/// Images in [-0.5, 0.5], of so many channels.
fn read_images(path: &Path, channels: usize) -> Result<Tensor> {
    if !path.is_dir() {
        return read_tensor(path);
    }
    let folder = ImageFolder::open(path)?;
    let images = folder.read(0, folder.count())?;
    let images = match channels {
        1 => one_channel(&images)?
            .ok_or_else(|| Error::data(path, "holds images with colours, and the data set has grey ones"))?,
        _ => images,
    };
    Ok((images - 0.5)?)
}

fn read_tensor(file: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(file).map_err(Error::io(file))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| Error::data(file, format!("not a readable safetensors file: {e}")))?;
    let images = tensors.get("images").ok_or_else(|| Error::data(file, "holds no tensor `images`"))?;
    let values = images.to_dtype(DType::F32)?;
    let [low, high] = [values.min_all()?, values.max_all()?].map(|value| value.to_scalar::<f32>());
    let (low, high) = (low?, high?);
    if !(low >= 0. && high <= 1.) {
        return Err(Error::data(file, format!("`images` reach from {low} to {high}, not from 0 to 1")));
    }
    Ok((values - 0.5)?)
}

fn table(classifier: &Classifier, outcome: &Outcome) -> String {
    let mut text = format!("{}\n\n", classifier.name());
    let classes = outcome.test.predicted.len();
    let names: String = (0..classes).map(|class| format!("{class:>6}")).collect();
    let _ = writeln!(text, "{:<12} {:>6} {:>9}  predicted:{names}", "", "images", "confident");
    let mut row = |name: &str, score: &ClassScore| {
        let counts: String = score.predicted.iter().map(|count| format!("{count:>6}")).collect();
        let share = 100. * score.confident_share;
        let _ = writeln!(text, "{name:<12} {:>6} {share:>7.2} %            {counts}", score.images);
    };
    row("test images", &outcome.test);
    if let Some(samples) = &outcome.samples {
        row("samples", &samples.score);
        let seen = &samples.score.confident_classes;
        if let Some(share) = samples.as_asked {
            let _ =
                writeln!(text, "\n{:.2} % of the samples are of the class that was asked for", 100. * share);
        }
        let _ = writeln!(text, "\n{} of {classes} classes among the confident samples: {seen:?}", seen.len());
    }
    let _ = write!(text, "confident: the most probable class has at least {}", outcome.test.threshold);
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run_with(words: &[&str]) -> Result<String> {
        let arguments = Arguments::try_parse_from([&["classify"], words].concat()).unwrap();
        // Whatever the environment names.
        judge(&Arguments { input: Input::default(), ..arguments }, &mut crate::Silent)
    }

    #[test]
    fn the_command_is_sound() {
        Arguments::command().debug_assert();
        for words in [
            &["--run", "a", "--images", "b"][..],
            &["--samples", "x"],
            &["--seed", "-1"],
            &["--data-set", "x"],
            &["--threshold", "2"],
            &["--allow-partial"],
        ] {
            assert!(Arguments::try_parse_from([&["classify"], words].concat()).is_err(), "{words:?}");
        }
        for (flag, reason) in [
            ("--samples", "whole number"),
            ("--epochs", "whole number"),
            ("--seed", "whole number"),
            ("--sample-seed", "whole number"),
            ("--threshold", "[0, 1]"),
        ] {
            let text = Arguments::try_parse_from(["classify", flag, "-1"]).unwrap_err().to_string();
            assert!(text.contains(&format!("invalid value '-1' for '{flag} <")), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn trains_once_then_loads_and_scores_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (classifier, images) = (path("c.safetensors"), path("images.safetensors"));
        let table = run_with(&["--classifier", &classifier, "--epochs", "1"]).unwrap();
        assert!(table.contains("test accuracy") && table.contains("test images"), "{table}");

        let digits = crate::data::synthetic_digits().unwrap().test.range(0..7, &Device::Cpu).unwrap();
        let tensors =
            std::collections::HashMap::from([("images", (digits.narrow(0, 0, 7).unwrap() + 0.5).unwrap())]);
        candle_core::safetensors::save(&tensors, &images).unwrap();
        let before = std::fs::read(&classifier).unwrap();
        let words = ["--classifier", &classifier, "--images", &images, "--json"];
        let json: serde_json::Value = serde_json::from_str(&run_with(&words).unwrap()).unwrap();
        assert_eq!(
            (&json["samples"]["images"], &json["classifier"]["config"]["epochs"]),
            (&7.into(), &1.into())
        );
        assert_eq!(std::fs::read(&classifier).unwrap(), before);

        // The same images as files.
        let pngs = path("pngs");
        std::fs::create_dir(&pngs).unwrap();
        let file = |i: usize| Path::new(&pngs).join(format!("{i}.png"));
        for i in 0..7 {
            let pixels =
                (digits.narrow(0, i, 1).unwrap().affine(255., 127.5)).unwrap().flatten_all().unwrap();
            let bytes = pixels.to_vec1::<f32>().unwrap().into_iter().map(|x| x.round() as u8).collect();
            image::GrayImage::from_raw(28, 28, bytes).unwrap().save(file(i)).unwrap();
        }
        let words = ["--classifier", &classifier, "--images", &pngs, "--json"];
        let of_files: serde_json::Value = serde_json::from_str(&run_with(&words).unwrap()).unwrap();
        for field in ["images", "confident_share", "predicted"] {
            assert_eq!(of_files["samples"][field], json["samples"][field], "{field}");
        }
        image::RgbImage::from_pixel(28, 28, image::Rgb([9, 8, 7])).save(file(7)).unwrap();
        let error = run_with(&words).unwrap_err().to_string();
        assert!(error.contains("pngs") && error.contains("colours"), "{error}");

        let error = run_with(&["--classifier", &classifier, "--images", &path("none")]).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        let error = run_with(&["--classifier", &images]).unwrap_err().to_string();
        assert!(error.contains("images.safetensors"), "{error}");
    }
}
