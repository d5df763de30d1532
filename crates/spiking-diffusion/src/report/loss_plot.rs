//! `loss.png`: how the losses of both trainings of a run went down.

use std::path::{Path, PathBuf};

use absorbing_diffusion::Weighting;
use snn_train::RunDir;

use super::plot::{self, Chart, Color, Mark, PALETTE, Series};
use crate::error::{Error, Result};

/// Most points of a line, evenly spread over all steps.
const POINTS: usize = 600;
/// The running mean covers this part of all steps.
const WINDOW: f64 = 0.02;

/// Reads `vqsvae.csv` and `sdid.csv`, of trainings on this data set and with these weights, and draws `loss.png`.
///
/// # Errors
/// Returns an error, with file and line, if a table is missing, has no rows, or has a row of another form.
pub(crate) fn save_losses(run: &RunDir, dataset: &str, weighting: Weighting) -> Result<()> {
    let charts = [vqsvae(run, dataset)?, sdid(run, dataset, weighting)?];
    plot::save(&run.file("loss.png"), &charts, 1)
}

/// Reads `<stage>.csv`, of the training of a variational autoencoder on this data set, and draws `loss.png`.
///
/// # Errors
/// Returns the errors of [`save_losses`].
pub(crate) fn save_vae_losses(run: &RunDir, stage: &str, dataset: &str) -> Result<()> {
    let table = Table::read(run.file(&format!("{stage}.csv")))?;
    let chart =
        Chart::new(format!("{} on {dataset}", stage.to_uppercase()), "step", "loss, running mean").log_y();
    let terms =
        [("total", "loss", 6), ("reconstruction", "reconstruction", 0), ("divergence", "divergence", 1)];
    let draw =
        |chart, (name, column, color): (&str, &str, usize)| table.draw(chart, name, column, PALETTE[color]);
    let chart = terms.into_iter().try_fold(chart, draw)?;
    plot::save(&run.file("loss.png"), &[chart], 1)
}

fn vqsvae(run: &RunDir, dataset: &str) -> Result<Chart> {
    let table = Table::read(run.file("vqsvae.csv"))?;
    let chart = Chart::new(format!("VQ-SVAE on {dataset}"), "step", "loss, running mean").log_y();
    let terms = [
        ("total", "loss", 6),
        ("reconstruction", "reconstruction", 0),
        ("dense", "dense", 1),
        ("generator", "generator", 2),
        ("commitment", "commitment", 3),
    ];
    terms
        .into_iter()
        .try_fold(chart, |chart, (name, column, color)| table.draw(chart, name, column, PALETTE[color]))
}

fn sdid(run: &RunDir, dataset: &str, weighting: Weighting) -> Result<Chart> {
    let unit = match weighting {
        Weighting::Elbo => "bits per token",
        Weighting::Released | Weighting::Uniform => "weighted bits per token",
    };
    let chart = Chart::new(format!("SDID on the codes of {dataset}"), "step", unit);
    Table::read(run.file("sdid.csv"))?.draw(chart, "running mean", "loss", PALETTE[0])
}

/// A CSV of numbers under a line of names.
struct Table {
    path: PathBuf,
    names: Vec<String>,
    rows: Vec<Vec<f64>>,
}

impl Table {
    fn read(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let mut lines = text.lines().zip(1..);
        let head = lines.next().map_or("", |(head, _)| head);
        // A stage without columns of its own leaves an empty name, and no field.
        let names: Vec<String> = head.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let rows =
            lines.map(|(line, number)| row(&path, line, number, names.len())).collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Err(Error::run(&path, "line 2: there is no first row"));
        }
        Ok(Self { path, names, rows })
    }

    fn column(&self, name: &str) -> Result<Vec<f64>> {
        let index = self.names.iter().position(|known| known == name);
        let index =
            index.ok_or_else(|| Error::run(&self.path, format!("line 1: there is no column `{name}`")))?;
        Ok(self.rows.iter().map(|row| row[index]).collect())
    }

    /// Adds a column's running mean and, under all means, its values, thinned and pale.
    fn draw(&self, mut chart: Chart, name: &str, column: &str, color: Color) -> Result<Chart> {
        let (steps, values) = (self.column("step")?, self.column(column)?);
        let means = running_mean(&values, (WINDOW * values.len() as f64) as usize);
        chart.series.insert(0, Series::new("", color, thinned(&steps, &values)).mark(Mark::Faint));
        Ok(chart.with(Series::new(name, color, thinned(&steps, &means))))
    }
}

fn row(path: &Path, line: &str, number: usize, fields: usize) -> Result<Vec<f64>> {
    let bad = |message: String| Error::run(path, format!("line {number}: {message}"));
    let field = |text: &str| text.parse::<f64>().map_err(|_| bad(format!("`{text}` is not a number")));
    let row = line.split(',').map(field).collect::<Result<Vec<_>>>()?;
    if row.len() == fields {
        return Ok(row);
    }
    Err(bad(format!("has {} fields instead of {fields}", row.len())))
}

/// About `POINTS` of the points, evenly spread, and the last one.
fn thinned(xs: &[f64], ys: &[f64]) -> Vec<(f64, f64)> {
    let stride = xs.len().div_ceil(POINTS).max(1);
    let points = xs.iter().copied().zip(ys.iter().copied());
    let last = points.clone().next_back().filter(|_| !(xs.len() - 1).is_multiple_of(stride));
    points.step_by(stride).chain(last).collect()
}

/// Means over `window` neighbours around each value; near the ends over those that there are.
fn running_mean(values: &[f64], window: usize) -> Vec<f64> {
    let mut sums = vec![0.];
    sums.extend(values.iter().scan(0., |sum, value| {
        *sum += value;
        Some(*sum)
    }));
    let mean = |i: usize| {
        let (from, to) = (i.saturating_sub(window / 2), (i + window / 2 + 1).min(values.len()));
        (sums[to] - sums[from]) / (to - from) as f64
    };
    (0..values.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    type TestResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

    const VQSVAE: &str = "step,epoch,lr,loss,reconstruction,dense,generator,commitment,grad_norm\n";
    const SDID: &str = "step,epoch,lr,loss,grad_norm\n";

    fn save(run: &RunDir) -> Result<()> {
        save_losses(run, "synthetic digits", Weighting::Uniform)
    }

    fn with_tables(vqsvae: &str, sdid: &str) -> TestResult<(tempfile::TempDir, RunDir)> {
        let folder = tempfile::tempdir()?;
        let run = RunDir::open(&folder.path().join("run"), &"a config".to_owned(), false)?;
        std::fs::write(run.file("vqsvae.csv"), vqsvae)?;
        std::fs::write(run.file("sdid.csv"), sdid)?;
        Ok((folder, run))
    }

    /// Made-up losses that go down with noise.
    fn falling(rows: usize, columns: usize) -> TestResult<String> {
        let noise = snn_core::Seed(0).normal(
            "x",
            rows,
            (0., 0.2),
            candle_core::DType::F64,
            &candle_core::Device::Cpu,
        )?;
        let mut text = String::new();
        for (step, noise) in noise.to_vec1::<f64>()?.into_iter().enumerate() {
            let loss = (0.05 + (-10. * step as f64 / rows as f64).exp()) * noise.exp();
            write!(text, "{step},0,1e-3")?;
            (0..columns).try_for_each(|i| write!(text, ",{:.6e}", loss * 0.4f64.powi(i as i32)))?;
            writeln!(text, ",1e0")?;
        }
        Ok(text)
    }

    #[test]
    fn many_steps_are_drawn_quickly_and_the_same_every_time() -> TestResult {
        let (_folder, run) = with_tables(
            &(VQSVAE.to_owned() + &falling(50_000, 5)?),
            &(SDID.to_owned() + &falling(20_000, 1)?),
        )?;
        let clock = std::time::Instant::now();
        save(&run)?;
        assert!(clock.elapsed().as_secs() < 20);
        let first = std::fs::read(run.file("loss.png"))?;
        save(&run)?;
        assert_eq!(first, std::fs::read(run.file("loss.png"))?);
        Ok(())
    }

    #[test]
    fn one_step_is_enough() -> TestResult {
        let (_folder, run) = with_tables(
            &(VQSVAE.to_owned() + "0,0,1e-3,1,1,0,0,0,2\n"),
            "step,epoch,lr,loss,,grad_norm\n0,0,1e-3,7,1\n",
        )?;
        Ok(save(&run)?)
    }

    #[test]
    fn a_bad_table_is_named_with_its_line() -> TestResult {
        let good = SDID.to_owned() + "0,0,1e-3,7,1\n";
        let cases = [
            ("", "sdid.csv: line 2: there is no first row"),
            (SDID, "sdid.csv: line 2: there is no first row"),
            (&(good.clone() + "1,0,1e-3,7\n"), "sdid.csv: line 3: has 4 fields instead of 5"),
            (&(good.clone() + "1,0,1e-3,seven,1\n"), "sdid.csv: line 3: `seven` is not a number"),
            ("step,lr\n0,1\n", "sdid.csv: line 1: there is no column `loss`"),
        ];
        for (sdid, wanted) in cases {
            let (_folder, run) = with_tables(&(VQSVAE.to_owned() + "0,0,1e-3,1,1,0,0,0,2\n"), sdid)?;
            let message = save(&run).unwrap_err().to_string();
            assert!(message.ends_with(wanted), "{message}");
            assert!(!run.file("loss.png").exists());
        }
        let (_folder, run) = with_tables(VQSVAE, &good)?;
        std::fs::remove_file(run.file("vqsvae.csv"))?;
        assert!(save(&run).unwrap_err().to_string().contains("vqsvae.csv"));
        Ok(())
    }

    #[test]
    fn the_running_mean_is_centred_and_cut_at_the_ends() {
        assert_eq!(running_mean(&[1., 2., 6., 4., 5.], 3), [1.5, 3., 4., 5., 4.5]);
        assert_eq!(running_mean(&[1., 2.], 0), [1., 2.]);
        assert_eq!(running_mean(&[3.], 100), [3.]);
    }

    #[test]
    fn thinning_is_even_and_keeps_both_ends() {
        let xs: Vec<f64> = (0..10_000).map(f64::from).collect();
        let points = thinned(&xs, &xs);
        assert!(points.len() <= POINTS + 1 && points.len() > POINTS / 2);
        assert_eq!((points[0], points.last()), ((0., 0.), Some(&(9999., 9999.))));
        assert!(points[..points.len() - 1].windows(2).all(|pair| pair[1].0 - pair[0].0 == 17.));
        assert_eq!(thinned(&xs[..3], &xs[..3]), [(0., 0.), (1., 1.), (2., 2.)]);
    }
}
