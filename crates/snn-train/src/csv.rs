//! The table of a training's losses.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use snn_core::write_atomically;

use crate::error::{Error, Result};

/// Writes the CSV of a training, with one row for each step, and cuts it back to the checkpoint on resume.
pub(crate) struct Csv {
    path: PathBuf,
    out: csv::Writer<File>,
}

impl Csv {
    pub(crate) fn open(path: PathBuf, columns: &[String], rows: usize) -> Result<Self> {
        let kept = if rows == 0 { Vec::new() } else { head(&path, rows + 1).map_err(Error::io(&path))? };
        if rows > 0 && kept.len() != rows + 1 {
            let found = kept.len().saturating_sub(1);
            return Err(Error::run(
                &path,
                format!("has {found} rows, its stage's checkpoint is at step {rows}"),
            ));
        }
        let header = header(columns).map_err(|e| Error::run(&path, e))?;
        if let Some(line) = kept.first().filter(|line| **line != header) {
            return Err(Error::run(&path, format!("has the columns `{line}`, not `{header}`")));
        }
        let kept = if rows == 0 { vec![header] } else { kept };
        write_atomically(&path, kept.into_iter().map(|line| line + "\n").collect::<String>().as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, out: csv::Writer::from_writer(file) })
    }

    pub(crate) fn row(&mut self, step: usize, epoch: usize, values: &[f64]) -> Result<()> {
        let values = values.iter().map(|v| format!("{v:.6e}"));
        self.write([step.to_string(), epoch.to_string()].into_iter().chain(values))
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_data());
        flushed.map_err(Error::io(&self.path))
    }

    fn write(&mut self, record: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<()> {
        self.out.write_record(record).map_err(|e| Error::run(&self.path, e.to_string()))
    }
}

/// The first line.
fn header(columns: &[String]) -> Result<String, String> {
    let columns = columns.iter().map(String::as_str);
    let mut line = csv::Writer::from_writer(Vec::new());
    line.write_record(["step", "epoch", "lr", "loss"].into_iter().chain(columns).chain(["grad_norm"]))
        .map_err(|e| e.to_string())?;
    let line = line.into_inner().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
}

fn head(path: &Path, lines: usize) -> std::io::Result<Vec<String>> {
    BufReader::new(File::open(path)?).lines().take(lines).collect()
}
