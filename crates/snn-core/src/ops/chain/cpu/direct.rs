//! A dense product of several taps without columns: positions that are reached through the same taps are computed together, in
//! registers, from the rows where they lie.
//!
//! Sums are formed as [`Direction::run`] forms them: where it gathers, over all taps in stretches of at most [`STRETCH`]
//! numbers; where it scatters, tap by tap.
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
    phases: Vec<Phase>,
    /// `[tiles, taps, from, lanes]`.
    weights: Vec<f32>,
    /// Target channels of a tile.
    lanes: usize,
    level: Level,
    /// Whether all sums are a single stretch.
    whole: bool,
    taps: usize,
    senders: usize,
    receivers: usize,
    from: usize,
    to: usize,
}

/// Receiving positions that have the same taps.
#[derive(Default)]
struct Phase {
    parts: Vec<Part>,
    /// The parts of each stretch.
    stretches: Vec<Range<usize>>,
    receivers: Vec<u32>,
    /// `[receivers, parts]`.
    senders: Vec<u32>,
}

impl Phase {
    fn of(parts: Vec<Part>) -> Self {
        let mut end = 0;
        let stretch = |parts: &[Part]| {
            let start = end;
            end += parts.len();
            start..end
        };
        let stretches = parts.chunk_by(|a, b| a.stretch == b.stretch).map(stretch).collect();
        Self { parts, stretches, ..Self::default() }
    }
}

/// Channels of a tap that are summed at a stretch.
#[derive(Clone, Copy)]
struct Part {
    tap: usize,
    start: usize,
    end: usize,
    stretch: usize,
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
        let parts = parts(taps, from, direction.gathered);
        let whole = parts.iter().all(|part| part.stretch == 0);
        let phases = phases(direction, &parts);
        Self { phases, weights, lanes, level, whole, taps, senders, receivers, from, to }
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
            match (self.lanes, self.whole) {
                (32, true) => self.run_on::<__m512, 2, 12, true>(rows, out),
                (32, false) => self.run_on::<__m512, 2, 6, false>(rows, out),
                (_, true) => self.run_on::<__m512, 1, 6, true>(rows, out),
                (_, false) => self.run_on::<__m512, 1, 6, false>(rows, out),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_avx2(&self, rows: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the instructions of these vectors.
        unsafe {
            match self.whole {
                true => self.run_on::<__m256, 2, 6, true>(rows, out),
                false => self.run_on::<__m256, 2, 3, false>(rows, out),
            }
        }
    }

    /// `R` positions at once, `V` vectors of channels of each.
    #[inline(always)]
    unsafe fn run_on<X: Vector, const V: usize, const R: usize, const WHOLE: bool>(
        &self,
        rows: &[f32],
        out: &mut [f32],
    ) {
        let size = self.taps * self.from * self.lanes;
        let steps = rows.chunks_exact(self.senders * self.from);
        for (rows, out) in steps.zip(out.chunks_exact_mut(self.receivers * self.to)) {
            for (tile, weights) in self.weights.chunks_exact(size).enumerate() {
                for phase in &self.phases {
                    let all = phase.receivers.len();
                    let (many, some) = (all / R * R, all % R / 3 * 3);
                    let task = Task { phase, rows, weights, first: tile * self.lanes };
                    // SAFETY: the caller has the instructions of `X`.
                    unsafe {
                        for at in (0..many).step_by(R) {
                            self.block::<X, V, R, WHOLE>(&task, at, out);
                        }
                        for at in (many..many + some).step_by(3) {
                            self.block::<X, V, 3, WHOLE>(&task, at, out);
                        }
                        for at in many + some..all {
                            self.block::<X, V, 1, WHOLE>(&task, at, out);
                        }
                    }
                }
            }
        }
    }

    /// The receivers `at..at + R` of a phase.
    ///
    /// Indices and not iterators, so that both sums stay in registers.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn block<X: Vector, const V: usize, const R: usize, const WHOLE: bool>(
        &self,
        task: &Task<'_>,
        at: usize,
        out: &mut [f32],
    ) {
        let (Task { phase, weights, first, .. }, lanes) = (*task, V * X::LANES);
        let (from, parts) = (self.from, phase.parts.len());
        let senders = &phase.senders[at * parts..][..R * parts];
        // SAFETY: the caller has the instructions of `X`.
        let zeros = unsafe { [[X::splat(0.); V]; R] };
        let (mut sum, mut total) = (zeros, zeros);
        for stretch in &phase.stretches {
            for i in stretch.clone() {
                let Part { tap, start, end, .. } = phase.parts[i];
                let weights = &weights[(tap * from + start) * lanes..][..(end - start) * lanes];
                let mut rows: [&[f32]; R] = [&[]; R];
                for r in 0..R {
                    rows[r] = &task.rows[senders[r * parts + i] as usize * from + start..][..end - start];
                }
                // SAFETY: as above; each of `rows` has as many floats as `weights` has rows of `lanes`.
                unsafe { accumulate::<X, V, R>(&mut sum, &rows, weights) };
            }
            if !WHOLE {
                for r in 0..R {
                    for v in 0..V {
                        // SAFETY: as above.
                        total[r][v] = unsafe { total[r][v].add(sum[r][v]) };
                        sum[r][v] = zeros[r][v];
                    }
                }
            }
        }
        if WHOLE {
            total = sum;
        }
        let width = lanes.min(self.to - first);
        for (r, &p) in phase.receivers[at..at + R].iter().enumerate() {
            let out = &mut out[p as usize * self.to + first..][..width];
            let mut values = [0f32; MOST_LANES];
            let whole = width == lanes;
            let into = if whole { out.as_mut_ptr() } else { values.as_mut_ptr() };
            for v in 0..V {
                // SAFETY: as above; `out`, if it is as wide, and `values` have room for `V` vectors.
                unsafe { total[r][v].store(into.add(v * X::LANES)) };
            }
            if !whole {
                out.copy_from_slice(&values[..width]);
            }
        }
    }
}

/// Lanes of the widest tile.
const MOST_LANES: usize = 32;

/// A phase of a tile at a time step.
#[derive(Clone, Copy)]
struct Task<'a> {
    phase: &'a Phase,
    rows: &'a [f32],
    weights: &'a [f32],
    /// First target channel of the tile.
    first: usize,
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

/// All taps and channels, cut where stretches end.
fn parts(taps: usize, from: usize, gathered: bool) -> Vec<Part> {
    // As the `gemm` crate cuts them: into stretches of equal length.
    let all = if gathered { taps * from } else { from };
    let stretch = all.div_ceil(all.div_ceil(STRETCH));
    let stretches = all.div_ceil(stretch);
    let mut parts = Vec::new();
    for tap in 0..taps {
        let (before, others) = if gathered { (tap * from, 0) } else { (0, tap * stretches) };
        let mut start = 0;
        while start < from {
            let number = (before + start) / stretch;
            let end = from.min((number + 1) * stretch - before);
            parts.push(Part { tap, start, end, stretch: others + number });
            start = end;
        }
    }
    parts
}

/// Positions by the taps that reach them.
fn phases(direction: &Direction<'_>, parts: &[Part]) -> Vec<Phase> {
    let receivers = direction.receivers;
    let mut phases = BTreeMap::<Vec<bool>, Phase>::new();
    for p in 0..receivers {
        let sender = |tap: usize| direction.sender_of[tap * receivers + p];
        let reached: Vec<bool> = (0..direction.taps).map(|tap| sender(tap) != NOWHERE).collect();
        let own = parts.iter().filter(|part| reached[part.tap]);
        let senders: Vec<u32> = own.clone().map(|part| sender(part.tap)).collect();
        let own: Vec<Part> = own.copied().collect();
        let phase = phases.entry(reached).or_insert_with(|| Phase::of(own));
        phase.receivers.push(p as u32);
        phase.senders.extend(senders);
    }
    phases.into_values().collect()
}
