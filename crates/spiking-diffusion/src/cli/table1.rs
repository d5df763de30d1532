//! The command `table1`: finished runs beside the paper's Table 1.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use snn_train::read_json;

use super::published::{fad as published_fad, paper};
use super::{answer, failed, parsed, say};
use crate::Report;
use crate::error::Result;
use crate::report::held_out_note;

/// Print the metrics of finished runs beside those of the paper's Table 1.
#[derive(Debug, Parser)]
#[command(name = "table1")]
pub(super) struct Arguments {
    /// Folders of finished runs; what one lacks is shown as `-`
    #[arg(required = true, value_name = "RUN_DIR")]
    runs: Vec<PathBuf>,
    /// Print JSON instead of Markdown
    #[arg(long)]
    json: bool,
}

const METRICS: [&str; 5] = ["MSE", "1 - SSIM", "KID", "FID", "FAD"];
const DECIMALS: [usize; 5] = [4, 3, 3, 2, 2];
const PAPER_PROTOCOL: &str = "The paper's rows: its own protocol (1,280 generated images against the first 1,280 test \
    images, its own Inception preprocessing), 100 epochs of each network; FSVAE as the paper printed it.";

const FAD_PROTOCOL: &str = "FAD: features of FSVAE's published autoencoder, statistics of batches, against the published ones of the test \
    images; in brackets the number of generated images, which biases it: only equal numbers are compared. FSVAE, ESVAE and FSDDIM as \
    their own papers print it.";

type Numbers = [Option<f64>; 5];

/// What is printed as JSON.
#[derive(Serialize)]
struct Table {
    metrics: [&'static str; 5],
    paper_protocol: &'static str,
    fad_protocol: &'static str,
    runs: Vec<Run>,
}

/// A run's numbers, the paper's, its budget and protocol.
#[derive(Serialize)]
struct Run {
    /// The run's folder, as it was given (what is no Unicode of it replaced).
    run: String,
    /// Why there are no numbers.
    error: Option<String>,
    dataset: Option<String>,
    /// The model, where it is not the paper's.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    partial: Option<String>,
    /// Training images in the place of the test images.
    held_out: usize,
    ours: Numbers,
    /// Features that FID and KID were measured with; the paper's have 2048 of an Inception.
    features: Option<usize>,
    /// Generated images that FAD was measured on.
    fad_images: Option<usize>,
    /// FAD as others have published it, each with its number of generated images.
    published_fad: &'static [(&'static str, f64, usize)],
    spiking_diffusion: Option<[f64; 4]>,
    fsvae: Option<[f64; 4]>,
    budget: Option<String>,
    protocol: Option<String>,
}

/// Runs the whole of the example `table1`; it fails if one of the runs cannot be read, after the others.
pub fn table1() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    let runs: Vec<Run> = arguments.runs.iter().map(|folder| Run::of(folder)).collect();
    let errors: Vec<String> = runs.iter().filter_map(|run| run.error.clone()).collect();
    let table = Table { metrics: METRICS, paper_protocol: PAPER_PROTOCOL, fad_protocol: FAD_PROTOCOL, runs };
    let text = if arguments.json { serde_json::to_string_pretty(&table) } else { Ok(table.to_markdown()) };
    match text {
        Ok(text) => {
            let written = answer(text.trim_end());
            errors.iter().for_each(|error| say(&format!("error: {error}")));
            if errors.is_empty() { written } else { ExitCode::FAILURE }
        }
        Err(e) => failed(&e),
    }
}

impl Run {
    fn of(folder: &Path) -> Self {
        Self::read(folder).unwrap_or_else(|e| Self {
            run: folder.to_string_lossy().into_owned(),
            error: Some(e.to_string()),
            dataset: None,
            model: None,
            partial: None,
            held_out: 0,
            ours: [None; 5],
            features: None,
            fad_images: None,
            published_fad: &[],
            spiking_diffusion: None,
            fsvae: None,
            budget: None,
            protocol: None,
        })
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("report.json");
        let report: Report = read_json(&path)?;
        let (metrics, distance) = (&report.metrics, report.metrics.distance.as_ref());
        let (kid, fid) = (distance.map(|d| d.kid), distance.map(|d| d.fid));
        let fad = metrics.fad.as_ref();
        let ours = [Some(metrics.mse), Some(1. - metrics.ssim), kid, fid, fad.map(|d| d.fad)];
        let budget = format!(
            "{}preset {}, seed {}, {} on {} training images, {}",
            report.model.as_ref().map_or(String::new(), |model| format!("model {model}, ")),
            report.preset,
            report.seed,
            report.epochs.in_words(),
            report.train_images,
            report.measured_on()
        );
        let paper = paper(&report.dataset);
        Ok(Self {
            run: folder.to_string_lossy().into_owned(),
            error: None,
            model: report.model,
            partial: report.partial,
            held_out: report.held_out,
            ours,
            features: distance.map(|d| d.dims),
            fad_images: fad.map(|d| d.generated_images),
            published_fad: published_fad(&report.dataset),
            spiking_diffusion: paper.map(|paper| paper[0]),
            fsvae: paper.map(|paper| paper[1]),
            budget: Some(budget),
            protocol: Some(report.protocol),
            dataset: Some(report.dataset),
        })
    }

    fn dataset(&self) -> &str {
        self.dataset.as_deref().unwrap_or("-")
    }
}

impl Table {
    /// A row a run, data set by data set, each followed by the paper's; then what the numbers mean.
    fn to_markdown(&self) -> String {
        let mut page = format!(
            "| data set | from | {} |\n| --- | --- | --- | --- | --- | --- | --- |\n",
            METRICS.join(" | ")
        );
        let mut seen = Vec::new();
        for run in &self.runs {
            if seen.contains(&run.dataset()) {
                continue;
            }
            seen.push(run.dataset());
            let same = || self.runs.iter().filter(|other| other.dataset() == run.dataset());
            for other in same() {
                row(&mut page, run.dataset(), &other.from(), other.ours, (other.features, other.fad_images));
            }
            for (name, numbers) in
                [("Spiking-Diffusion (paper)", run.spiking_diffusion), ("FSVAE (paper)", run.fsvae)]
            {
                if let Some(numbers) = numbers {
                    let [mse, ssim, kid, fid] = numbers.map(Some);
                    row(&mut page, run.dataset(), name, [mse, ssim, kid, fid, None], (None, None));
                }
            }
            for &(name, fad, images) in run.published_fad {
                let numbers = [None, None, None, None, Some(fad)];
                row(&mut page, run.dataset(), &format!("{name} (its paper)"), numbers, (None, Some(images)));
            }
        }
        let _ = write!(
            page,
            "\nSmaller is better; `-`: not measured. In brackets, the number of features of KID and FID where it is not the paper's 2048: \
             distances of other features cannot be compared.\n\n- {PAPER_PROTOCOL}\n- {FAD_PROTOCOL}\n"
        );
        self.runs.iter().for_each(|run| page.push_str(&run.note()));
        page
    }
}

impl Run {
    /// The run, with the model that made it.
    fn from(&self) -> String {
        let model = self.model.as_ref().map(|model| format!("{model} "));
        format!("{}{}", model.unwrap_or_default(), code(&self.run))
    }

    fn note(&self) -> String {
        let run = code(&self.run);
        let (Some(budget), Some(protocol)) = (&self.budget, &self.protocol) else {
            return format!("- {run}: {}\n", one_line(self.error.as_deref().unwrap_or("-")));
        };
        let partial = self.partial.as_ref().map_or(String::new(), |p| format!(" **Partial data:** {p}."));
        let held_out = held_out_note(self.held_out).map_or(String::new(), |note| format!(" **{note}**"));
        format!("- {run}: {}\n", one_line(&format!("{budget}.{partial}{held_out} {protocol}")))
    }
}

fn row(
    page: &mut String,
    dataset: &str,
    from: &str,
    numbers: Numbers,
    (features, fad_images): (Option<usize>, Option<usize>),
) {
    let bracket = |n: Option<usize>| n.map_or(String::new(), |n| format!(" ({n})"));
    let (features, fad_images) = (bracket(features.filter(|&n| n != 2048)), bracket(fad_images));
    let notes = ["", "", &features, &features, &fad_images];
    let number = |i: usize| match numbers[i] {
        Some(number) => format!("{number:.0$}{1}", decimals(number, DECIMALS[i]), notes[i]),
        None => "-".to_owned(),
    };
    let cells: Vec<String> = (0..numbers.len()).map(number).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(page, "| {} | {} | {} |", cell(dataset), cell(from), cells.join(" | "));
}

/// Decimals that show two digits at least of a small number.
fn decimals(number: f64, usual: usize) -> usize {
    let first = -number.abs().log10().floor();
    if (0. ..10.).contains(&first) { usual.max(first as usize + 1) } else { usual }
}

/// Text as a cell of a table, whose bars would end it.
fn cell(text: &str) -> String {
    let text = one_line(text);
    if text.contains('|') { text.replace('\\', r"\\").replace('|', r"\|") } else { text }
}

/// Text in between backticks, more of them than it holds in a row.
fn code(text: &str) -> String {
    let text = one_line(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let (fence, space) = ("`".repeat(longest + 1), if longest > 0 { " " } else { "" });
    format!("{fence}{space}{text}{space}{fence}")
}

/// Line breaks, and whatever else is not for eyes, as escapes.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests;
