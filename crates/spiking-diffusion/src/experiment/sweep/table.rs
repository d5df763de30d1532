//! A sweep as a table and as a chart.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use absorbing_diffusion::{Order, Schedule};
use snn_train::write_json;

use super::{Row, Sweep};
use crate::error::{Error, Result};

const FILE: &str = "sweep";

/// Where a table lies in its folder.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(format!("{FILE}.json"))
}

/// Something that rows may differ in.
struct Setting {
    name: &'static str,
    cell: fn(&Row) -> String,
    /// As a number, where it is one.
    #[cfg_attr(not(feature = "report"), allow(dead_code, reason = "for charts"))]
    number: fn(&Row) -> Option<f64>,
    /// Whether the table leaves it out if no row sets it.
    optional: bool,
}

const SETTINGS: [Setting; 6] = [
    Setting {
        name: "temperature",
        cell: |row| row.sampling.temperature.to_string(),
        number: |row| match row.sampling.temperature {
            Schedule::Constant(temperature) => Some(temperature),
            Schedule::Linear { .. } => None,
        },
        optional: false,
    },
    Setting {
        name: "top-k",
        cell: |row| or_dash(row.sampling.top_k),
        number: |row| row.sampling.top_k.map(|k| k as f64),
        optional: true,
    },
    Setting {
        name: "top-p",
        cell: |row| or_dash(row.sampling.top_p),
        number: |row| row.sampling.top_p,
        optional: true,
    },
    Setting {
        name: "thresholds x",
        cell: |row| or_dash(row.sampling.v_threshold_scale),
        number: |row| row.sampling.v_threshold_scale,
        optional: true,
    },
    Setting { name: "order", cell: |row| name(row.sampling.order), number: |_| None, optional: false },
    Setting {
        name: "steps",
        cell: |row| row.steps.to_string(),
        number: |row| Some(row.steps as f64),
        optional: false,
    },
];

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Row {
    /// The row as a line for a person.
    pub(super) fn line(&self) -> String {
        let shown = |setting: &&Setting| !setting.optional || (setting.cell)(self) != or_dash(None::<u8>);
        let settings = SETTINGS.iter().filter(shown);
        let settings: Vec<String> =
            settings.map(|setting| format!("{} {}", setting.name, (setting.cell)(self))).collect();
        let distances: String =
            self.distances.iter().map(|distance| format!(", distance {distance:.3}")).collect();
        format!(
            "{}: {:.1} images per second, {} codes in use, perplexity {:.1}{distances}",
            settings.join(", "),
            self.images_per_second,
            self.codes_used,
            self.codebook_perplexity,
        )
    }
}

impl Sweep {
    /// Writes a Markdown table, with what the distances are measured by below it.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let shown = |setting: &&Setting| {
            !setting.optional || self.rows.iter().any(|row| (setting.cell)(row) != or_dash(None::<u8>))
        };
        let settings: Vec<&Setting> = SETTINGS.iter().filter(shown).collect();
        let measured = ["passes an image", "images per second", "codes in use", "perplexity"];
        let heads = settings.iter().map(|setting| setting.name).chain(measured).map(str::to_owned);
        let heads: Vec<String> =
            heads.chain((1..=self.judges.len()).map(|i| format!("distance {i}"))).collect();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut page = line(&heads) + &line(&vec!["---".to_owned(); heads.len()]);
        for row in &self.rows {
            let mut cells: Vec<String> = settings.iter().map(|setting| (setting.cell)(row)).collect();
            cells.push(or_dash(row.passes.map(|passes| format!("{passes:.1}"))));
            cells.push(format!("{:.1}", row.images_per_second));
            cells.push(row.codes_used.to_string());
            cells.push(format!("{:.1}", row.codebook_perplexity));
            cells.extend(row.distances.iter().map(|distance| format!("{distance:.3}")));
            page += &line(&cells);
        }
        // Writing to a string cannot fail.
        let _ =
            writeln!(page, "\n{} images each, seed {}, drawn on {}.", self.images, self.seed, self.device);
        for (i, judge) in (1..).zip(&self.judges) {
            let _ = writeln!(page, "Distance {i}: {judge}.");
        }
        if self.judges.is_empty() {
            page += "No distance: entropy alone does not say which is best.\n";
        }
        page
    }

    /// Writes `sweep.json`, `sweep.md` and, in a build with the feature `report`, `sweep.png`: a chart of each distance over the steps
    /// or another number in which rows differ, if there is one, with a line for each of the other settings.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        write_json(&file(folder), self)?;
        let page = folder.join(format!("{FILE}.md"));
        snn_core::write_atomically(&page, self.to_markdown().as_bytes())?;
        #[cfg(feature = "report")]
        self.save_charts(&folder.join(format!("{FILE}.png")))?;
        Ok(())
    }

    #[cfg(feature = "report")]
    fn save_charts(&self, path: &Path) -> Result<()> {
        use crate::report::plot::{self, Chart, PALETTE, Series};

        let differ = |setting: &&Setting| {
            self.rows.windows(2).any(|pair| (setting.cell)(&pair[0]) != (setting.cell)(&pair[1]))
        };
        let varied: Vec<&Setting> = SETTINGS.iter().filter(differ).collect();
        let numbers = |setting: &&&Setting| self.rows.iter().all(|row| (setting.number)(row).is_some());
        // The last: steps, where they differ.
        let Some(x) = varied.iter().rfind(numbers).filter(|_| !self.judges.is_empty()) else {
            // Nothing to draw, and no picture of another table beside this one.
            if path.exists() {
                std::fs::remove_file(path).map_err(Error::io(path))?;
            }
            return Ok(());
        };
        let line = |row: &Row| {
            let others = varied.iter().filter(|setting| setting.name != x.name);
            let words: Vec<String> = others.map(|s| format!("{} {}", s.name, (s.cell)(row))).collect();
            words.join(", ")
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.sort();
        lines.dedup();
        let charts = self.judges.iter().enumerate().map(|(i, judge)| {
            let chart = Chart::new(title(i, judge, self.images), x.name, "Fréchet distance").log_y();
            lines.iter().zip(PALETTE.iter().cycle()).fold(chart, |chart, (name, &color)| {
                let rows = self.rows.iter().filter(|row| line(row) == *name);
                let mut points: Vec<_> =
                    rows.filter_map(|row| Some(((x.number)(row)?, row.distances[i]))).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                chart.with(Series::new(name, color, points))
            })
        });
        plot::save(path, &charts.collect::<Vec<_>>(), 1)
    }
}

/// Of the chart of a judge: the first and the last that its name says, for which there is room.
#[cfg(feature = "report")]
fn title(i: usize, judge: &str, images: usize) -> String {
    let network = judge.split(", ").next().unwrap_or(judge);
    let real = judge.rsplit(", ").next().unwrap_or(judge);
    format!("{}: {network}, {images} samples {real}", i + 1)
}

/// As a config file writes it, without braces.
fn name(order: Order) -> String {
    match order {
        Order::Posterior => "posterior".to_owned(),
        Order::ExactK => "exact_k".to_owned(),
        Order::Confidence { noise } => format!("confidence, noise {noise}"),
        Order::Halton => "halton".to_owned(),
        Order::Remasking { cap } => format!("remasking, cap {cap}"),
        Order::Gibbs { masked, redrawn } => format!("gibbs, masked {masked}, redrawn {redrawn}"),
        other => format!("{other:?}"),
    }
}

#[cfg(all(test, feature = "report"))]
mod tests {
    #[test]
    fn a_title_fits_a_chart() {
        let judge = "FSVAE's autoencoder, 64 features, statistics of batches of 256, against the first 10000 training images";
        let title = super::title(0, judge, 10_000);
        assert_eq!(title, "1: FSVAE's autoencoder, 10000 samples against the first 10000 training images");
    }
}
