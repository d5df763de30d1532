//! Images drawn by many workers: who draws which, and how they come together.

use std::ops::Range;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::{Collective, deal};

use crate::error::{Error, Result};

/// What worker 0 asks of the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// The numbers of the images, batch by batch.
    pub(super) batches: Vec<Range<usize>>,
    /// Whether to tell how they came to be.
    pub(super) film: bool,
}

/// Draws images with these numbers in one batch, on the CPU; sees all codes after each step, and how many are left, if there are codes.
pub(super) type Draw<'a> = dyn Fn(Range<usize>, &mut dyn FnMut(&[u32], usize)) -> Result<Tensor> + 'a;

/// A batch of images.
pub(super) struct Drawn {
    /// `[n, channels, H, W]`, on the CPU.
    pub(super) images: Tensor,
    /// By step: how many steps were left, and all codes, masks included.
    pub(super) film: Vec<(usize, Vec<u32>)>,
}

/// Draws batches of images, each by `draw`, with the help of those that [assist](assist), and hands them to `take`, with the number of
/// their batch, in order. `shown` is told of each step of a batch that this worker draws itself, and how many are left.
pub(super) fn draw_over(
    workers: &dyn Collective,
    draw: &Draw<'_>,
    wanted: &Wanted,
    shown: &mut dyn FnMut(usize, usize),
    take: &mut dyn FnMut(usize, Drawn) -> Result<()>,
) -> Result<()> {
    ask(workers, Some(wanted))?;
    serve(workers, draw, wanted, shown, take)
}

/// Draws what worker 0 asks for, until it [dismisses](dismiss).
pub(super) fn assist(workers: &dyn Collective, draw: &Draw<'_>) -> Result<()> {
    loop {
        let message = workers.broadcast(Vec::new())?;
        let wanted: Option<Wanted> = serde_json::from_slice(&message)
            .map_err(|e| snn_train::Error::worker(workers, format!("what worker 0 asks for: {e}")))?;
        let Some(wanted) = wanted else { return Ok(()) };
        serve(workers, draw, &wanted, &mut |_, _| (), &mut |_, _| Ok(()))?;
    }
}

/// Lets go of those that assist.
pub(super) fn dismiss(workers: &dyn Collective) -> Result<()> {
    ask(workers, None)
}

fn ask(workers: &dyn Collective, wanted: Option<&Wanted>) -> Result<()> {
    if workers.size() > 1 {
        let message = serde_json::to_vec(&wanted).map_err(|e| Error::config("batches", "", e.to_string()))?;
        workers.broadcast(message)?;
    }
    Ok(())
}

fn serve(
    workers: &dyn Collective,
    draw: &Draw<'_>,
    wanted: &Wanted,
    shown: &mut dyn FnMut(usize, usize),
    take: &mut dyn FnMut(usize, Drawn) -> Result<()>,
) -> Result<()> {
    let work = |batch: usize| -> Result<Vec<Tensor>> {
        let mut film = Vec::new();
        let mut step = |codes: &[u32], left: usize| {
            if wanted.film {
                film.push([&[left as u32], codes].concat());
            }
            shown(batch, left);
        };
        let images = draw(wanted.batches[batch].clone(), &mut step)?;
        Ok(if wanted.film { vec![images, Tensor::new(film, &Device::Cpu)?] } else { vec![images] })
    };
    deal(workers, wanted.batches.len(), work, |batch, made| {
        let mut made = made.into_iter();
        let Some(images) = made.next() else { return Ok(()) };
        let film = made.next().map_or(Ok(Vec::new()), |film| film.to_vec2::<u32>())?;
        let film = film.into_iter().map(|row| (row[0] as usize, row[1..].to_vec())).collect();
        take(batch, Drawn { images, film })
    })
}
