//! One leaky integrate-and-fire neuron (paper Eq. 1-3) under three input currents.
//!
//! A steady current below the threshold lifts the membrane and no more. One above it makes the neuron fire like a clock,
//! at an interval that Eq. 1 predicts. A noisy current, below the threshold on average, makes it fire now and then.
//! Prints a table and the traces, and draws `lif_neuron.png`. Needs no data and takes a second:
//!
//! `cargo run --release --example lif_neuron -- --out runs/lif_neuron`

use std::fmt::Write;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::cli;
use spiking_diffusion::plot::{self, Chart, Mark, PALETTE, Series};
use spiking_diffusion::snn_core::{LifConfig, Seed, lif, lif_step};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TIME_STEPS: usize = 100;

/// What the neuron did under one input current; all of length `TIME_STEPS`.
struct Trace {
    name: &'static str,
    current: Vec<f64>,
    /// `H[t]`, before the reset.
    charged: Vec<f64>,
    /// `V[t]`, after it.
    membrane: Vec<f64>,
    spikes: Vec<f64>,
}

/// Step by step: the membrane is a value that goes into a step and comes out of it.
fn simulate(name: &'static str, current: &Tensor, cfg: &LifConfig) -> Result<Trace> {
    let mut v = current.get(0)?.zeros_like()?; // V[-1] = V_reset = 0
    // Where the threshold is out of reach nothing is reset: the step returns H instead of V. For the plot only.
    let silent = LifConfig { v_threshold: f64::MAX, ..*cfg };
    let (mut charged, mut membrane, mut spikes) = (Vec::new(), Vec::new(), Vec::new());
    for t in 0..TIME_STEPS {
        let x = current.get(t)?;
        let (_, h) = lif_step(&x, &v, &silent)?;
        let (spike, next) = lif_step(&x, &v, cfg)?;
        v = next;
        charged.push(h.to_scalar()?);
        spikes.push(spike.to_scalar()?);
        membrane.push(v.to_scalar()?);
    }
    // Networks run all steps of a layer at once, without keeping the membrane.
    if lif(current, cfg)?.to_vec1::<f64>()? != spikes {
        return Err(format!("{name}: lif and lif_step give different spikes").into());
    }
    Ok(Trace { name, current: current.to_vec1()?, charged, membrane, spikes })
}

/// Steps from rest to the threshold under a steady current: Eq. 1 solved, `V[n] = X (1 - (1 - 1/tau)^n)`.
fn predicted_interval(current: f64, cfg: &LifConfig) -> Option<f64> {
    let leak = 1. - 1. / cfg.tau?;
    (current > cfg.v_threshold).then(|| ((1. - cfg.v_threshold / current).ln() / leak.ln()).ceil())
}

impl Trace {
    fn spike_times(&self) -> Vec<usize> {
        (0..TIME_STEPS).filter(|t| self.spikes[*t] == 1.).collect()
    }

    fn table_row(&self, cfg: &LifConfig) -> String {
        let or_none = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        let times = self.spike_times();
        let first = times.first().map(|t| (t + 1) as f64);
        let interval = match times.as_slice() {
            [first, .., last] => Some((last - first) as f64 / (times.len() - 1) as f64),
            _ => None,
        };
        let steady = self.current.iter().all(|x| *x == self.current[0]);
        let predicted = if steady { predicted_interval(self.current[0], cfg) } else { None };
        let mean = self.current.iter().sum::<f64>() / TIME_STEPS as f64;
        format!(
            "{:24}{mean:>8.3}{:>8}{:>8}{:>10}{:>11}",
            self.name,
            times.len(),
            or_none(first),
            or_none(interval),
            or_none(predicted),
        )
    }

    /// A character a step: `|` for a spike, otherwise the membrane in tenths of the threshold.
    fn line(&self, cfg: &LifConfig) -> String {
        let tenths = |v: f64| (10. * v / cfg.v_threshold).floor().clamp(-1., 9.);
        let digit = |v: f64| char::from_digit(tenths(v) as u32, 10).filter(|_| v >= 0.).unwrap_or('-');
        self.membrane.iter().zip(&self.spikes).map(|(v, s)| if *s == 1. { '|' } else { digit(*v) }).collect()
    }

    fn chart(&self, cfg: &LifConfig) -> Chart {
        let at = |t: usize, value: f64| (t as f64, value);
        let current = self.current.iter().enumerate().map(|(t, x)| at(t, *x));
        let threshold = [at(0, cfg.v_threshold), at(TIME_STEPS - 1, cfg.v_threshold)];
        let membrane = (0..TIME_STEPS).flat_map(|t| [at(t, self.charged[t]), at(t, self.membrane[t])]);
        let spikes = self.spike_times().into_iter().map(|t| at(t, self.charged[t]));
        Chart::new(self.name, "time step", "potential")
            .with(Series::new("input current X", PALETTE[5], current).mark(Mark::Faint))
            .with(Series::new("threshold", PALETTE[6], threshold).mark(Mark::Dashed))
            .with(Series::new("membrane, H then V", PALETTE[0], membrane))
            .with(Series::new("spike", PALETTE[1], spikes).mark(Mark::Dots))
    }
}

fn out_folder() -> Result<PathBuf> {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        (None, ..) => Ok("runs/lif_neuron".into()),
        (Some(flag), Some(folder), None) if flag == "--out" => Ok(folder.into()),
        _ => Err("usage: lif_neuron [--out DIR]".into()),
    }
}

fn main() -> Result<()> {
    let out = out_folder()?;
    let mut page = String::new();
    // The paper's neuron forgets within two steps; a slower one shows more.
    let cfg = LifConfig { tau: Some(10.), ..LifConfig::default() };
    let steady = |current: f64| Tensor::full(current, TIME_STEPS, &Device::Cpu);
    let noisy = Seed(0).normal("noise", TIME_STEPS, (0.9, 2.), DType::F64, &Device::Cpu)?;
    let traces = [
        simulate("steady, X = 0.9", &steady(0.9)?, &cfg)?,
        simulate("steady, X = 1.5", &steady(1.5)?, &cfg)?,
        simulate("noisy, X = 0.9 ± 2", &noisy, &cfg)?,
    ];

    writeln!(
        page,
        "{:24}{:>8}{:>8}{:>8}{:>10}{:>11}",
        "input current", "mean X", "spikes", "first", "interval", "by Eq. 1"
    )?;
    for trace in &traces {
        writeln!(page, "{}", trace.table_row(&cfg))?;
    }
    writeln!(page, "\nThe membrane in tenths of the threshold, step by step; | is a spike, - is below 0:")?;
    for trace in &traces {
        writeln!(page, "{}\n  {}", trace.name, trace.line(&cfg))?;
    }
    writeln!(page, "\ncheck: lif gives the spikes of lif_step: ok")?;

    std::fs::create_dir_all(&out)?;
    let path = out.join("lif_neuron.png");
    plot::save(&path, &traces.map(|trace| trace.chart(&cfg)), 1)?;
    writeln!(page, "drawn: {}", path.display())?;
    cli::print(page.trim_end())?;
    Ok(())
}
