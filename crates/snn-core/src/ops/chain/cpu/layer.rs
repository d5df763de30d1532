//! One layer of a chain: its geometry, its weights as the kernels want them, its three products.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::dense::Direction;
use super::events::{Events, Signal};
use super::memory::Workspace;
use super::neuron::Affine;
use super::scratch::lend;
use super::sparse::{by_tile, gather, target_rows, tile, weight_gradient};
use crate::LifConfig;
use crate::geometry::Geometry;
use crate::geometry::{Kind, Links};
use crate::ops::chain::spec::{Scaling, Spec};

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
}

/// The weights of a layer in the orders that its products read.
#[derive(Debug)]
pub(super) struct Packed<'a> {
    weights: Cow<'a, [f32]>,
    /// `[tiles, taps, source channels, tile]`.
    sparse: Vec<f32>,
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
        let (width, tiles) = self.tiles();
        let size = self.links.taps * self.channels.0 * width;
        let mut sparse = vec![0f32; tiles * size];
        sparse.par_chunks_mut(width * self.channels.0).enumerate().for_each(|(i, rows)| {
            let (first, tap) = (i / self.links.taps * width, i % self.links.taps);
            for (c, row) in rows.chunks_exact_mut(width).enumerate() {
                for (w, target) in row.iter_mut().zip(first..self.channels.1) {
                    *w = weights[self.weight_index(c, tap, target)];
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
fn numbers<'a>(
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

    fn sparse_block<const L: usize>(
        &self,
        links: &Links,
        (source, target): (usize, usize),
        (events, times): (&Events, Range<usize>),
        out: &mut [f32],
        buffer: &mut Vec<f32>,
    ) {
        let size = links.taps * source * L;
        if target == L {
            out.fill(0.);
            return gather::<L>(links, events, times, &self.sparse, out);
        }
        let buffer = lend(buffer, times.len() * links.targets * L);
        for (tile, weights) in self.sparse.chunks_exact(size).enumerate() {
            buffer.fill(0.);
            gather::<L>(links, events, times.clone(), weights, buffer);
            let (first, width) = (tile * L, L.min(target - tile * L));
            for (out, row) in out.chunks_exact_mut(target).zip(buffer.chunks_exact(L)) {
                out[first..first + width].copy_from_slice(&row[..width]);
            }
        }
    }
}

/// The gradient of a layer's weights, summed over some items of a batch.
pub(super) struct WeightGradient<'a> {
    layer: &'a Layer,
    /// `[tiles, source channels, taps, tile]`.
    sparse: Vec<f32>,
    dense: Vec<f32>,
    table: Vec<u32>,
}

impl<'a> WeightGradient<'a> {
    pub(super) fn zeros(layer: &'a Layer) -> Self {
        Self { layer, sparse: Vec::new(), dense: Vec::new(), table: Vec::new() }
    }

    /// Adds what comes of one signal and the gradient `[steps, targets, target channels]` of its currents.
    pub(super) fn add(&mut self, signal: &Signal, grads: &[f32], workspace: &mut Workspace) {
        let neurons = self.layer.neurons();
        for times in pieces(grads.len() / neurons, self.layer.gradient_block()) {
            let grads = &grads[times.start * neurons..times.end * neurons];
            self.add_block(signal, times, grads, workspace);
        }
    }

    /// The same of some time steps, [`gradient_block`](Layer::gradient_block) of them or less.
    pub(super) fn add_block(
        &mut self,
        signal: &Signal,
        times: Range<usize>,
        grads: &[f32],
        workspace: &mut Workspace,
    ) {
        let (links, channels) = (&self.layer.links, self.layer.channels);
        match sparse_events(signal, self.layer.gradient_dense_above()) {
            Some(events) => {
                let (width, tiles) = self.layer.tiles();
                self.sparse.resize(tiles * width * links.taps * channels.0, 0.);
                by_tile!(width, L => self.sparse_block::<L>(events, times, grads, workspace));
            }
            None => {
                self.dense.resize(self.layer.weight_count(), 0.);
                let rows = numbers(signal, times, links.sources * channels.0, &mut workspace.values);
                let direction = Direction::forward(links, channels);
                direction.weight_gradient(rows, grads, &mut self.dense, &mut workspace.dense);
            }
        }
    }

    fn sparse_block<const L: usize>(
        &mut self,
        events: &Events,
        times: Range<usize>,
        grads: &[f32],
        workspace: &mut Workspace,
    ) {
        let (links, (source, target)) = (&self.layer.links, self.layer.channels);
        if self.table.len() != links.taps * times.len() * links.sources {
            self.table = target_rows(links, times.len());
        }
        events.by_channel(times.clone(), &mut workspace.by_channel);
        let rows = lend(&mut workspace.rows, (times.len() * links.targets + 1) * L);
        rows[times.len() * links.targets * L..].fill(0.);
        for (tile, grad) in self.sparse.chunks_exact_mut(source * links.taps * L).enumerate() {
            let (first, width) = (tile * L, L.min(target - tile * L));
            for (row, grads) in rows.chunks_exact_mut(L).zip(grads.chunks_exact(target)) {
                row[..width].copy_from_slice(&grads[first..first + width]);
                row[width..].fill(0.);
            }
            weight_gradient::<L>(links.taps, &workspace.by_channel, &self.table, rows, grad);
        }
    }

    /// Adds another sum.
    pub(super) fn merge(mut self, other: Self) -> Self {
        let add = |into: &mut Vec<f32>, from: Vec<f32>| {
            if into.is_empty() {
                *into = from;
            } else if !from.is_empty() {
                into.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(into, from)| {
                    into.iter_mut().zip(from).for_each(|(i, f)| *i += f);
                });
            }
        };
        add(&mut self.sparse, other.sparse);
        add(&mut self.dense, other.dense);
        self
    }

    /// Writes it in the order of the layer's weights.
    pub(super) fn write(&self, into: &mut [f32]) {
        let (links, (source, target)) = (&self.layer.links, self.layer.channels);
        let (taps, width) = (links.taps, self.layer.tiles().0);
        let (rows, columns) = match links.kind {
            Kind::Conv => (target, source),
            Kind::Transposed => (source, target),
        };
        into.par_chunks_mut(columns * taps).enumerate().take(rows).for_each(|(row, into)| {
            for (i, into) in into.iter_mut().enumerate() {
                let (column, tap) = (i / taps, i % taps);
                let (c, t) = if links.kind == Kind::Conv { (column, row) } else { (row, column) };
                if !self.sparse.is_empty() {
                    *into += self.sparse[((t / width * source + c) * taps + tap) * width + t % width];
                }
                if !self.dense.is_empty() {
                    let at = if links.kind == Kind::Conv { tap * source + c } else { c * taps + tap };
                    *into += self.dense[at * target + t];
                }
            }
        });
    }
}

/// Elements a task, in sums.
const CHUNK: usize = 1 << 14;
