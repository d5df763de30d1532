//! The command `sweep`: images at several temperatures, or by several orders in several numbers of steps, measured.

use std::path::PathBuf;
use std::process::ExitCode;

use absorbing_diffusion::{Order, Schedule};
use clap::Parser;
use snn_core::Seed;
use spiking_diffusion_metrics::Fad;

use super::input::Input;
use super::signals::Signals;
use super::{device, flags, generate, say};
use crate::error::Result;
use crate::steps::{self, Judge};
use crate::{Progress, Trained};

/// Draw images of a finished run at several temperatures, or in several numbers of steps, and measure them.
#[derive(Debug, Parser)]
#[command(
    name = "sweep",
    after_help = "OUT/temperature-sweep.md and .json then hold the table; with --steps OUT/steps.md, .json and .png."
)]
pub(super) struct Arguments {
    /// Folder of a finished run
    #[arg(long, value_name = "RUN_DIR")]
    run: PathBuf,
    /// Divisors of the logits: below 1, the likely gets likelier
    #[arg(
        long,
        value_name = "T,T,..",
        value_delimiter = ',',
        required_unless_present = "steps",
        value_parser = flags::temperature,
        allow_hyphen_values = true
    )]
    temperatures: Vec<f64>,
    /// Numbers of steps, in place of temperatures, such as 5,10,16,25,49,98
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', conflicts_with = "temperatures", value_parser = flags::count,
        allow_hyphen_values = true)]
    steps: Vec<usize>,
    /// With --steps: how tokens are picked
    #[arg(long, value_name = "ORDER,..", value_delimiter = ',', value_parser = flags::order,
        default_value = "posterior,exact_k,halton,confidence,remasking")]
    orders: Vec<Order>,
    /// With --steps: also measure FAD with this network, such as mnist_64.pth
    #[arg(long, value_name = "FILE", requires = "steps")]
    fad: Option<PathBuf>,
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

pub(super) fn start(arguments: Arguments) -> ExitCode {
    if arguments.steps.is_empty() {
        return generate::start(&arguments.into());
    }
    let signals = Signals::listen();
    match sweep_steps(&arguments, &mut signals.progress()) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(e) => signals.failure(&e, "nothing was written"),
    }
}

/// What there is to say in the end.
fn sweep_steps(arguments: &Arguments, progress: &mut dyn Progress) -> Result<String> {
    let device = device(&arguments.device)?;
    let mut trained = Trained::load(&arguments.run, &device)?;
    let extractor = generate::extractor(arguments.inception.as_deref(), arguments.classifier.as_deref())?;
    let fad = arguments.fad.as_ref().map(Fad::open).transpose()?.map(|fad| fad.with_range([-0.5, 0.5]));
    let judges: Vec<Judge<'_>> = extractor
        .iter()
        .map(|extractor| Judge::Extractor(&**extractor))
        .chain(fad.iter().map(Judge::Fad))
        .collect();
    // Before another seed is set: a lone split was cut by the run's own.
    let data = arguments.input.load_of_run(&trained.cfg, progress)?;
    trained.cfg.seed = arguments.seed.map_or(trained.cfg.seed, Seed);
    let sampling = &mut trained.cfg.sampling;
    sampling.batch_size = arguments.batch_size.unwrap_or(sampling.batch_size);
    let training = (&data.train, arguments.n);
    let found =
        steps::steps(&trained, &arguments.orders, &arguments.steps, training, &judges, &device, progress)?;
    found.save(&arguments.out)?;
    Ok(found.to_markdown())
}

impl From<Arguments> for generate::Arguments {
    fn from(it: Arguments) -> Self {
        Self {
            run: Some(it.run),
            n: it.n,
            out: it.out,
            batch_size: it.batch_size,
            temperature: None,
            class: Vec::new(),
            guidance: Schedule::Constant(0.),
            set: Vec::new(),
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
