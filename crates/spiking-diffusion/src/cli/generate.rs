//! The command `generate`: images of a finished run as files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use absorbing_diffusion::Schedule;
use candle_core::Device;
use clap::{Parser, ValueEnum};
use snn_core::Seed;
use snn_train::read_config;

use super::device_flags::DeviceFlags;
use super::signals::command_line;
use super::workers::Team;
use super::{flags, parsed, set};
use crate::error::{Error, Result};
use crate::generation::{self, Formats, Saved, Source};
use crate::{ClassesFrom, Condition, ExperimentConfig, Progress, Trained, TrainedVae};

/// Draw images from the networks of a finished run and write them as PNGs, as tensors, or both.
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    after_help = "OUT/png/ then holds one PNG an image, OUT/images-0000.safetensors, .. 500 images \
    each, in [0, 1]. Image i depends on the run, the seed, --temperature, --set, --class, --cluster, --guidance, --device and --precision alone. The same command again draws what is missing; \
    a larger --n adds images."
)]
pub(super) struct Arguments {
    /// Folder of a finished run, or the file that `pack` has made of one [default: the model in the box, which draws digits]
    #[arg(long, value_name = "RUN_DIR")]
    run: Option<PathBuf>,
    /// Images to have in the end
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = flags::count, allow_hyphen_values = true)]
    n: usize,
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "generated")]
    out: PathBuf,
    /// Images at a time; changes speed and memory, not images [default: the run's own]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    batch_size: Option<usize>,
    /// Divides the logits: below 1, the likely gets likelier; 1..0.6 goes from 1 in the first step to 0.6 in the last [default: the run's own]
    #[arg(long, value_name = "T", value_parser = flags::temperatures, allow_hyphen_values = true)]
    temperature: Option<Schedule>,
    /// Draw images of this class; several, such as 0,1,2, take turns. The run must have been trained with --set sdid.classes=N --set
    /// classes_from=labels [default: each image's class is drawn, where there are some]
    #[arg(long, value_name = "C,C,..", value_delimiter = ',', value_parser = flags::class, allow_hyphen_values = true)]
    class: Vec<u32>,
    /// Draw images of this cluster of training images, counted from 0 as clusters.png in the run's folder shows them; several take turns
    #[arg(long, value_name = "C,C,..", value_delimiter = ',', value_parser = flags::class, allow_hyphen_values = true, conflicts_with = "class")]
    cluster: Vec<u32>,
    /// Exaggerate what sets the class apart so far: 0 is the class alone; 0..4 guides late steps more
    #[arg(long, value_name = "G", value_parser = flags::guidance, allow_hyphen_values = true)]
    guidance: Option<Schedule>,
    /// Set another field of the run's sampling, such as steps=10, order=halton or top_p=0.9; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the images [default: the run's own]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// What to write
    #[arg(long, value_enum, value_delimiter = ',', default_value = "png,safetensors")]
    format: Vec<Format>,
    #[command(flatten)]
    device: DeviceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(super) enum Format {
    Png,
    Safetensors,
}

/// Runs the whole of the example `generate`.
pub fn generate() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    let team = Team::join();
    let written = write_images(arguments, &team, &mut team.progress()).map(|text| team.say(&text));
    team.end(written, &format!("the same command goes on:\n{}", command_line(None)))
}

/// What there is to say in the end.
fn write_images(arguments: &Arguments, team: &Team, progress: &mut dyn Progress) -> Result<String> {
    let device = team.device(&arguments.device)?;
    if let Some(run) = arguments.run.as_deref().filter(|run| run.is_dir())
        && let Some(_) = read_config::<ExperimentConfig>(run)?.vae
    {
        return arguments.draw_by(&arguments.vae(run, &device)?, team, &device, progress);
    }
    let mut trained = arguments.trained(&device)?;
    trained.cfg = arguments.apply(trained.cfg)?;
    match arguments.condition() {
        None => arguments.draw_by(&trained, team, &device, progress),
        Some(condition) => {
            arguments.check(&condition, &trained.cfg)?;
            arguments.draw_by(&trained.of_classes(condition)?, team, &device, progress)
        }
    }
}

impl Arguments {
    fn draw_by(
        &self,
        source: &impl Source,
        team: &Team,
        device: &Device,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        let formats = Formats {
            png: self.format.contains(&Format::Png),
            safetensors: self.format.contains(&Format::Safetensors),
        };
        let clock = Instant::now();
        let saved = generation::save_over(
            team.workers_on(device)?,
            source,
            self.n,
            &self.out,
            formats,
            device,
            progress,
        )?;
        let Some(Saved { drawn, present }) = saved else { return Ok(String::new()) };
        let seconds = clock.elapsed().as_secs_f64();
        Ok(format!(
            "{drawn} images drawn in {seconds:.1} s ({:.1} images/s), {present} were there; in {}",
            drawn as f64 / seconds,
            self.out.display()
        ))
    }

    /// The run of a variational autoencoder, which knows nothing of classes and of sampling from logits.
    fn vae(&self, run: &Path, device: &Device) -> Result<TrainedVae> {
        let mut trained = TrainedVae::load(run, device)?;
        let asked = [
            ("--class", !self.class.is_empty()),
            ("--cluster", !self.cluster.is_empty()),
            ("--guidance", self.guidance.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--set", !self.set.is_empty()),
        ];
        let reason = format!(
            "the model `{}` draws by its prior: it has no codes, and knows no classes",
            trained.cfg.model.name()
        );
        flags::refuse(asked.map(|(flag, asked)| (flag, asked.then(String::new))), &reason)?;
        trained.cfg.seed = self.seed.map_or(trained.cfg.seed, Seed);
        trained.cfg.sampling.batch_size = self.batch_size.unwrap_or(trained.cfg.sampling.batch_size);
        Ok(trained)
    }

    fn trained(&self, device: &Device) -> Result<Trained> {
        match &self.run {
            Some(run) => Trained::load(run, device),
            #[cfg(feature = "mnist-model")]
            None => Trained::mnist(device),
            #[cfg(not(feature = "mnist-model"))]
            None => Err(Error::config("--run", "", "must name a run: this program has no model in the box")),
        }
    }

    fn condition(&self) -> Option<Condition> {
        let classes = if self.class.is_empty() { self.cluster.clone() } else { self.class.clone() };
        // Drawn classes by themselves are what the run draws anyway.
        let guidance = self.guidance.unwrap_or(0.0.into());
        (!classes.is_empty() || guidance != 0.0.into()).then_some(Condition { classes, guidance })
    }

    /// Refuses classes that the run does not know, or that are not what the flag says.
    fn check(&self, condition: &Condition, cfg: &ExperimentConfig) -> Result<()> {
        let (flag, from) = match (&self.class[..], &self.cluster[..]) {
            ([], []) => ("--guidance", cfg.classes_from),
            ([], _) => ("--cluster", ClassesFrom::Clusters),
            _ => ("--class", ClassesFrom::Labels),
        };
        let Some(known) = cfg.sdid.classes else {
            let reason = "the run was trained without classes (--set sdid.classes=N, and --set classes_from=labels or clusters)";
            return Err(Error::config(flag, "", reason));
        };
        if from != cfg.classes_from {
            let reason = match cfg.classes_from {
                ClassesFrom::Labels => "the classes of the run are labels: ask by --class",
                ClassesFrom::Clusters => {
                    "the classes of the run are clusters, not labels (clusters.png in its folder shows them): ask by --cluster, or train with --set \
                     sdid.classes=N --set classes_from=labels"
                }
            };
            return Err(Error::config(flag, format!("{:?}", condition.classes), reason));
        }
        // One more is no class, which the library takes, and nobody means here.
        match condition.classes.iter().find(|class| **class as usize >= known) {
            Some(class) => {
                let reason = format!("the run knows {known} classes, counted from 0");
                Err(Error::config(flag, class, reason))
            }
            None => Ok(()),
        }
    }

    fn apply(&self, cfg: ExperimentConfig) -> Result<ExperimentConfig> {
        let mut cfg = set(cfg, "sampling.", &self.set)?;
        cfg.seed = self.seed.map_or(cfg.seed, Seed);
        cfg.sampling.temperature = self.temperature.unwrap_or(cfg.sampling.temperature);
        cfg.sampling.batch_size = self.batch_size.unwrap_or(cfg.sampling.batch_size);
        Ok(cfg)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_sound() {
        Arguments::command().debug_assert();
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert_eq!(parse("generate --run r --out o --n 9").unwrap().n, 9);
        let arguments = parse("generate --run r --out o --format png").unwrap();
        assert_eq!((arguments.format, arguments.batch_size), (vec![Format::Png], None));
        let arguments = parse("generate --format png").unwrap();
        assert_eq!((arguments.run, arguments.out), (None, "generated".into()));
        assert!(parse("generate --run r --out o --format gif").is_err());
        for (flag, value, bad, reason) in [
            ("--n", "-1", "-1", "whole number"),
            ("--batch-size", "-1", "-1", "whole number"),
            ("--seed", "-1", "-1", "whole number"),
            ("--temperature", "-1", "-1", "positive, finite"),
            ("--temperature", "nan", "nan", "positive, finite"),
            ("--temperature", "-inf", "-inf", "positive, finite"),
        ] {
            let text = parse(&format!("generate --run r --out o {flag} {value}")).unwrap_err().to_string();
            assert!(text.contains(&format!("invalid value '{bad}' for '{flag} <")), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }
}
