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
use crate::judge::Against;
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
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "run", value_parser = flags::count, allow_hyphen_values = true)]
    samples: usize,
    /// Seed of the samples [default: the run's own]
    #[arg(long, value_name = "S", requires = "run", value_parser = flags::seed, allow_hyphen_values = true)]
    sample_seed: Option<u64>,
    /// With --run: draw images of all classes in turn, guided so far (0 is the class alone), and say how many of them are seen as what
    /// they were asked to be. The run must have been trained with --set sdid.classes=N --set classes_from=labels
    #[arg(long, value_name = "G", requires = "run", value_parser = flags::guidance, allow_hyphen_values = true)]
    guidance: Option<Schedule>,
    /// Seed of the classifier's training [default: 0, or that of --classifier]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Passes over the training images [default: the library's, or those of --classifier]
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
    if arguments.samples == 0 {
        return Err(Error::config("--samples", 0, "must be at least 1"));
    }
    let run = arguments.run.as_deref().map(|folder| Trained::load(folder, &Device::Cpu)).transpose()?;
    let there = arguments.classifier.as_deref().filter(|file| file.exists());
    let there = there.map(|file| Ok::<_, Error>((file, Classifier::load(file)?))).transpose()?;
    // A lone split is cut as it was for the classifier that is there.
    let of_file = there.as_ref().map(|(_, classifier)| classifier.card().config.seed);
    let partial = Partial::when(arguments.allow_partial, Seed(arguments.seed.or(of_file).unwrap_or(0)));
    let data = match (&run, arguments.data_set) {
        (Some(run), None) => arguments.input.load_of_run(&run.cfg, progress)?,
        (_, set) => arguments.input.load(set.unwrap_or(KnownSet::Mnist), partial, progress)?,
    };
    let test = data.test.range(0..data.test.len(), &Device::Cpu)?;
    // First what may be wrong, then what takes long.
    let kept = there.map(|(file, classifier)| fitting(arguments, &data, file, classifier)).transpose()?;
    run.as_ref().map_or(Ok(()), |run| check_size(run, &data))?;
    let file = arguments.images.as_deref().map(|path| read_images(path, size(&data))).transpose()?;
    let classes = run.as_ref().and_then(|run| run.cfg.classes_that_are(ClassesFrom::Labels));
    if let (Some(guidance), None) = (&arguments.guidance, classes) {
        let reason = "the run was trained without labels (--set sdid.classes=N --set classes_from=labels)";
        return Err(Error::config("--guidance", format!("{guidance:?}"), reason));
    }
    let classifier = kept.map_or_else(|| trained(arguments, &data, progress), Ok)?;
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
        return Ok(table(&classifier, Against::Test.of(&data).1, &outcome));
    }
    serde_json::to_string_pretty(&outcome).map_err(|e| Error::config("--json", true, e.to_string()))
}

/// Channels, rows and columns of the images that the classifier takes.
fn size(data: &Dataset) -> [usize; 3] {
    let (channels, height, width) = data.image();
    [channels, height, width]
}

fn check_size(run: &Trained, data: &Dataset) -> Result<()> {
    let (own, taken) = (run.cfg.image(), size(data));
    if own == taken {
        return Ok(());
    }
    let reason = format!("its images are {taken:?}, and those of the run {own:?}");
    Err(Error::config("--data-set", &data.name, reason))
}

/// The classifier of the file, if it is of this data set, and trained as the flags say, as far as they do.
fn fitting(arguments: &Arguments, data: &Dataset, file: &Path, classifier: Classifier) -> Result<Classifier> {
    let cfg = &classifier.card().config;
    if cfg.dataset != data.name {
        let message = format!("was trained on {}, and the data set is {}", cfg.dataset, data.name);
        return Err(Error::run(file, message));
    }
    let (seen, own) = (classifier.card().train_images, data.train.len());
    if data.held_out > 0 && seen > own {
        let message = format!(
            "was trained on {seen} images, and those behind the first {own} are held out: train another in a new file"
        );
        return Err(Error::run(file, message));
    }
    let asked = [
        ("--epochs", arguments.epochs.map(|epochs| epochs as u64), cfg.epochs as u64),
        ("--seed", arguments.seed, cfg.seed),
    ];
    for (flag, asked, there) in asked {
        if let Some(asked) = asked.filter(|asked| *asked != there) {
            let file = file.display();
            let reason = format!("{file} was trained with {there}: leave the flag out, or name another file");
            return Err(Error::config(flag, asked, reason));
        }
    }
    Ok(classifier)
}

/// A new classifier, in the file if one is named.
fn trained(arguments: &Arguments, data: &Dataset, progress: &mut dyn Progress) -> Result<Classifier> {
    let file = arguments.classifier.as_deref();
    if let Some(folder) = file.and_then(Path::parent) {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let mut cfg = ClassifierConfig { seed: arguments.seed.unwrap_or(0), ..classifier::config(data) };
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

/// Images in [-0.5, 0.5], of these channels, rows and columns.
fn read_images(path: &Path, image: [usize; 3]) -> Result<Tensor> {
    let images = if path.is_dir() { read_folder(path, image[0])? } else { read_tensor(path)? };
    match images.dims() {
        [_, own @ ..] if *own != image => {
            let message = format!("holds images of {own:?}, and those of the data set are {image:?}");
            Err(Error::data(path, message))
        }
        _ => Ok((&images - 0.5)?),
    }
}

/// Images in [0, 1], of one channel if that is wanted.
fn read_folder(path: &Path, channels: usize) -> Result<Tensor> {
    let folder = ImageFolder::open(path)?;
    let images = folder.read(0, folder.count())?;
    if channels != 1 {
        return Ok(images);
    }
    one_channel(&images)?
        .ok_or_else(|| Error::data(path, "holds images with colours, and the data set has grey ones"))
}

/// Images in [0, 1].
fn read_tensor(file: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(file).map_err(Error::io(file))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| Error::data(file, format!("not a readable safetensors file: {e}")))?;
    let images = tensors.get("images").ok_or_else(|| Error::data(file, "holds no tensor `images`"))?;
    let dims = images.dims();
    if dims.len() != 4 || dims.contains(&0) {
        let message = format!("`images` must be [N, C, H, W] with an image at least, and are {dims:?}");
        return Err(Error::data(file, message));
    }
    let values = images.to_dtype(DType::F32)?;
    let [low, high] = [values.min_all()?, values.max_all()?].map(|value| value.to_scalar::<f32>());
    let (low, high) = (low?, high?);
    if !(low >= 0. && high <= 1.) {
        return Err(Error::data(file, format!("`images` reach from {low} to {high}, not from 0 to 1")));
    }
    Ok(values)
}

/// `real`: what the real images are called.
fn table(classifier: &Classifier, real: &str, outcome: &Outcome) -> String {
    let mut text = format!("{}\n\n", classifier.name());
    let classes = outcome.test.predicted.len();
    let names: String = (0..classes).map(|class| format!("{class:>6}")).collect();
    let _ = writeln!(text, "{:<15} {:>6} {:>9}  predicted:{names}", "", "images", "confident");
    let mut row = |name: &str, score: &ClassScore| {
        let counts: String = score.predicted.iter().map(|count| format!("{count:>6}")).collect();
        let share = 100. * score.confident_share;
        let _ = writeln!(text, "{name:<15} {:>6} {share:>7.2} %            {counts}", score.images);
    };
    row(&format!("{real} images"), &outcome.test);
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
mod tests;
