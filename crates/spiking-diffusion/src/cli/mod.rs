//! The command line of the program and of the examples.

mod bars;
mod classify;
mod device_flags;
mod fad_flag;
mod fid;
mod flags;
mod generate;
mod input;
mod output;
mod pack;
mod program;
mod published;
mod pytorch;
mod signals;
mod sweep;
mod table1;
#[cfg(test)]
mod tests;
mod threads;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::Device;
use clap::{CommandFactory, FromArgMatches, Parser};
use snn_core::Seed;

pub use classify::classify;
pub use fid::fid;
pub use generate::generate;
pub use output::{attempt, print};
pub use program::program;
pub use pytorch::{export_pytorch, import_pytorch};
pub use sweep::sweep;
pub use table1::table1;

use crate::data::{Dataset, KnownSet, Partial};
use crate::error::{Error, Result};
use crate::experiment::Starter;
use crate::judge::Against;
use crate::{Experiment, ExperimentConfig, FadFiles, Features, ModelName, Preset, Progress, Report};
use device_flags::DeviceFlags;
use fad_flag::Fad;
use input::Input;
use output::{answer, failed, parsed, say, usage};
use signals::command_line;
use threads::leave_work_to_rayon;
use workers::Team;

/// Train a VQ-SVAE and a spiking diffusion denoiser, sample from them, measure and report.
#[derive(Debug, Parser)]
#[command(after_help = "A run's folder then holds config.json, vqsvae.safetensors, codes.safetensors, \
    sdid.safetensors, clusters.safetensors where classes are clusters, device.json on a GPU, vqsvae.csv, sdid.csv, pictures, and report.html, which shows and explains them (also report.md and \
    report.json). Ctrl-C writes a checkpoint; --resume goes on, on the same kind of device.")]
struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Take files that hold less than the official ones, and say so in the report; a lone split is cut 90/10 by the seed
    #[arg(long)]
    allow_partial: bool,
    /// Folder for everything that the run writes [default: runs/<data set>-<preset>-<seed>, with another model's name in it]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to train: the paper's model, a baseline of its Table 1 (fsvae, fsvae-original, esvae), or a network without spikes
    #[arg(long, value_enum, default_value = "spiking-diffusion")]
    model: ModelName,
    /// What to start from
    #[arg(long, value_enum, default_value = "quick")]
    preset: Preset,
    /// Seed of everything random: the same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = flags::seed, allow_hyphen_values = true)]
    seed: u64,
    #[command(flatten)]
    device: DeviceFlags,
    /// Go on with the run in the output folder; repeat its command
    #[arg(long)]
    resume: bool,
    /// Take the autoencoder and the codes of this run, whose data, seed and settings of the autoencoder must be the same, and train only
    /// the denoiser
    #[arg(long, value_name = "RUN")]
    codes_from: Option<PathBuf>,
    /// Measure on the last N training images in the place of the test images, and train on the others: for choices, which the test
    /// images must not make
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    held_out: Option<usize>,
    /// Use only the first N training images (the whole test set is always used)
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    limit: Option<usize>,
    /// Passes over the training images for the autoencoder, which may be all there is [default: the preset's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    epochs_vqsvae: Option<usize>,
    /// Passes over the training images for the denoiser [default: the preset's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    epochs_sdid: Option<usize>,
    /// Train for about so many minutes on this machine: fifty steps of each network are timed first, and schedules end with the time, a
    /// third of which is the autoencoder's. Drawing and measuring come on top. A run that is resumed keeps its steps
    #[arg(long, value_name = "M", value_parser = flags::positive, allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["epochs_vqsvae", "epochs_sdid", "codes_from"])]
    minutes: Option<f64>,
    /// Images a training step, for all networks [default: the preset's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    batch_size: Option<usize>,
    /// Parts that each batch is cut into, which workers share: the same bytes with any number of them, up to one a shard [default: 8 in
    /// an MPI job of several, else none]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    shards: Option<usize>,
    /// Images to generate [default: the preset's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    samples: Option<usize>,
    /// Weights of the FID network (.pth or .safetensors), for FID and KID of the samples: 2048 features, or 768 where the
    /// file has no more [default: the features of a small classifier trained on the same images]
    #[arg(long, value_name = "FILE", env = flags::variable(flags::INCEPTION))]
    inception: Option<PathBuf>,
    #[command(flatten)]
    fad: Fad,
    /// Images that FID, KID and FAD are measured on, 0 for none [default: the preset's]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    distance_images: Option<usize>,
    /// Set any field of config.json, such as vqsvae.time_steps=8; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the example of one data set: parses the arguments, loads the data, runs, prints where the results are.
#[must_use]
pub fn main(set: KnownSet) -> ExitCode {
    leave_work_to_rayon();
    let name = set.name();
    let matches = Arguments::command().name(name).try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(e) => return usage(&e),
    };
    train(set, &arguments, Starter::Example)
}

fn train(set: KnownSet, arguments: &Arguments, starter: Starter) -> ExitCode {
    let team = Team::join();
    let job = match team.workers().size() {
        1 => "",
        _ => " (of any number of processes, with the same --shards)",
    };
    let advice = format!("what was done is kept; to go on{job}:\n{}", command_line(Some("--resume")));
    team.end(train_on(set, arguments, starter, &team, &mut team.progress()), &advice)
}

fn train_on(
    set: KnownSet,
    arguments: &Arguments,
    starter: Starter,
    team: &Team,
    progress: &mut dyn Progress,
) -> Result<()> {
    let device = team.device(&arguments.device)?;
    let partial = Partial::when(arguments.allow_partial, Seed(arguments.seed));
    let mut data = arguments.input.load(set, partial, progress)?;
    if let Some(partial) = &data.partial {
        team.say(&format!("partial data: {partial}"));
    }
    if let Some(n) = arguments.held_out {
        data = data.hold_out(n)?;
    }
    if let Some(limit) = arguments.limit {
        data = data.limit(limit)?;
    }
    let mut cfg = config(arguments, &data, team.workers().size())?;
    // Worker 0 measures.
    let fad = if team.leads() { arguments.fad.files(&data.name, progress)? } else { None };
    if let Some(minutes) = arguments.minutes {
        // First what may be wrong, then what takes long.
        let folder = {
            let wanted = experiment(arguments, &cfg, &data, fad.clone());
            wanted.check()?;
            wanted.folder().to_owned()
        };
        cfg = within(cfg, minutes, arguments, (&data, &device, &folder), team, progress)?;
    }
    let experiment = experiment(arguments, &cfg, &data, fad).device(&device).started_by(starter);
    let kind = if data.synthetic { " (synthetic; --data-dir DIR or --download for real images)" } else { "" };
    team.say(&format!(
        "{}{kind}: {} training and {} {} images; {}preset {}, seed {}; writing to {}",
        data.name,
        data.train.len(),
        data.test.len(),
        Against::Test.of(&data).1,
        if cfg.model.is_the_papers() { String::new() } else { format!("model {}, ", cfg.model.name()) },
        cfg.preset.name(),
        cfg.seed.0,
        experiment.folder().display(),
    ));
    if let Some(report) = experiment.run_over(team.workers_on(&device)?, progress)? {
        say(&summary(&report, experiment.folder()));
    }
    Ok(())
}

/// The experiment that was asked for, but for its device.
fn experiment<'a>(
    arguments: &Arguments,
    cfg: &'a ExperimentConfig,
    data: &'a Dataset,
    fad: Option<FadFiles>,
) -> Experiment<'a> {
    let features = arguments.inception.clone().map_or(Features::Classifier, Features::Inception);
    let mut experiment = Experiment::new(cfg, data).resume(arguments.resume).features(features);
    if let Some(out) = &arguments.out {
        experiment = experiment.out(out);
    }
    if let Some(run) = &arguments.codes_from {
        experiment = experiment.codes_from(run);
    }
    if let Some(files) = fad {
        experiment = experiment.fad(files);
    }
    experiment
}

/// The config of a run that trains for so many minutes; of one that is resumed, with the steps that it began with.
fn within(
    mut cfg: ExperimentConfig,
    minutes: f64,
    arguments: &Arguments,
    (data, device, folder): (&Dataset, &Device, &Path),
    team: &Team,
    progress: &mut dyn Progress,
) -> Result<ExperimentConfig> {
    let sets_length = |setting: &&String| {
        let key = setting.split('=').next().unwrap_or_default();
        key.ends_with(".epochs") || key.ends_with(".max_steps")
    };
    if let Some(setting) = arguments.set.iter().find(sets_length) {
        return Err(Error::config("--set", setting, "says how long to train, and so does --minutes"));
    }
    let begun = folder.join("config.json").exists();
    if begun && !arguments.resume {
        let message = "already holds a run: add --resume to continue it, or name another folder with --out";
        return Err(Error::run(folder, message));
    }
    if begun {
        let begun: ExperimentConfig = snn_train::read_config(folder)?;
        for (training, (_, begun)) in cfg.trainings_mut().into_iter().zip(begun.trainings()) {
            (training.epochs, training.max_steps) = (begun.epochs, begun.max_steps);
        }
        return Ok(cfg);
    }
    if team.workers().size() > 1 {
        let reason = "each of several workers would find other numbers of steps: set the epochs";
        return Err(Error::config("--minutes", minutes, reason));
    }
    team.say("timing steps");
    let cfg = cfg.within_minutes(minutes, data, device, progress)?;
    let steps = |(stage, training): &(&str, &snn_train::TrainingConfig)| {
        format!("{} steps of `{stage}`", training.max_steps.unwrap_or_default())
    };
    team.say(&format!(
        "{minutes} minutes are {}",
        cfg.trainings().iter().map(steps).collect::<Vec<_>>().join(" and ")
    ));
    Ok(cfg)
}

/// Shards of a job of several workers: not as many as there are, or the number of workers would change the bytes.
const SHARDS: usize = 8;

fn config(arguments: &Arguments, data: &Dataset, workers: usize) -> Result<ExperimentConfig> {
    let mut cfg = ExperimentConfig::for_model(arguments.model, arguments.preset, data)?;
    cfg.seed = Seed(arguments.seed);
    cfg.samples = arguments.samples.unwrap_or(cfg.samples);
    let evaluation = &mut cfg.evaluation;
    evaluation.distance_images = arguments.distance_images.unwrap_or(evaluation.distance_images);
    if let (Some(_), Some(epochs)) = (&cfg.vae, arguments.epochs_sdid) {
        let reason = format!("the model `{}` has no denoiser: --epochs-vqsvae are all", cfg.model.name());
        return Err(Error::config("--epochs-sdid", epochs, reason));
    }
    // Only the stages of codes can be cut into shards.
    let of_job = (workers > 1 && cfg.vae.is_none()).then_some(SHARDS);
    let epochs = [arguments.epochs_vqsvae, arguments.epochs_sdid];
    for (training, epochs) in cfg.trainings_mut().into_iter().zip(epochs) {
        training.epochs = epochs.unwrap_or(training.epochs);
        training.batch_size = arguments.batch_size.unwrap_or(training.batch_size);
        training.shards = arguments.shards.or(of_job);
    }
    let cfg = set(cfg, "", &arguments.set)?;
    cfg.validate()?;
    Ok(cfg)
}

/// The same config with these settings, `key=value`, whose keys are those of the config behind a prefix.
fn set(mut cfg: ExperimentConfig, prefix: &str, settings: &[String]) -> Result<ExperimentConfig> {
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Error::config("--set", setting, "must have the form dotted.key=value"));
        };
        cfg = cfg.with(&format!("{prefix}{key}"), value)?;
    }
    Ok(cfg)
}

fn summary(report: &Report, out: &Path) -> String {
    let m = &report.metrics;
    let distance = m.distance.as_ref().map_or(String::new(), |d| {
        let again = d.reconstruction_fid.map_or(String::new(), |fid| format!(" (reconstructions {fid:.4})"));
        format!("FID {:.4}{again}, KID {:.5} ± {:.5} ({})\n", d.fid, d.kid, d.kid_std, d.extractor)
    });
    let codes = format!(
        ", {:.3} ± {:.3} bits per token, {} codes in use (perplexity {:.1})",
        m.bits_per_token, m.bits_per_token_standard_error, m.codebook_used, m.codebook_perplexity,
    );
    let fad = m.fad.as_ref().map_or(String::new(), |d| {
        format!(
            "FAD {:.3} of {} samples (reconstructions {:.3}) ({})\n",
            d.fad, d.generated_images, d.reconstruction_fad, d.network
        )
    });
    format!(
        "test MSE {:.5}, SSIM {:.4}{}\n{distance}{fad}look at {dir}/report.html (or {dir}/report.md and {dir}/samples.png)",
        m.mse,
        m.ssim,
        if m.has_codes() { codes.as_str() } else { "" },
        dir = out.display(),
    )
}
