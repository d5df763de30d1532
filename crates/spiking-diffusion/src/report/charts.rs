//! The charts of a run beside its losses.

use snn_train::RunDir;

use super::Report;
use super::plot::{self, Bar, Chart, Mark, PALETTE, Series};
use crate::error::Result;

/// How often each code occurs in the test images.
pub(crate) fn save_codebook(counts: &[u64], run: &RunDir) -> Result<()> {
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
pub(crate) fn save_firing_rates(report: &Report, run: &RunDir) -> Result<()> {
    let bar = |(name, rate): (String, f64)| Bar {
        color: PALETTE[usize::from(name.starts_with("sdid"))],
        name,
        value: rate,
        label: format!("{:.1} %", 100. * rate),
    };
    let bars: Vec<_> = report.ordered_rates().into_iter().map(bar).collect();
    plot::save_bars(&run.file("firing_rates.png"), "Firing rates: spikes a neuron and time step", &bars)
}
