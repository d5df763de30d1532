//! The command `sweep`: images by several settings of sampling, measured.

use std::path::PathBuf;
use std::process::ExitCode;

use absorbing_diffusion::{Order, SamplingConfig, Schedule};
use clap::{ArgGroup, Parser};
use snn_core::Seed;
use snn_train::Lock;
use spiking_diffusion_metrics::{Classifier, FeatureExtractor};

use super::device_flags::DeviceFlags;
use super::fad_flag::Fad;
use super::input::Input;
use super::signals::Signals;
use super::{flags, parsed, say, set};
use crate::error::{Error, Result, absent};
use crate::experiment::{GIBBS, inception};
use crate::judge::{Against, FeatureNetwork, Judge};
use crate::sweep::{self as library, Sweep};
use crate::{ExperimentConfig, Progress, Trained};

/// Draw images of a finished run by several settings of sampling, each with each, and measure them.
#[derive(Debug, Parser)]
#[command(
    name = "sweep",
    group = ArgGroup::new("varied").required(true).multiple(true),
    after_help = "OUT/sweep.md, .json and .png hold the table and a chart of what is done so far, after every setting. Distances are to \
    training images unless told otherwise, so that what is chosen by them is not chosen on the test set."
)]
pub(super) struct Arguments {
    /// Folder of a finished run, or the file that `pack` has made of one
    #[arg(long, value_name = "RUN_DIR")]
    run: PathBuf,
    /// Divisors of the logits: below 1, the likely gets likelier; 1..0.6 goes from 1 in the first step to 0.6 in the last
    #[arg(long, group = "varied", value_name = "T,T,..", value_delimiter = ',', value_parser = flags::temperatures,
        allow_hyphen_values = true)]
    temperatures: Vec<Schedule>,
    /// Shares of the probability that tokens are drawn from, the likeliest codes first, such as 0.9,0.95,1
    #[arg(long, group = "varied", value_name = "P,P,..", value_delimiter = ',', value_parser = flags::probability,
        allow_hyphen_values = true)]
    top_p: Vec<f64>,
    /// How many times as high as trained the neurons' thresholds are, such as 0.95,1,1.05
    #[arg(long, group = "varied", value_name = "S,S,..", value_delimiter = ',', value_parser = flags::positive,
        allow_hyphen_values = true)]
    v_threshold_scales: Vec<f64>,
    /// Numbers of steps, such as 5,10,16,25,49,98
    #[arg(long, group = "varied", value_name = "N,N,..", value_delimiter = ',', value_parser = flags::count,
        allow_hyphen_values = true)]
    steps: Vec<usize>,
    /// How tokens are picked [default: with --steps posterior,exact_k,halton,confidence,remasking,gibbs]
    #[arg(long, group = "varied", value_name = "ORDER,..", value_delimiter = ',', value_parser = flags::order)]
    orders: Vec<Order>,
    /// Set another field of the run's sampling for all images, such as top_k=20; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Images of each setting
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = flags::count, allow_hyphen_values = true)]
    n: usize,
    /// Folder to write to, which must not hold a sweep yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep the sweep in the output folder, if there is one, and add what it lacks: for a command that was stopped, or further settings
    #[arg(long)]
    resume: bool,
    /// Images at a time; changes speed and memory, not images [default: the run's own]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    batch_size: Option<usize>,
    /// Seed of the images [default: the run's own]
    #[arg(long, value_name = "S", value_parser = flags::seed, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Measure FID with these weights of the FID network
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// The same by the features of this classifier, as `classify` writes it
    #[arg(long, value_name = "FILE", conflicts_with = "inception")]
    classifier: Option<PathBuf>,
    #[command(flatten)]
    fad: Fad,
    /// Real images that distances are to [default: train]
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// How many of them, the first ones; FAD to test images takes all [default: as many as are drawn, or all there are]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    real: Option<usize>,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten, next_help_heading = "The real images")]
    input: Input,
}

/// Runs the whole of the example `sweep`.
pub fn sweep() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    let signals = Signals::listen();
    match measured(arguments, &mut signals.progress()) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(e) => {
            signals.failure(&e, "the settings that were done are in the output folder: go on with --resume")
        }
    }
}

/// What there is to say in the end.
fn measured(arguments: &Arguments, progress: &mut dyn Progress) -> Result<String> {
    arguments.check()?;
    let (device, out) = (arguments.device.open(|| 0)?, &arguments.out);
    let mut trained = Trained::load(&arguments.run, &device)?;
    trained.cfg = set(trained.cfg, "sampling.", &arguments.set)?;
    let settings = arguments.settings(trained.cfg.sampling);
    library::check(&settings, arguments.n)?;
    // Before hours of drawing: whether there can be such a folder, and nothing in it is lost.
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let lock = out.join(".lock");
    let lock = Lock::at_once(&lock).map_err(Error::io(&lock))?;
    let _lock = lock.ok_or_else(|| Error::run(out, "another process is running in this folder"))?;
    let done = match arguments.resume && out.join("sweep.json").exists() {
        true => Some(Sweep::load(out)?),
        false => None,
    };
    if done.is_none() {
        ["sweep.json", "sweep.md", "sweep.png"].iter().try_for_each(|file| absent(&out.join(file)))?;
    }
    // Before another seed is set: a lone split was cut by the run's own.
    let judges = arguments.judges(&trained.cfg, progress)?;
    trained.cfg.seed = arguments.seed.map_or(trained.cfg.seed, Seed);
    let mut sweep = Sweep::new(&trained, arguments.n, &judges, &device)?;
    if let Some(done) = done {
        done.check_same(&sweep)?;
        sweep = done;
    }
    for sampling in settings {
        sweep.add(&trained, sampling, &judges, &device, progress)?;
        sweep.save(out).inspect_err(|_| say(&sweep.to_markdown()))?;
    }
    Ok(sweep.to_markdown())
}

impl Arguments {
    /// Refuses what is said of real images where no network is to see them.
    fn check(&self) -> Result<()> {
        if self.inception.is_some() || self.classifier.is_some() || self.fad.is_given() {
            return Ok(());
        }
        let given = [
            ("--against", self.against.map(|it| format!("{it:?}").to_lowercase())),
            ("--real", self.real.map(|count| count.to_string())),
            ("--data-dir", self.input.folder_of_flag().map(|folder| folder.display().to_string())),
            ("--download", self.input.download.then(|| true.to_string())),
        ];
        flags::refuse(
            given,
            "is for distances, and none is measured without --inception, --classifier or --fad",
        )
    }

    /// What distances are measured by.
    fn judges(&self, cfg: &ExperimentConfig, progress: &mut dyn Progress) -> Result<Vec<Judge>> {
        let extractor: Option<Box<dyn FeatureExtractor>> = match (&self.inception, &self.classifier) {
            (Some(file), _) => Some(Box::new(inception(file)?)),
            (_, Some(file)) => Some(Box::new(Classifier::load(file)?)),
            _ => None,
        };
        let fad = self.fad.files(&cfg.data.name, progress)?;
        if extractor.is_none() && fad.is_none() {
            return Ok(Vec::new());
        }
        let data = self.input.load_of_run(cfg, progress)?;
        let against = self.against.unwrap_or_default();
        let there = against.of(&data).0.len();
        let count = self.real.unwrap_or(self.n.min(there));
        let extractor = extractor.map(FeatureNetwork::Extractor);
        let extractor =
            extractor.map(|network| Judge::new(network, against, &data, count, progress)).transpose()?;
        let fad = fad.map(|files| files.judge(against, &data, count, progress)).transpose()?;
        Ok(extractor.into_iter().chain(fad).collect())
    }

    /// Each value of what varies with each of the others; the run's own where nothing varies.
    fn settings(&self, own: SamplingConfig) -> Vec<SamplingConfig> {
        let all =
            [Order::Posterior, Order::ExactK, Order::Halton, flags::CONFIDENCE, flags::REMASKING, GIBBS];
        let one_is_set = self.set.iter().any(|setting| setting.starts_with("order"));
        let orders = match self.orders.is_empty() && !self.steps.is_empty() && !one_is_set {
            true => &all[..],
            false => &self.orders,
        };
        let own = SamplingConfig { batch_size: self.batch_size.unwrap_or(own.batch_size), ..own };
        let found = vec![own];
        let found = each(found, &self.temperatures, |it, temperature| SamplingConfig { temperature, ..it });
        let found = each(found, &self.top_p, |it, p| SamplingConfig { top_p: Some(p), ..it });
        let found = each(found, &self.v_threshold_scales, |it, scale| SamplingConfig {
            v_threshold_scale: Some(scale),
            ..it
        });
        let found = each(found, orders, |it, order| SamplingConfig { order, ..it });
        each(found, &self.steps, |it, steps| SamplingConfig { steps: Some(steps), ..it })
    }
}

/// These settings with each of the values.
fn each<T: Copy>(
    settings: Vec<SamplingConfig>,
    values: &[T],
    with: impl Fn(SamplingConfig, T) -> SamplingConfig,
) -> Vec<SamplingConfig> {
    if values.is_empty() {
        return settings;
    }
    settings
        .into_iter()
        .flat_map(|it| values.iter().map(|&value| with(it, value)).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> std::result::Result<Arguments, clap::Error> {
        Arguments::try_parse_from(format!("sweep --run r --out o {words}").split_whitespace())
    }

    #[test]
    fn the_command_is_sound() {
        Arguments::command().debug_assert();
        assert_eq!(parse("--temperatures 1").unwrap().against, None);
        assert_eq!(parse("--temperatures 1 --against test").unwrap().against, Some(Against::Test));
        for words in
            ["", "--n 9", "--orders up", "--steps 5 --against both", "--steps 5 --inception i --classifier c"]
        {
            assert!(parse(words).is_err(), "{words}");
        }
        for (flag, value, bad, reason) in [
            ("--temperatures", "-1,0.5", "-1", "positive, finite"),
            ("--temperatures", "0.5,-1", "-1", "positive, finite"),
            ("--temperatures", "1,inf", "inf", "positive, finite"),
            ("--v-threshold-scales", "0.9,0", "0", "positive, finite"),
            ("--top-p", "0.9,1.1", "1.1", "[0, 1]"),
            ("--steps", "5,-1", "-1", "whole number"),
        ] {
            let text = parse(&format!("{flag} {value}")).unwrap_err().to_string();
            assert!(text.contains(&format!("invalid value '{bad}' for '{flag} <")), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn real_images_are_named_for_a_network_only() {
        let refused = |words: &str| {
            let arguments = parse(&format!("--steps 5 {words}")).unwrap();
            arguments.check().err().map(|e| e.to_string())
        };
        for (flag, value) in
            [("--against", " test"), ("--real", " 9"), ("--data-dir", " d"), ("--download", "")]
        {
            let words = format!("{flag}{value}");
            let error = refused(&words).unwrap();
            assert!(error.contains(&format!("`{flag}`")) && error.contains("--fad"), "{error}");
            for network in ["--inception i", "--classifier c", "--fad f"] {
                assert_eq!(refused(&format!("{words} {network}")), None);
            }
        }
        assert_eq!(refused(""), None);
    }

    #[test]
    fn every_value_meets_every_other() {
        let own = SamplingConfig { top_k: Some(7), ..SamplingConfig::default() };
        let found =
            parse("--temperatures 0.9,1..0.5 --top-p 0.9,1 --v-threshold-scales 1.1").unwrap().settings(own);
        let told = |it: &SamplingConfig| {
            (it.temperature.to_string(), it.top_p, it.v_threshold_scale, it.top_k, it.steps)
        };
        let expected = |t: &str, p| (t.to_owned(), Some(p), Some(1.1), Some(7), None);
        let lines =
            [expected("0.9", 0.9), expected("0.9", 1.), expected("1 to 0.5", 0.9), expected("1 to 0.5", 1.)];
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), lines);
        assert!(found.iter().all(|it| it.order == own.order && it.batch_size == own.batch_size));

        let found = parse("--steps 5,10 --batch-size 3").unwrap().settings(own);
        assert_eq!((found.len(), found[0].order, found[11].order), (12, Order::Posterior, GIBBS));
        assert_eq!((found[0].steps, found[1].steps, found[11].batch_size), (Some(5), Some(10), 3));
        let found = parse("--steps 5,10 --orders halton").unwrap().settings(own);
        assert!(found.len() == 2 && found.iter().all(|it| it.order == Order::Halton));
    }
}
