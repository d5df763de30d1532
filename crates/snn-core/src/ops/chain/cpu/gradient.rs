//! The gradient of a layer's weights: sums over items of a batch, in the order of the items.

use std::ops::Range;

use rayon::prelude::*;

use super::dense::Direction;
use super::events::{Events, Signal};
use super::layer::{Layer, numbers, pieces, sparse_events};
use super::memory::Workspace;
use super::scratch::lend;
use super::sparse::{by_tile, target_rows, weight_gradient};
use crate::geometry::Kind;

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
            for (column, into) in into.chunks_exact_mut(taps).enumerate() {
                let (c, t) = if links.kind == Kind::Conv { (column, row) } else { (row, column) };
                if !self.sparse.is_empty() {
                    let sums = &self.sparse[(t / width * source + c) * taps * width + t % width..];
                    into.iter_mut().zip(sums.iter().step_by(width)).for_each(|(i, sum)| *i += sum);
                }
                if !self.dense.is_empty() {
                    let (first, step) = if links.kind == Kind::Conv { (c, source) } else { (c * taps, 1) };
                    let sums = self.dense[first * target + t..].iter().step_by(step * target);
                    into.iter_mut().zip(sums).for_each(|(i, sum)| *i += sum);
                }
            }
        });
    }
}

/// Elements a task, in sums.
const CHUNK: usize = 1 << 14;
