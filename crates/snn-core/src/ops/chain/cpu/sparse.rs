//! Event-driven products: additions only, one row of weights for each spike.
//!
//! Both kernels run over tiles of [`Tile`] target channels whose operands fit the caches, and add in an order that is
//! fixed by the geometry.

use super::events::{ByChannel, Events};
use crate::geometry::{Links, NOWHERE};
use crate::ops::simd::{level, vectorised};

/// Target channels that a kernel handles at once.
pub(super) fn tile(channels: usize) -> usize {
    match channels {
        0..=16 => 16,
        17..=32 => 32,
        _ => 64,
    }
}

/// Runs `$body` with the const `$L` = `$lanes`, one of the widths of [`tile`].
macro_rules! by_tile {
    ($lanes:expr, $L:ident => $body:expr) => {
        match $lanes {
            16 => {
                const $L: usize = 16;
                $body
            }
            32 => {
                const $L: usize = 32;
                $body
            }
            _ => {
                const $L: usize = 64;
                $body
            }
        }
    };
}
pub(super) use by_tile;

vectorised! {
/// `rows[b * targets + p] += sum of the weight rows of the spikes that reach p at time times.start + b`.
///
/// `weights: [taps, source channels, L]`, `rows: [times, targets, L]`.
pub(super) fn gather<const L: usize>(
    links: &Links,
    events: &Events,
    times: std::ops::Range<usize>,
    weights: &[f32],
    rows: &mut [f32],
) {
    let (weights, rows) = (weights.as_chunks::<L>().0, rows.as_chunks_mut::<L>().0);
    for (tap, pairs) in links.by_tap.iter().enumerate() {
        // The weights of one tap stay in the first-level cache over all time steps.
        let weights = &weights[tap * events.channels..][..events.channels];
        for (rows, t) in rows.chunks_exact_mut(links.targets).zip(times.clone()) {
            for &(p, q) in pairs {
                let fired = events.at(t, q as usize);
                if fired.is_empty() {
                    continue;
                }
                let row = &mut rows[p as usize];
                let mut sum = *row;
                for &c in fired {
                    add(&mut sum, &weights[usize::from(c)]);
                }
                *row = sum;
            }
        }
    }
}
}

/// Where the gradient rows of a block of `times` time steps lie, for each tap and each place of [`ByChannel`]; taps into the
/// padding point to the row behind the last one.
pub(super) fn target_rows(links: &Links, times: usize) -> Vec<u32> {
    let nothing = (times * links.targets) as u32;
    let row = |(t, &p): (usize, &u32)| if p == NOWHERE { nothing } else { (t * links.targets) as u32 + p };
    let taps = links.target_of.chunks_exact(links.sources);
    taps.flat_map(|tap| (0..times).flat_map(move |t| tap.iter().map(move |p| row((t, p))))).collect()
}

/// `grad[c][tap] += sum of the gradient rows that the spikes of channel c reach through this tap`.
///
/// `rows: [times * targets + 1, L]`, the last one zeros; `table` from [`target_rows`]; `grad: [channels, taps, L]`.
pub(super) fn weight_gradient<const L: usize>(
    taps: usize,
    spikes: &ByChannel,
    table: &[u32],
    rows: &[f32],
    grad: &mut [f32],
) {
    // A spike is read once for several taps, if the registers hold their sums.
    if 3 * L < level().floats() {
        gradient_by_taps::<L, 3>(taps, spikes, table, rows, grad);
    } else {
        gradient_by_taps::<L, 1>(taps, spikes, table, rows, grad);
    }
}

vectorised! {
/// See [`weight_gradient`]: `G` taps at once.
fn gradient_by_taps<const L: usize, const G: usize>(
    taps: usize,
    spikes: &ByChannel,
    table: &[u32],
    rows: &[f32],
    grad: &mut [f32],
) {
    let (rows, grad) = (rows.as_chunks::<L>().0, grad.as_chunks_mut::<L>().0);
    let places = table.len() / taps;
    for (c, grad) in grad.chunks_exact_mut(taps).enumerate() {
        let spikes = spikes.at(c);
        if spikes.is_empty() {
            continue;
        }
        let (many, rest) = grad.as_chunks_mut::<G>();
        let (tables, rest_table) = table.split_at(many.len() * G * places);
        for (grad, table) in many.iter_mut().zip(tables.chunks_exact(G * places)) {
            accumulate(spikes, table, places, rows, grad);
        }
        for (grad, table) in rest.iter_mut().zip(rest_table.chunks_exact(places)) {
            accumulate(spikes, table, places, rows, std::array::from_mut(grad));
        }
    }
}
}

/// `grad[g] += sum of rows[table[g][spike]]`, `G` taps at once in registers.
#[inline(always)]
fn accumulate<const L: usize, const G: usize>(
    spikes: &[u32],
    table: &[u32],
    places: usize,
    rows: &[[f32; L]],
    grad: &mut [[f32; L]; G],
) {
    let mut sums = [[0f32; L]; G];
    for &spike in spikes {
        for (g, sum) in sums.iter_mut().enumerate() {
            add(sum, &rows[table[g * places + spike as usize] as usize]);
        }
    }
    for (grad, sum) in grad.iter_mut().zip(&sums) {
        add(grad, sum);
    }
}

#[inline(always)]
pub(super) fn add<const L: usize>(sum: &mut [f32; L], row: &[f32; L]) {
    for i in 0..L {
        sum[i] += row[i];
    }
}
