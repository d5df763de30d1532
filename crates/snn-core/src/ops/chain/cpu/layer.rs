//! One layer of a chain: its geometry, its weights as the kernels want them, its currents.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::dense::Direction;
use super::events::{Events, Signal};
use super::memory::{Buffer, Workspace};
use super::neuron::Affine;
use super::scratch::lend;
use super::sparse::{by_tile, gather, tile};
use crate::LifConfig;
use crate::geometry::Geometry;
use crate::geometry::{Kind, Links};
use crate::ops::chain::spec::{Scaling, Spec};
use crate::ops::turn::write_columns;

/// Above this fraction of ones the forward product, and the weight gradient of a wide layer, go through matrix products. Up to
/// here events were faster in every layer measured (`docs/performance.md`).
const DENSE_ABOVE: f64 = 0.5;
/// The same for the weight gradient of a layer with fewer than [`WIDE`] target channels.
const NARROW_DENSE_ABOVE: f64 = 0.25;
const WIDE: usize = 128;

/// What the environment variable `SNN_CORE_DENSE_ABOVE` puts in place of both, for measurements: 0 sends every spike
/// through matrix products, 1 none.
fn forced_dense_above() -> Option<f64> {
    static VALUE: OnceLock<Option<f64>> = OnceLock::new();
    *VALUE.get_or_init(|| std::env::var("SNN_CORE_DENSE_ABOVE").ok()?.parse().ok())
}

/// Rows of a tile that the forward kernel, and the gradient kernel, work on at once.
pub(super) const FORWARD_ROWS: usize = 400;
pub(super) const GRADIENT_ROWS: usize = 200;

/// Source channels whose weights are turned round together: as many rows of targets as the first-level cache holds.
const TURNED: usize = 64;

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) links: Links,
    pub(super) channels: (usize, usize),
    /// Rows and columns of the target map.
    pub(super) target: (usize, usize),
    pub(super) lif: LifConfig,
    /// Whether `1/tau` is one of its parameters.
    learns: bool,
    pub(super) scaling: Scaling,
    /// Positions of the map that it reads flattened, each channel of each position as a channel; else 1.
    pub(super) flattened: usize,
}

/// The weights of a layer in the orders that its products read.
#[derive(Debug)]
pub(super) struct Packed<'a> {
    weights: Cow<'a, [f32]>,
    /// `[tiles, taps, source channels, tile]`.
    sparse: Buffer,
    dense: OnceLock<Vec<f32>>,
}

impl Layer {
    pub(super) fn new(spec: &Spec) -> Self {
        let Geometry { channels, target, .. } = spec.geometry;
        Self {
            links: spec.geometry.links(),
            channels,
            target,
            lif: spec.lif,
            learns: spec.learns,
            scaling: spec.scaling,
            flattened: spec.flattened,
        }
    }

    /// Neurons.
    pub(super) fn neurons(&self) -> usize {
        self.links.targets * self.channels.1
    }

    pub(super) fn weight_count(&self) -> usize {
        self.links.taps * self.channels.0 * self.channels.1
    }

    pub(super) fn affine_count(&self) -> usize {
        2 * self.channels.1 + usize::from(self.learns)
    }

    /// Whether it has a single position on either side, and a single tap.
    pub(super) fn is_linear(&self) -> bool {
        let links = &self.links;
        (links.kind, links.taps, links.sources, links.targets) == (Kind::Conv, 1, 1, 1)
    }

    /// Its part of the affines, as it was given.
    pub(super) fn affine(&self, affines: &[f32]) -> Affine {
        let (scale, rest) = affines.split_at(self.channels.1);
        let (shift, rate) = rest.split_at(self.channels.1);
        Affine { rate: rate.first().copied(), ..Affine::new(scale.to_vec(), shift.to_vec()) }
    }

    pub(super) fn weight_index(&self, source: usize, tap: usize, target: usize) -> usize {
        self.links.weight_index(self.channels, source, tap, target)
    }

    /// `(width, number)` of the tiles of target channels.
    pub(super) fn tiles(&self) -> (usize, usize) {
        let width = tile(self.channels.1);
        (width, self.channels.1.div_ceil(width))
    }

    /// The fraction of ones above which the weight gradient goes through matrix products.
    pub(super) fn gradient_dense_above(&self) -> f64 {
        if self.channels.1 < WIDE { NARROW_DENSE_ABOVE } else { DENSE_ABOVE }
    }

    /// Time steps that the weight gradient takes at once.
    pub(super) fn gradient_block(&self) -> usize {
        (GRADIENT_ROWS / self.links.targets).max(1)
    }

    pub(super) fn pack<'a>(&self, weights: Cow<'a, [f32]>) -> Packed<'a> {
        let ((width, tiles), (source, target)) = (self.tiles(), self.channels);
        let size = self.links.taps * source * width;
        let mut sparse = Buffer::new(tiles * size);
        let step = if source > 1 { self.weight_index(1, 0, 0) } else { 1 };
        sparse.par_chunks_mut(width * source).enumerate().for_each(|(i, rows)| {
            let (first, tap) = (i / self.links.taps * width, i % self.links.taps);
            let of = |lane: usize| &weights[self.weight_index(0, tap, first + lane)..];
            let lanes = width.min(target - first);
            // Four at once, where a target's weights lie one behind the other: as many as make a vector, which are read from first to last.
            let fours = if step == 1 { lanes / 4 * 4 } else { 0 };
            for lane in (0..fours).step_by(4) {
                write_columns([0, 1, 2, 3].map(|i| &of(lane + i)[..source]), rows, (width, lane));
            }
            for (block, rows) in rows.chunks_mut(TURNED * width).enumerate() {
                for lane in fours..lanes {
                    let weights = of(lane).iter().step_by(step).skip(block * TURNED);
                    rows[lane..].iter_mut().step_by(width).zip(weights).for_each(|(to, w)| *to = *w);
                }
                for row in rows.chunks_exact_mut(width) {
                    row[lanes..].fill(0.);
                }
            }
        });
        Packed { weights, sparse, dense: OnceLock::new() }
    }
}

/// The events of a signal that goes through the event-driven kernels: one with at most this fraction of ones.
pub(super) fn sparse_events(signal: &Signal, dense_above: f64) -> Option<&Events> {
    match signal {
        Signal::Events(events) if events.density() <= forced_dense_above().unwrap_or(dense_above) => {
            Some(events)
        }
        _ => None,
    }
}

/// Time steps of a signal with so many values each.
pub(super) fn steps(signal: &Signal, values: usize) -> usize {
    match signal {
        Signal::Events(events) => events.time_steps(),
        Signal::Dense(rows) => rows.len() / values,
    }
}

/// The rows of these time steps as numbers.
pub(super) fn numbers<'a>(
    signal: &'a Signal,
    times: Range<usize>,
    values: usize,
    buffer: &'a mut Vec<f32>,
) -> &'a [f32] {
    match signal {
        Signal::Dense(rows) => &rows[times.start * values..times.end * values],
        Signal::Events(events) => {
            events.densify(times, buffer);
            buffer
        }
    }
}

/// `0..steps` in pieces of at most `size`.
pub(super) fn pieces(steps: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..steps).step_by(size).map(move |start| start..(start + size).min(steps))
}

impl Packed<'_> {
    /// In the layer's own order.
    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The currents `[steps, targets, target channels]` that a signal causes through `links`: the layer's own, or a part
    /// of them.
    pub(super) fn currents(
        &self,
        layer: &Layer,
        links: &Links,
        signal: &Signal,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let channels = layer.channels;
        let (block, neurons) = ((FORWARD_ROWS / links.targets).max(1), links.targets * channels.1);
        match sparse_events(signal, DENSE_ABOVE) {
            Some(events) => {
                for times in pieces(events.time_steps(), block) {
                    let out = &mut out[times.start * neurons..times.end * neurons];
                    let rows = &mut workspace.rows;
                    by_tile!(layer.tiles().0, L => {
                        self.sparse_block::<L>(links, channels, (events, times), out, rows)
                    });
                }
            }
            None => {
                let direction = Direction::forward(links, channels);
                let weights = self
                    .dense
                    .get_or_init(|| direction.pack(|f, tap, t| self.weights[layer.weight_index(f, tap, t)]));
                let values = links.sources * channels.0;
                for times in pieces(steps(signal, values), block) {
                    let out = &mut out[times.start * neurons..times.end * neurons];
                    let rows = numbers(signal, times, values, &mut workspace.values);
                    direction.run(rows, weights, out, &mut workspace.dense);
                }
            }
        }
    }

    /// The currents of several signals, of so many time steps each. In a linear layer few spikes read many weights: there tile after
    /// tile of them is fetched once for all.
    pub(super) fn all_currents(
        &self,
        layer: &Layer,
        links: &Links,
        signals: &[Signal],
        steps: usize,
        workspace: &mut Workspace,
    ) -> Vec<Buffer> {
        let new = |_: &Signal| Buffer::new(steps * links.targets * layer.channels.1);
        let mut all: Vec<Buffer> = signals.iter().map(new).collect();
        let sparse: Option<Vec<_>> =
            signals.iter().map(|signal| sparse_events(signal, DENSE_ABOVE)).collect();
        match sparse {
            Some(events) if layer.is_linear() => by_tile!(layer.tiles().0, L => {
                for tile in 0..layer.tiles().1 {
                    for (&events, out) in events.iter().zip(&mut all) {
                        let place = (layer.channels, tile);
                        self.sparse_tile::<L>(links, place, (events, 0..steps), out, &mut workspace.rows);
                    }
                }
            }),
            _ => {
                for (signal, out) in signals.iter().zip(&mut all) {
                    self.currents(layer, links, signal, out, workspace);
                }
            }
        }
        all
    }

    fn sparse_block<const L: usize>(
        &self,
        links: &Links,
        channels: (usize, usize),
        (events, times): (&Events, Range<usize>),
        out: &mut [f32],
        buffer: &mut Vec<f32>,
    ) {
        for tile in 0..channels.1.div_ceil(L) {
            self.sparse_tile::<L>(links, (channels, tile), (events, times.clone()), out, buffer);
        }
    }

    /// A tile of the channels of some time steps.
    fn sparse_tile<const L: usize>(
        &self,
        links: &Links,
        ((source, target), tile): ((usize, usize), usize),
        (events, times): (&Events, Range<usize>),
        out: &mut [f32],
        buffer: &mut Vec<f32>,
    ) {
        let size = links.taps * source * L;
        let weights = &self.sparse[tile * size..][..size];
        if target == L {
            out.fill(0.);
            return gather::<L>(links, events, times, weights, out);
        }
        let buffer = lend(buffer, times.len() * links.targets * L);
        buffer.fill(0.);
        gather::<L>(links, events, times, weights, buffer);
        let (first, width) = (tile * L, L.min(target - tile * L));
        for (out, row) in out.chunks_exact_mut(target).zip(buffer.chunks_exact(L)) {
            out[first..first + width].copy_from_slice(&row[..width]);
        }
    }
}
