//! The weight gradient of a linear layer: one position, one tap, and many weights for few spikes each.
//!
//! A sum for each group of items, as other layers form it, would clear, fill and add a copy of all weights a group. Here
//! each weight is summed over the whole batch in registers, in the same order, and written once.

use rayon::prelude::*;

use super::events::{ByChannel, Events, Signal};
use super::layer::{GRADIENT_ROWS, Layer, sparse_events};
use super::memory::Buffer;
use super::sparse::{add, by_tile};
use crate::ops::columns;
use crate::ops::simd::vectorised;

/// Source channels of a task.
const COLUMNS: usize = 256;
/// Source channels whose gradients are turned round together: those of a cache line.
const TURNED: usize = 16;

/// The events of a batch, if this is a linear layer whose signals all go through the event-driven kernels.
pub(super) fn events<'a>(layer: &Layer, signals: &'a [Signal]) -> Option<Vec<&'a Events>> {
    if !layer.is_linear() {
        return None;
    }
    signals.iter().map(|signal| sparse_events(signal, layer.gradient_dense_above())).collect()
}

/// The order of a sum over the rows of a batch: rows make stretches, those make groups.
struct Order {
    /// Stretch and group of each row.
    of_row: Vec<(u32, u32)>,
}

impl Order {
    /// Items of so many time steps each, so many a group.
    fn new(items: usize, time_steps: usize, group: usize) -> Self {
        let stretches = time_steps.div_ceil(GRADIENT_ROWS);
        let rows = (0..items).flat_map(|n| (0..time_steps).map(move |t| (n, t)));
        let row = |(n, t)| ((n * stretches + t / GRADIENT_ROWS) as u32, (n / group) as u32);
        Self { of_row: rows.map(row).collect() }
    }
}

/// Writes the gradient `[target, source channels]` that comes of all items, `group` of which have their gradients of currents
/// in a buffer of `grads`.
pub(super) fn weight_gradient(
    layer: &Layer,
    events: &[&Events],
    grads: &[Buffer],
    group: usize,
    out: &mut [f32],
) {
    let ((source, target), (width, _)) = (layer.channels, layer.tiles());
    let order = Order::new(events.len(), events.first().map_or(0, |e| e.time_steps()), group);
    let mut by_channel = ByChannel::default();
    by_channel.collect(events);
    let tasks: Vec<_> = out.chunks_mut(width * source).enumerate().collect();
    tasks.into_par_iter().for_each(|(tile, out)| {
        let (first, lanes) = (tile * width, width.min(target - tile * width));
        let mut rows = Buffer::new(order.of_row.len() * width);
        let given = grads.iter().flat_map(|grads| grads.chunks_exact(target));
        for (row, grads) in rows.chunks_exact_mut(width).zip(given) {
            row[..lanes].copy_from_slice(&grads[first..first + lanes]);
            row[lanes..].fill(0.);
        }
        let blocks = columns(out, source, COLUMNS).into_par_iter().enumerate();
        blocks.for_each(|(block, mut out)| {
            by_tile!(width, L => sum::<L>(&order, &by_channel, block * COLUMNS, &rows, &mut out))
        });
    });
}

vectorised! {
    /// `out[lane][c - first] = sum of rows[row][lane] over the spikes of channel c`, `rows: [all rows, L]`.
    fn sum<const L: usize>(
        order: &Order,
        spikes: &ByChannel,
        first: usize,
        rows: &[f32],
        out: &mut [&mut [f32]],
    ) {
        let rows = rows.as_chunks::<L>().0;
        let channels = out.first().map_or(0, |lane| lane.len());
        for start in (0..channels).step_by(TURNED) {
            let mut sums = [[0f32; L]; TURNED];
            let block = TURNED.min(channels - start);
            for (c, sum) in sums[..block].iter_mut().enumerate() {
                *sum = ordered(&order.of_row, spikes.at(first + start + c), rows);
            }
            for (lane, out) in out.iter_mut().enumerate() {
                for (out, sum) in out[start..start + block].iter_mut().zip(&sums) {
                    *out = sum[lane];
                }
            }
        }
    }
}

/// The sum of these rows: first each stretch, then of stretches each group, then of groups.
#[inline(always)]
fn ordered<const L: usize>(order: &[(u32, u32)], spikes: &[u32], rows: &[[f32; L]]) -> [f32; L] {
    let [mut total, mut group, mut sum] = [[0f32; L]; 3];
    let mut now = spikes.first().map_or((0, 0), |&row| order[row as usize]);
    for &row in spikes {
        let next = order[row as usize];
        if next.0 != now.0 {
            add(&mut group, &std::mem::replace(&mut sum, [0.; L]));
            if next.1 != now.1 {
                add(&mut total, &std::mem::replace(&mut group, [0.; L]));
            }
            now = next;
        }
        add(&mut sum, &rows[row as usize]);
    }
    add(&mut group, &sum);
    add(&mut total, &group);
    total
}
