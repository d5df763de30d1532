//! A report as pages for people.

use std::path::Path;

use snn_core::write_atomically;
use snn_train::RunDir;

use super::{Report, html, markdown, page};
use crate::error::Result;

impl Report {
    /// Writes the report as a page of Markdown beside the pictures of the run.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::render(&page::of(self))
    }

    /// Writes the report as one self-contained page: styles and pictures inside, no scripts, nothing to fetch.
    ///
    /// # Errors
    /// Returns an error if a picture of the run's folder is there and cannot be read. Pictures that are missing are left out.
    pub fn to_html(&self, folder: &Path) -> Result<String> {
        html::render(&page::of(self), folder)
    }

    /// Writes `report.md` and `report.html`, the pictures of the run inside the last.
    pub(crate) fn save_pages(&self, run: &RunDir) -> Result<()> {
        write_atomically(&run.file("report.md"), self.to_markdown().as_bytes())?;
        Ok(write_atomically(&run.file("report.html"), self.to_html(run.path())?.as_bytes())?)
    }

    /// Layers and their firing rates, in the order of the forward pass where the energy table knows it.
    pub(crate) fn ordered_rates(&self) -> Vec<(String, f64)> {
        let lines = self.energy.iter().flat_map(|energy| &energy.layers);
        let order: Vec<&String> = lines.map(|line| &line.name).collect();
        let mut rates: Vec<_> = self.firing_rates.clone().into_iter().collect();
        rates.sort_by_key(|(layer, _)| order.iter().position(|known| *known == layer));
        rates
    }
}
