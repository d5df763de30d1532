//! The command `generate`: images of a finished run as files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use absorbing_diffusion::Schedule;
use candle_core::Device;
use clap::{Parser, ValueEnum};
use snn_core::Seed;
use spiking_diffusion_metrics::{Classifier, FeatureExtractor};

use super::input::Input;
use super::signals::command_line;
use super::workers::Team;
use super::{device, flags, parsed};
use crate::error::{Error, Result};
use crate::experiment::inception;
use crate::generation::{self, Formats, Saved};
use crate::sweep::{self, Reference};
use crate::{Condition, ExperimentConfig, Progress, Trained};

/// Draw images from the networks of a finished run and write them as PNGs, as tensors, or both.
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    after_help = "OUT/png/ then holds one PNG an image, OUT/images-0000.safetensors, .. 500 images \
    each, in [0, 1]. Image i depends on the run, the seed and the temperature alone. The same command again draws what is missing; \
    a larger --n adds images."
)]
pub(super) struct Arguments {
    /// Folder of a finished run, or the file that `pack` has made of one [default: the model in the box, which draws digits]
    #[arg(long, value_name = "RUN_DIR")]
    pub(super) run: Option<PathBuf>,
    /// Images to have in the end
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = flags::count, allow_hyphen_values = true)]
    pub(super) n: usize,
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "generated")]
    pub(super) out: PathBuf,
    /// Images at a time; changes speed and memory, not images [default: the run's own]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    pub(super) batch_size: Option<usize>,
    /// Divides the logits: below 1, the likely gets likelier; 1..0.6 goes from 1 in the first step to 0.6 in the last [default: the run's own]
    #[arg(long, value_name = "T", value_parser = flags::temperatures, allow_hyphen_values = true)]
    pub(super) temperature: Option<Schedule>,
    /// Draw images of this class; several, such as 0,1,2, take turns. The run must have been trained with --set sdid.classes=N
    #[arg(long, value_name = "C,C,..", value_delimiter = ',', value_parser = flags::class, allow_hyphen_values = true,
        conflicts_with = "temperature_sweep")]
    pub(super) class: Vec<u32>,
    /// Exaggerate what sets the class apart so far: 0 is the class alone; 0..4 guides late steps more
    #[arg(long, value_name = "G", default_value = "0", requires = "class", value_parser = flags::guidance, allow_hyphen_values = true)]
    pub(super) guidance: Schedule,
    /// Set another field of the run's sampling, such as steps=10, order=halton or top_p=0.9; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Seed of the images [default: the run's own]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    pub(super) seed: Option<u64>,
    /// What to write
    #[arg(long, value_enum, value_delimiter = ',', default_value = "png,safetensors")]
    pub(super) format: Vec<Format>,
    /// Draw N images at each of these temperatures instead, and write OUT/temperature-sweep.{md,json}
    #[arg(long, value_name = "T,T,..", value_delimiter = ',', value_parser = flags::temperature, allow_hyphen_values = true,
        conflicts_with_all = ["temperature", "format"])]
    pub(super) temperature_sweep: Vec<f64>,
    /// With --temperature-sweep: measure FID to the first N training images with these weights of the FID network
    #[arg(long, value_name = "FILE", requires = "temperature_sweep")]
    pub(super) inception: Option<PathBuf>,
    /// The same by the features of this classifier, as `classify` writes it
    #[arg(long, value_name = "FILE", requires = "temperature_sweep", conflicts_with = "inception")]
    pub(super) classifier: Option<PathBuf>,
    /// Where to compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(super) device: String,
    #[command(flatten, next_help_heading = "The training images that a sweep compares with")]
    pub(super) input: Input,
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
    let goes_on = format!("the same command goes on:\n{}", command_line(None));
    team.end(written, if arguments.temperature_sweep.is_empty() { &goes_on } else { "nothing was written" })
}

/// What there is to say in the end.
fn write_images(arguments: &Arguments, team: &Team, progress: &mut dyn Progress) -> Result<String> {
    let device = device(&arguments.device)?;
    let mut trained = arguments.trained(&device)?;
    if !arguments.temperature_sweep.is_empty() {
        if team.workers().size() > 1 {
            let reason = "draws by one worker: start it without MPI";
            return Err(Error::config("--temperature-sweep", "", reason));
        }
        return temperature_sweep(arguments, trained, &device, progress);
    }
    arguments.apply(&mut trained.cfg)?;
    let formats = Formats {
        png: arguments.format.contains(&Format::Png),
        safetensors: arguments.format.contains(&Format::Safetensors),
    };
    let clock = Instant::now();
    let (n, out) = (arguments.n, &arguments.out);
    let workers = team.workers();
    let saved = match arguments.condition() {
        None => generation::save_over(workers, &trained, n, out, formats, &device, progress)?,
        Some(condition) => {
            let trained = trained.of_classes(condition)?;
            generation::save_over(workers, &trained, n, out, formats, &device, progress)?
        }
    };
    let Some(Saved { drawn, present }) = saved else { return Ok(String::new()) };
    let seconds = clock.elapsed().as_secs_f64();
    Ok(format!(
        "{drawn} images drawn in {seconds:.1} s ({:.1} images/s), {present} were there; in {}",
        drawn as f64 / seconds,
        arguments.out.display()
    ))
}

impl Arguments {
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
        let (classes, guidance) = (self.class.clone(), self.guidance);
        (!classes.is_empty()).then_some(Condition { classes, guidance })
    }

    fn apply(&self, cfg: &mut ExperimentConfig) -> Result<()> {
        for setting in &self.set {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(Error::config("--set", setting, "must have the form key=value"));
            };
            *cfg = cfg.with(&format!("sampling.{key}"), value)?;
        }
        cfg.seed = self.seed.map_or(cfg.seed, Seed);
        cfg.sampling.temperature = self.temperature.unwrap_or(cfg.sampling.temperature);
        cfg.sampling.batch_size = self.batch_size.unwrap_or(cfg.sampling.batch_size);
        Ok(())
    }
}

/// Whose features a sweep compares by, if there are any.
pub(super) fn extractor(
    inception_weights: Option<&Path>,
    classifier: Option<&Path>,
) -> Result<Option<Box<dyn FeatureExtractor>>> {
    Ok(match (inception_weights, classifier) {
        (Some(file), _) => Some(Box::new(inception(file)?)),
        (_, Some(file)) => Some(Box::new(Classifier::load(file)?)),
        _ => None,
    })
}

fn temperature_sweep(
    arguments: &Arguments,
    mut trained: Trained,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<String> {
    let extractor = extractor(arguments.inception.as_deref(), arguments.classifier.as_deref())?;
    let reference = match &extractor {
        Some(extractor) => {
            // Before another seed is set: a lone split was cut by the run's own.
            let data = arguments.input.load_of_run(&trained.cfg, progress)?;
            Some(Reference::new(&**extractor, &data.train, arguments.n, progress)?)
        }
        None => None,
    };
    let temperatures = &arguments.temperature_sweep;
    arguments.apply(&mut trained.cfg)?;
    let sweep =
        sweep::temperatures(&trained, temperatures, arguments.n, reference.as_ref(), device, progress)?;
    sweep.save(&arguments.out)?;
    Ok(sweep.to_markdown())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_sound() {
        Arguments::command().debug_assert();
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        let arguments = parse("generate --run r --out o --temperature-sweep 0.5,1 --n 9").unwrap();
        assert_eq!((arguments.temperature_sweep, arguments.n), (vec![0.5, 1.], 9));
        let arguments = parse("generate --run r --out o --format png").unwrap();
        assert_eq!((arguments.format, arguments.batch_size), (vec![Format::Png], None));
        let arguments = parse("generate --format png").unwrap();
        assert_eq!((arguments.run, arguments.out), (None, "generated".into()));
        for words in [
            "--run r --out o --format gif",
            "--run r --out o --classifier c",
            "--run r --out o --inception i",
        ] {
            assert!(parse(&format!("generate {words}")).is_err(), "{words}");
        }
        for (flag, value, bad, reason) in [
            ("--n", "-1", "-1", "whole number"),
            ("--batch-size", "-1", "-1", "whole number"),
            ("--seed", "-1", "-1", "whole number"),
            ("--temperature", "-1", "-1", "positive, finite"),
            ("--temperature", "nan", "nan", "positive, finite"),
            ("--temperature", "-inf", "-inf", "positive, finite"),
            ("--temperature-sweep", "-1,0.5", "-1", "positive, finite"),
            ("--temperature-sweep", "0.5,-1", "-1", "positive, finite"),
            ("--temperature-sweep", "1,inf", "inf", "positive, finite"),
        ] {
            let text = parse(&format!("generate --run r --out o {flag} {value}")).unwrap_err().to_string();
            assert!(text.contains(&format!("invalid value '{bad}' for '{flag} <")), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }
}
