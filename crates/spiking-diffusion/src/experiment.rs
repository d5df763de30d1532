//! A whole run, from data to report.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use vq_svae::VqSvae;

use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::plot::{self, Bar, Chart, Mark, PALETTE, Series};
use crate::report::Machine;
use crate::starter::Starter;
use crate::{
    ExperimentConfig, Features, Progress, Report, RunDir, distance, encode_dataset, evaluate, generate,
    picture, train_sdid, train_vqsvae, unmasking,
};

/// Trains, encodes, samples, measures and reports, all into the folder `out`.
///
/// With `resume`, goes on where an earlier run of the same config in that folder stopped, and ends with the same
/// bytes as one that never did (times aside).
///
/// # Errors
/// A config that does not [validate](ExperimentConfig::validate) or was made for other data; a folder that
/// [cannot be taken](RunDir::open); a loss that is not finite; files that cannot be read or written.
pub fn run_experiment(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Report> {
    run_experiment_with(cfg, data, out, resume, device, &Features::None, progress)
}

/// [`run_experiment`], and the distances of `cfg.evaluation.distance_images` generated images to as many test images.
///
/// # Errors
/// As [`run_experiment`]; features that cannot be had: weights that cannot be read or lack a layer, images that the
/// network does not take.
pub fn run_experiment_with(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    features: &Features,
    progress: &mut dyn Progress,
) -> Result<Report> {
    run_started(cfg, data, out, resume, device, (features, Starter::Example), progress)
}

/// [`run_experiment_with`], whose report says how to start the same program again.
pub(crate) fn run_started(
    cfg: &ExperimentConfig,
    data: &Dataset,
    out: &Path,
    resume: bool,
    device: &Device,
    (features, starter): (&Features, Starter),
    progress: &mut dyn Progress,
) -> Result<Report> {
    cfg.validate_for(data)?;
    let count = cfg.evaluation.distance_images;
    let features = if count > 0 { features } else { &Features::None };
    features.validate(data)?;
    let run = RunDir::open(out, cfg, resume)?;
    let vqsvae = train_vqsvae(cfg, &data.train, &run, device, progress)?;
    let codes = encode_dataset(cfg, &vqsvae, data, &run, device, progress)?;
    save_reconstructions(&vqsvae, &data.test, &run, device)?;
    let sdid = train_sdid(cfg, &codes.train, &run, device, progress)?;
    crate::loss_plot::save(cfg, &run)?;

    let clock = Instant::now();
    let samples: Tensor = generate(cfg, (&vqsvae, &sdid), 0..cfg.samples, device, progress)?;
    run.record_seconds("sample", clock.elapsed().as_secs_f64())?;
    picture::save_grid(&run.file("samples.png"), &samples, picture::square(cfg.samples).1)?;

    unmasking::save(cfg, (&vqsvae, &sdid), &run, device)?;

    let clock = Instant::now();
    let mut evaluation = evaluate(cfg, (&vqsvae, &sdid), &data.test, &codes.test, device, progress)?;
    run.record_seconds("evaluate", clock.elapsed().as_secs_f64())?;

    if *features != Features::None {
        let clock = Instant::now();
        // The first ones are there already, and image i is the same in any range.
        let (there, wanted) = (samples.narrow(0, 0, cfg.samples.min(count))?, cfg.samples.min(count)..count);
        let generated = match wanted.is_empty() {
            true => there,
            false => Tensor::cat(&[there, generate(cfg, (&vqsvae, &sdid), wanted, device, progress)?], 0)?,
        };
        evaluation.metrics.distance =
            distance::measure(cfg, features, data, (&vqsvae, &generated), &run, device, progress)?;
        run.record_seconds("distance", clock.elapsed().as_secs_f64())?;
    }
    save_codebook(&evaluation.code_counts, &run)?;
    let machine = Machine::here(&name_of(device));
    let report = Report::new(cfg, evaluation, (features, starter), run.seconds()?, machine);
    save_firing_rates(&report, &run)?;
    report.save(&run)?;
    Ok(report)
}

/// The first test images over what comes back of them.
fn save_reconstructions(vqsvae: &VqSvae, test: &Split, run: &RunDir, device: &Device) -> Result<()> {
    let originals = test.range(0..test.len().min(16), device)?;
    let again: Tensor = vqsvae.decode(&vqsvae.encode(&originals)?)?;
    picture::save_pairs(&run.file("reconstructions.png"), &originals, &again)
}

/// How often each code occurs in the test images.
fn save_codebook(counts: &[u64], run: &RunDir) -> Result<()> {
    let mut counts = counts.to_vec();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let share = (1..).zip(&counts).map(|(rank, &n)| (f64::from(rank), 100. * n as f64 / total));
    let used = counts.iter().filter(|&&n| n > 0).count();
    let title = format!("{used} of {} codes in use", counts.len());
    let chart = Chart::new(title, "codes, the most frequent first", "% of the test codes")
        .with(Series::new("", PALETTE[0], share).mark(Mark::Bars));
    plot::save(&run.file("codebook.png"), &[chart], 1)
}

/// How often the neurons of each layer spike.
fn save_firing_rates(report: &Report, run: &RunDir) -> Result<()> {
    let bar = |(name, rate): (String, f64)| Bar {
        color: PALETTE[usize::from(name.starts_with("sdid"))],
        name,
        value: rate,
        label: format!("{:.1} %", 100. * rate),
    };
    let bars: Vec<_> = report.ordered_rates().into_iter().map(bar).collect();
    plot::save_bars(&run.file("firing_rates.png"), "Firing rates: spikes a neuron and time step", &bars)
}

fn name_of(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
