//! A dense product of several taps without columns: several positions are computed together, in registers, from the rows where
//! they lie.
//!
//! Sums are formed as [`Direction::run`] forms them: where it gathers, over all taps in stretches of at most [`STRETCH`]
//! numbers; where it scatters, tap by tap. A few weights meet all positions that they reach before the next do, so that they stay in
//! the first-level cache; what was summed before waits in memory.
#![allow(unsafe_code)]

use std::arch::x86_64::{__m256, __m512};
use std::collections::BTreeMap;
use std::ops::Range;

use super::dense::Direction;
use crate::geometry::NOWHERE;
use crate::ops::fma::{Vector, fused_level};
use crate::ops::simd::Level;

/// Numbers summed at a stretch: those of the `gemm` crate.
const STRETCH: usize = 512;

/// One direction of a layer: see the module.
pub(super) struct Direct {
    /// The parts of each stretch, in order.
    stretches: Vec<Vec<Part>>,
    /// `[tiles, taps, from, lanes]`.
    weights: Vec<f32>,
    /// Target channels of a tile.
    lanes: usize,
    level: Level,
    senders: usize,
    receivers: usize,
    taps: usize,
    from: usize,
    to: usize,
}

/// Channels of a tap, or of several whose senders are neighbours.
struct Part {
    /// Of `[taps, from]`.
    channels: Range<usize>,
    links: Vec<Link>,
}

/// Joins the channels of a part to a receiver.
#[derive(Clone, Copy)]
struct Link {
    /// Where they begin in `[senders, from]`.
    start: u32,
    receiver: u32,
}

impl Direct {
    /// With `weight(from, tap, to)`; nothing where there is no kernel on this machine, or a plain matrix product will do.
    pub(super) fn new(
        direction: &Direction<'_>,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Option<Self> {
        let level = fused_level().filter(|_| direction.taps > 1)?;
        Some(Self::at(level, direction, weight))
    }

    /// The same on vectors of this level.
    pub(super) fn at(
        level: Level,
        direction: &Direction<'_>,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let Direction { senders, receivers, taps, from, to, .. } = *direction;
        let lanes = if level == Level::Avx512 && to > 16 { 32 } else { 16 };
        let mut weights = vec![0f32; to.div_ceil(lanes) * taps * from * lanes];
        for (i, row) in weights.chunks_exact_mut(lanes).enumerate() {
            let (first, tap, f) = (i / (taps * from) * lanes, i / from % taps, i % from);
            row.iter_mut().zip(first..to).for_each(|(w, t)| *w = weight(f, tap, t));
        }
        Self { stretches: stretches(direction), weights, lanes, level, senders, receivers, taps, from, to }
    }

    /// `out = W rows`, `rows: [steps * senders, from]`, `out: [steps * receivers, to]`.
    pub(super) fn run(&self, rows: &[f32], out: &mut [f32]) {
        match self.level {
            // SAFETY: `fused_level` only names what this machine has been found to have.
            Level::Avx512 => unsafe { self.run_avx512(rows, out) },
            // SAFETY: as above; it never names the portable level.
            Level::Avx2 | Level::Portable => unsafe { self.run_avx2(rows, out) },
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn run_avx512(&self, rows: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the instructions of these vectors.
        unsafe {
            match self.lanes {
                32 => self.run_on::<__m512, 2, 12>(rows, out),
                _ => self.run_on::<__m512, 1, 12>(rows, out),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_avx2(&self, rows: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the instructions of these vectors.
        unsafe { self.run_on::<__m256, 2, 6>(rows, out) }
    }

    /// `R` positions at once, `V` vectors of channels of each. Loops and indices in all that it calls: closures would not have the
    /// instructions, and sums shall stay in registers.
    #[inline(always)]
    unsafe fn run_on<X: Vector, const V: usize, const R: usize>(&self, rows: &[f32], out: &mut [f32]) {
        let (lanes, size) = (self.lanes, self.taps * self.from * self.lanes);
        // Of a tile, `[receivers, lanes]`: the sums of one stretch, and those of all until then.
        let [mut sums, mut totals] = [(); 2].map(|()| vec![0f32; self.receivers * lanes]);
        let steps = rows.chunks_exact(self.senders * self.from);
        for (rows, out) in steps.zip(out.chunks_exact_mut(self.receivers * self.to)) {
            for (tile, weights) in self.weights.chunks_exact(size).enumerate() {
                totals.fill(0.);
                for (i, parts) in self.stretches.iter().enumerate() {
                    // The first stretch is summed in place: there is nothing before it.
                    let (alone, apart) = (i > 0 && parts.len() == 1, i > 0 && parts.len() > 1);
                    let into = if apart { &mut sums } else { &mut totals };
                    if apart {
                        into.fill(0.);
                    }
                    for part in parts {
                        let (start, end) = (part.channels.start * lanes, part.channels.end * lanes);
                        let task = Task { rows, weights: &weights[start..end] };
                        // SAFETY: the caller has the instructions of `X`.
                        unsafe {
                            if alone {
                                task.run::<X, V, R, true>(&part.links, into);
                            } else {
                                task.run::<X, V, R, false>(&part.links, into);
                            }
                        }
                    }
                    if apart {
                        totals.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
                    }
                }
                let (first, width) = (tile * lanes, lanes.min(self.to - tile * lanes));
                for (out, total) in out.chunks_exact_mut(self.to).zip(totals.chunks_exact(lanes)) {
                    out[first..][..width].copy_from_slice(&total[..width]);
                }
            }
        }
    }
}

/// A part of a tile at a time step.
struct Task<'a> {
    rows: &'a [f32],
    /// `[channels, lanes]`.
    weights: &'a [f32],
}

impl Task<'_> {
    /// Adds the part to `sums: [receivers, lanes]`: its sum where it is a stretch (`ALONE`), else one product after the other.
    #[inline(always)]
    unsafe fn run<X: Vector, const V: usize, const R: usize, const ALONE: bool>(
        &self,
        links: &[Link],
        sums: &mut [f32],
    ) {
        let (many, rest) = links.as_chunks::<R>();
        let (six, rest) = rest.as_chunks::<6>();
        // SAFETY: the caller has the instructions of `X`.
        unsafe {
            for links in many {
                self.block::<X, V, R, ALONE>(links, sums);
            }
            for links in six {
                self.block::<X, V, 6, ALONE>(links, sums);
            }
            match *rest {
                [] => {}
                [a] => self.block::<X, V, 1, ALONE>(&[a], sums),
                [a, b] => self.block::<X, V, 2, ALONE>(&[a, b], sums),
                [a, b, c] => self.block::<X, V, 3, ALONE>(&[a, b, c], sums),
                [a, b, c, d] => self.block::<X, V, 4, ALONE>(&[a, b, c, d], sums),
                [a, b, c, d, e, ..] => self.block::<X, V, 5, ALONE>(&[a, b, c, d, e], sums),
            }
        }
    }

    /// The receivers of these links.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn block<X: Vector, const V: usize, const R: usize, const ALONE: bool>(
        &self,
        links: &[Link; R],
        sums: &mut [f32],
    ) {
        let (lanes, channels) = (V * X::LANES, self.weights.len() / (V * X::LANES));
        let mut rows: [&[f32]; R] = [&[]; R];
        // SAFETY: the caller has the instructions of `X`.
        let mut sum = unsafe { [[X::splat(0.); V]; R] };
        for r in 0..R {
            rows[r] = &self.rows[links[r].start as usize..][..channels];
            let before = &sums[links[r].receiver as usize * lanes..][..lanes];
            for v in 0..V {
                if !ALONE {
                    // SAFETY: as above; `before` has room for `V` vectors.
                    sum[r][v] = unsafe { X::load(before.as_ptr().add(v * X::LANES)) };
                }
            }
        }
        // SAFETY: as above; each of `rows` has as many floats as `weights` has rows of `V` vectors.
        unsafe { accumulate::<X, V, R>(&mut sum, &rows, self.weights) };
        for r in 0..R {
            let into = &mut sums[links[r].receiver as usize * lanes..][..lanes];
            for v in 0..V {
                // SAFETY: as above; `into` has room for `V` vectors.
                unsafe {
                    let into = into.as_mut_ptr().add(v * X::LANES);
                    let sum = if ALONE { X::load(into).add(sum[r][v]) } else { sum[r][v] };
                    sum.store(into);
                }
            }
        }
    }
}

/// `sum[r] += sum_c rows[r][c] weights[c]`, one after the other.
///
/// # Safety
/// The machine has the instructions of `X`; each of `rows` has at least as many floats as `weights` has rows of `V` vectors.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn accumulate<X: Vector, const V: usize, const R: usize>(
    sum: &mut [[X; V]; R],
    rows: &[&[f32]; R],
    weights: &[f32],
) {
    let mut sums = *sum;
    for c in 0..weights.len() / (V * X::LANES) {
        // SAFETY: see above.
        unsafe {
            let mut row = [X::splat(0.); V];
            for v in 0..V {
                row[v] = X::load(weights.as_ptr().add((c * V + v) * X::LANES));
            }
            for r in 0..R {
                let x = X::splat(*rows[r].get_unchecked(c));
                for v in 0..V {
                    sums[r][v] = row[v].mul_add(x, sums[r][v]);
                }
            }
        }
    }
    *sum = sums;
}

/// All taps and channels, as the `gemm` crate sums them: in stretches of equal length.
fn stretches(direction: &Direction<'_>) -> Vec<Vec<Part>> {
    let &Direction { taps, from, receivers, gathered, .. } = direction;
    let all = if gathered { taps * from } else { from };
    let length = all.div_ceil(all.div_ceil(STRETCH));
    let sender = |tap: usize, p: usize| direction.sender_of[tap * receivers + p];
    // By stretch, which begins anew with each tap where sums are not gathered, and by channels.
    let mut found = BTreeMap::<[usize; 2], BTreeMap<[usize; 2], Vec<Link>>>::new();
    for p in 0..receivers {
        let mut tap = 0;
        while tap < taps {
            let (first, begin) = (tap, sender(tap, p));
            tap += 1;
            if begin == NOWHERE {
                continue;
            }
            while gathered && tap < taps && sender(tap, p) == begin + (tap - first) as u32 {
                tap += 1;
            }
            let (origin, own) = (first * from, if gathered { 0 } else { first });
            let (mut at, end) = (origin, tap * from);
            while at < end {
                let within = at - own * from;
                let until = end.min(at + length - within % length);
                let start = (begin as usize * from + at - origin) as u32;
                let stretch = found.entry([own, within / length]).or_default();
                stretch.entry([at, until]).or_default().push(Link { start, receiver: p as u32 });
                at = until;
            }
        }
    }
    let part = |([start, end], links): ([usize; 2], Vec<Link>)| Part { channels: start..end, links };
    found.into_values().map(|parts| parts.into_iter().map(part).collect()).collect()
}
