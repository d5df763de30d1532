//! How a spike, whose true derivative is zero or infinite, gets a useful gradient: four of the surrogates.
//!
//! Forward, a neuron fires or not: a step function. Backward, the step's derivative is replaced by that of a smooth
//! function. Here a single input weight is trained by gradient descent until the neuron fires at a wanted rate: from a
//! start near the threshold, where every surrogate works, and from one far below it, where those of bounded support
//! have no gradient at all. Prints rates before and after, and draws `surrogate_gradient.png`. Needs no data and takes
//! seconds:
//!
//! `cargo run --release --example surrogate_gradient -- --out runs/surrogate_gradient`

use std::fmt::Write;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use spiking_diffusion::cli;
use spiking_diffusion::plot::{self, Chart, Mark, PALETTE, Series};
use spiking_diffusion::snn_core::{LifConfig, Seed, Surrogate, lif};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// All with `g'(0) = 1`, so that only the shape differs.
const SURROGATES: [(&str, Surrogate); 4] = [
    ("atan", Surrogate::Atan { alpha: 2. }),
    ("sigmoid", Surrogate::Sigmoid { alpha: 4. }),
    ("rectangle", Surrogate::Rectangle { width: 1. }),
    ("triangle", Surrogate::Triangle { width: 1. }),
];
/// The starts, as input weights. The mean input is 1, and so is the threshold.
const STARTS: [(&str, f64); 2] = [("near", 0.7), ("far below", -0.5)];
const TARGET_RATE: f64 = 0.25;
const TIME_STEPS: usize = 32;
const TRIALS: usize = 64;
const TRAINING_STEPS: usize = 200;
const LEARNING_RATE: f64 = 0.4;

/// The course of one training.
struct Course {
    rates: Vec<f64>,
    first_gradient: f64,
    weight: f64,
}

/// Gradient descent on `(rate - target)^2`, where `rate` is the mean of the neuron's spikes under `weight * input`.
fn train(surrogate: Surrogate, start: f64, input: &Tensor) -> Result<Course> {
    let cfg = LifConfig { surrogate, ..LifConfig::default() };
    let weight = Var::new(start, &Device::Cpu)?;
    let (mut rates, mut gradients) = (Vec::new(), Vec::new());
    for _ in 0..TRAINING_STEPS {
        let spikes = lif(&input.broadcast_mul(&weight)?, &cfg)?; // [T, trials]
        let rate = spikes.mean_all()?;
        let loss = (&rate - TARGET_RATE)?.sqr()?;
        let gradient = loss.backward()?.remove(&weight).ok_or("the weight has no gradient")?;
        weight.set(&(weight.as_tensor() - (&gradient * LEARNING_RATE)?)?)?;
        rates.push(rate.to_scalar()?);
        gradients.push(gradient.to_scalar()?);
    }
    Ok(Course { rates, first_gradient: gradients[0], weight: weight.to_scalar()? })
}

/// `f` of every surrogate over the distance to the threshold.
fn shapes(title: &str, f: impl Fn(&Surrogate, f64) -> f64) -> Chart {
    let chart = Chart::new(title, "H - V_th", "");
    SURROGATES.iter().zip(PALETTE).fold(chart, |chart, ((name, surrogate), color)| {
        let points = (-400..=400).map(|i| f64::from(i) / 200.).map(|x| (x, f(surrogate, x)));
        chart.with(Series::new(*name, color, points))
    })
}

/// The rates over training, from one start, with every surrogate.
fn courses(title: String, courses: &[Course]) -> Chart {
    let target = [(0., TARGET_RATE), ((TRAINING_STEPS - 1) as f64, TARGET_RATE)];
    let chart = Chart::new(title, "training step", "spikes per time step")
        .with(Series::new("target", PALETTE[6], target).mark(Mark::Dashed));
    SURROGATES.iter().zip(courses).zip(PALETTE).fold(chart, |chart, (((name, _), course), color)| {
        let points = course.rates.iter().enumerate().map(|(step, rate)| (step as f64, *rate));
        chart.with(Series::new(*name, color, points))
    })
}

fn out_folder() -> Result<PathBuf> {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        (None, ..) => Ok("runs/surrogate_gradient".into()),
        (Some(flag), Some(folder), None) if flag == "--out" => Ok(folder.into()),
        _ => Err("usage: surrogate_gradient [--out DIR]".into()),
    }
}

fn main() -> Result<()> {
    let out = out_folder()?;
    let mut page = String::new();
    let step = Series::new("spike", PALETTE[6], [(-2., 0.), (0., 0.), (0., 1.), (2., 1.)]).mark(Mark::Dashed);
    let mut charts = vec![
        shapes("Forward: the spike, and g", |surrogate, x| surrogate.value(x)).with(step),
        shapes("Backward: g'", |surrogate, x| surrogate.derivative(x)),
    ];

    // The same noisy input for all, drawn once: a rate over many trials changes smoothly with the weight.
    let input = Seed(0).normal("input", (TIME_STEPS, TRIALS), (1., 0.5), DType::F64, &Device::Cpu)?;
    writeln!(page, "target rate {TARGET_RATE}; {TRAINING_STEPS} steps of gradient descent on one weight\n")?;
    writeln!(
        page,
        "{:11}{:12}{:>8}{:>14}{:>10}{:>10}{:>8}",
        "start", "surrogate", "weight", "gradient", "rate", "-> rate", "weight"
    )?;
    let mut as_expected = true;
    for (start, weight) in STARTS {
        let trained: Vec<Course> = SURROGATES
            .iter()
            .map(|(_, surrogate)| train(*surrogate, weight, &input))
            .collect::<Result<_>>()?;
        for ((name, _), course) in SURROGATES.iter().zip(&trained) {
            let (before, after) = (course.rates[0], course.rates[TRAINING_STEPS - 1]);
            writeln!(
                page,
                "{start:11}{name:12}{weight:>8.2}{:>14.2e}{before:>10.4}{after:>10.4}{:>8.2}",
                course.first_gradient, course.weight
            )?;
            let reached = (after - TARGET_RATE).abs() < 0.01;
            as_expected &= reached == (course.first_gradient != 0.);
        }
        charts.push(courses(format!("Training from {start} the threshold (weight {weight})"), &trained));
    }
    writeln!(
        page,
        "\nWhere the membrane never comes within its window, a rectangle or triangle passes no gradient on:"
    )?;
    writeln!(
        page,
        "such a neuron stays silent for ever. The long tails of atan bring it back; those of sigmoid do so later."
    )?;

    std::fs::create_dir_all(&out)?;
    let path = out.join("surrogate_gradient.png");
    plot::save(&path, &charts, 2)?;
    writeln!(page, "\ndrawn: {}", path.display())?;
    writeln!(
        page,
        "check: the target is reached wherever there is a gradient: {}",
        if as_expected { "ok" } else { "WRONG" }
    )?;
    cli::print(page.trim_end())?;
    match as_expected {
        true => Ok(()),
        false => Err("a rate is not what its gradient promised".into()),
    }
}
