//! What goes batch by batch, and the diffusion process that the stages share.

use std::ops::Range;

use absorbing_diffusion::AbsorbingProcess;
use candle_core::Tensor;
use snn_train::{Collective, Progress, deal, go_on};

use super::config::ExperimentConfig;
use crate::error::Result;

pub(crate) fn process(cfg: &ExperimentConfig) -> Result<AbsorbingProcess> {
    Ok(AbsorbingProcess::new(cfg.sdid.codes, cfg.sdid.steps)?)
}

/// `0..n` in pieces of at most `size`.
pub(crate) fn batches(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size.max(1)).map(move |start| start..(start + size).min(n))
}

/// What is made of each batch of `0..n` in turn, as a stage of this name; asks after each whether to go on.
pub(super) fn by_batches<T>(
    stage: &str,
    n: usize,
    size: usize,
    progress: &mut dyn Progress,
    mut make: impl FnMut(Range<usize>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut made = Vec::new();
    progress.begin(stage, n, 0);
    for range in batches(n, size) {
        let done = range.end;
        made.push(make(range)?);
        progress.advance(done, None);
        go_on(progress, stage, done, n)?;
    }
    progress.end();
    Ok(made)
}

/// [`by_batches`] shared out among workers, in turns: worker 0 gets what is made of all batches, in order, the others nothing.
pub(super) fn share_batches(
    workers: &dyn Collective,
    stage: &str,
    n: usize,
    size: usize,
    progress: &mut dyn Progress,
    mut make: impl FnMut(Range<usize>) -> Result<Vec<Tensor>>,
) -> Result<Vec<Vec<Tensor>>> {
    let (ranges, mut made) = (batches(n, size).collect::<Vec<_>>(), Vec::new());
    progress.begin(stage, n, 0);
    deal(
        workers,
        ranges.len(),
        |batch| make(ranges[batch].clone()),
        |batch, of_batch| {
            let done = ranges[batch].end;
            made.push(of_batch);
            progress.advance(done, None);
            Ok(go_on(progress, stage, done, n)?)
        },
    )?;
    progress.end();
    Ok(made)
}
