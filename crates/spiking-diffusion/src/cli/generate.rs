//! The example `generate`: images of a finished run as files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use snn_core::Seed;

use super::signals::{Signals, command_line};
use super::{device, say};
use crate::error::Result;
use crate::generation::{self, Formats, Saved};
use crate::{Progress, Trained};

/// Draw images from the networks of a finished run and write them as PNGs, as tensors, or both.
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    after_help = "OUT/png/ then holds one PNG an image, OUT/images-0000.safetensors, .. 500 images \
    each, in [0, 1]. Image i depends on the run, the seed and the temperature alone. The same command again draws what is missing; \
    a larger --n adds images."
)]
struct Arguments {
    /// Folder of a finished run
    #[arg(long, value_name = "RUN_DIR")]
    run: PathBuf,
    /// Images to have in the end
    #[arg(long, value_name = "N", default_value_t = 64)]
    n: usize,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images at a time; changes speed and memory, not images [default: the run's own]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Divides the logits: below 1, the likely gets likelier [default: the run's own]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Seed of the images [default: the run's own]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What to write
    #[arg(long, value_enum, value_delimiter = ',', default_value = "png,safetensors")]
    format: Vec<Format>,
    /// Where to compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    Png,
    Safetensors,
}

/// The whole of the example `generate`.
pub fn generate() -> ExitCode {
    let (arguments, signals) = (Arguments::parse(), Signals::listen());
    let clock = Instant::now();
    match run(&arguments, &mut signals.progress()) {
        Ok(Saved { drawn, present }) => {
            let seconds = clock.elapsed().as_secs_f64();
            say(&format!(
                "{drawn} images drawn in {seconds:.1} s ({:.1} images/s), {present} were there; in {}",
                drawn as f64 / seconds,
                arguments.out.display()
            ));
            ExitCode::SUCCESS
        }
        Err(e) => signals.failure(&e, &format!("the same command goes on:\n{}", command_line(None))),
    }
}

fn run(arguments: &Arguments, progress: &mut dyn Progress) -> Result<Saved> {
    let device = device(&arguments.device)?;
    let mut trained = Trained::load(&arguments.run, &device)?;
    let cfg = &mut trained.cfg;
    cfg.seed = arguments.seed.map_or(cfg.seed, Seed);
    cfg.sampling.temperature = arguments.temperature.unwrap_or(cfg.sampling.temperature);
    cfg.sampling.batch_size = arguments.batch_size.unwrap_or(cfg.sampling.batch_size);
    let formats = Formats {
        png: arguments.format.contains(&Format::Png),
        safetensors: arguments.format.contains(&Format::Safetensors),
    };
    generation::save(&trained, arguments.n, &arguments.out, formats, &device, progress)
}
