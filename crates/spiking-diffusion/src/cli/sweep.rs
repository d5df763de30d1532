//! The command `sweep`: images at several temperatures, measured.

use std::path::PathBuf;

use clap::Parser;

use super::input::Input;
use super::{flags, generate};

/// Draw images of a finished run at several temperatures, and measure them.
#[derive(Debug, Parser)]
#[command(name = "sweep", after_help = "OUT/temperature-sweep.md and .json then hold the table.")]
pub(super) struct Arguments {
    /// Folder of a finished run
    #[arg(long, value_name = "RUN_DIR")]
    run: PathBuf,
    /// Divisors of the logits: below 1, the likely gets likelier
    #[arg(
        long,
        value_name = "T,T,..",
        value_delimiter = ',',
        required = true,
        value_parser = flags::temperature,
        allow_hyphen_values = true
    )]
    temperatures: Vec<f64>,
    /// Images at each temperature
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = flags::count, allow_hyphen_values = true)]
    n: usize,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images at a time; changes speed and memory, not images [default: the run's own]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    batch_size: Option<usize>,
    /// Seed of the images [default: the run's own]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Measure FID to the first N training images with these weights of the FID network
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// The same by the features of this classifier, as `classify` writes it
    #[arg(long, value_name = "FILE", conflicts_with = "inception")]
    classifier: Option<PathBuf>,
    /// Where to compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    #[command(flatten, next_help_heading = "The training images to compare with")]
    input: Input,
}

impl From<Arguments> for generate::Arguments {
    fn from(it: Arguments) -> Self {
        Self {
            run: it.run,
            n: it.n,
            out: it.out,
            batch_size: it.batch_size,
            temperature: None,
            seed: it.seed,
            format: Vec::new(),
            temperature_sweep: it.temperatures,
            inception: it.inception,
            classifier: it.classifier,
            device: it.device,
            input: it.input,
        }
    }
}
