//! The pictures of a run's classes.

use std::time::Instant;

use absorbing_diffusion::{Conditioned, Sdid};
use candle_core::{Device, Tensor};
use snn_train::{Progress, RunDir};
use vq_svae::VqSvae;

use super::batches::process;
use super::config::ExperimentConfig;
use super::drawing::generate;
use super::networks::Networks;
use super::stages::Classes;
use crate::error::Result;
use crate::report::picture;
use crate::report::size::{GUIDANCES, PER_CLASS, square};

/// Draws `classes.png`, where classes are labels, or `clusters.png`, the means of the clusters that they are.
pub(super) fn save_pictures(
    cfg: &ExperimentConfig,
    networks: (&VqSvae, &Sdid),
    classes: &Classes,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<()> {
    if cfg.sdid.classes.is_none() {
        return Ok(());
    }
    if let Some(means) = &classes.means {
        return picture::save_grid(&run.file("clusters.png"), means, square(means.dim(0)?).1);
    }
    let clock = Instant::now();
    save_table(cfg, networks, run, device, progress)?;
    Ok(run.record_seconds("classes", clock.elapsed().as_secs_f64())?)
}

/// Draws `classes.png`: a row a class, and a block of columns for each guidance. The same places have the same random numbers at
/// every guidance.
fn save_table(
    cfg: &ExperimentConfig,
    (vqsvae, sdid): (&VqSvae, &Sdid),
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<()> {
    let classes = cfg.sdid.classes.unwrap_or(0);
    let labels: Vec<u32> = (0..classes as u32).flat_map(|class| [class; PER_CLASS]).collect();
    let mut blocks = Vec::new();
    for guidance in GUIDANCES {
        let denoiser = Conditioned::new(sdid, labels.clone())?.guided(guidance, &process(cfg)?)?;
        let networks = Networks::new(vqsvae, &denoiser);
        blocks.push(generate(cfg, networks, 0..labels.len(), device, progress)?);
    }
    picture::save_blocks(&run.file("classes.png"), &blocks.iter().collect::<Vec<&Tensor>>(), classes)
}
