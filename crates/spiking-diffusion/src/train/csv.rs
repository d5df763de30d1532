//! The table of a training's losses.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use snn_core::write_atomically;

use crate::error::{Error, Result};

/// A CSV with a row a step, cut back to the checkpoint on resume.
pub(super) struct Csv {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Csv {
    pub(super) fn open(path: PathBuf, columns: &[&str], rows: usize) -> Result<Self> {
        let lines = if rows == 0 {
            vec![[&["step", "epoch", "lr", "loss"], columns, &["grad_norm"]].concat().join(",")]
        } else {
            head(&path, rows + 1).map_err(Error::io(&path))?
        };
        if lines.len() != rows + 1 {
            let found = lines.len().saturating_sub(1);
            return Err(Error::run(
                &path,
                format!("has {found} rows, its stage's checkpoint is at step {rows}"),
            ));
        }
        write_atomically(&path, (lines.join("\n") + "\n").as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, out: BufWriter::new(file) })
    }

    pub(super) fn row(&mut self, step: usize, epoch: usize, values: &[f64]) -> Result<()> {
        let values: Vec<String> = values.iter().map(|v| format!("{v:.6e}")).collect();
        writeln!(self.out, "{step},{epoch},{}", values.join(",")).map_err(Error::io(&self.path))
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush().and_then(|()| self.out.get_ref().sync_data()).map_err(Error::io(&self.path))
    }
}

fn head(path: &Path, lines: usize) -> std::io::Result<Vec<String>> {
    BufReader::new(File::open(path)?).lines().take(lines).collect()
}
