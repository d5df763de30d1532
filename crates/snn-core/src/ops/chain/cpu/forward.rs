//! A chain from its input to its output.

use std::borrow::Cow;

use candle_core::Result;
use rayon::prelude::*;

use super::events::{Events, Signal, channels_first};
use super::layer::{Layer, Packed};
use super::lookup::LookedUp;
use super::memory::{Buffer, Workspace};
use super::neuron::{Affine, Neurons, Out};
use super::norm::Moments;
use super::prepared::LaidOut;
use super::scratch::lend;
use super::{End, Plan};
use crate::geometry::Links;
use crate::ops::chain::spec::{Scaling, Statistics};

/// What a layer keeps for its backward pass; one entry an item of the batch.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) signals: Vec<Signal>,
    /// `[steps, neurons]`; one step where the input is constant.
    pub(super) currents: Vec<Buffer>,
    pub(super) affine: Affine,
    /// Of the batch, where it scales the currents.
    pub(super) statistics: Option<Statistics>,
}

impl Kept {
    /// Currents of one item.
    pub(super) fn each(&self) -> usize {
        self.currents.first().map_or(0, |currents| currents.len())
    }
}

/// What the first layer is given.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Values(&'a [f32]),
    /// Its currents are looked up.
    Tokens(&'a LookedUp<'a>),
}

impl Plan {
    /// Cuts the input `[T, N, C, H, W]`, or `[N, C, H, W]` where it is constant, into items, channels last.
    pub(super) fn signals(&self, xs: &[f32]) -> Vec<Signal> {
        let layer = &self.layers[0];
        let (positions, channels) = (layer.links.sources, layer.channels.0);
        let size = positions * channels;
        let steps = if self.constant { 1 } else { self.time_steps };
        let item = |n: usize| {
            let steps = (0..steps).map(move |t| &xs[(t * self.items + n) * size..][..size]);
            Signal::new(steps, positions, channels)
        };
        (0..self.items).into_par_iter().map(item).collect()
    }

    /// Runs layer after layer over the whole batch, and keeps what the backward pass needs.
    pub(super) fn run_keeping(
        &self,
        xs: &[f32],
        weights: &[&[f32]],
        affines: &[f32],
    ) -> Result<(Vec<f32>, Vec<Kept>)> {
        let mut signals = self.signals(xs);
        let mut kept = Vec::with_capacity(self.layers.len());
        for (i, (layer, &weights)) in self.layers.iter().zip(weights).enumerate() {
            let packed = layer.pack(weights.into());
            let steps = if i == 0 && self.constant { 1 } else { self.time_steps };
            let (currents, statistics) = self.currents(layer, &packed, &signals, steps)?;
            let given = self.affine_of(i, affines);
            let affine = match (&statistics, layer.scaling) {
                (Some(statistics), Scaling::Batch { eps }) => {
                    Affine { rate: given.rate, ..statistics.affine(&given.scale, &given.shift, eps) }
                }
                _ => given,
            };
            let next =
                if i + 1 < self.layers.len() { self.fire_all(i, &affine, &currents) } else { Vec::new() };
            kept.push(Kept { signals: std::mem::replace(&mut signals, next), currents, affine, statistics });
        }
        let output = self.output(1, |n, outs| {
            for (end, _) in self.ends() {
                let Kept { affine, currents, .. } = &kept[end];
                self.end_items(end, affine, &currents[n..][..outs.len()], None, outs);
            }
        });
        Ok((output, kept))
    }

    /// Runs item after item, or group after group where there are linear layers, through all layers and keeps nothing.
    ///
    /// With `at`, computes these positions of each item's output only, ascending, and what they depend on; the others are
    /// zero.
    pub(super) fn run_through(
        &self,
        given: Given<'_>,
        laid_out: &LaidOut<'_>,
        at: Option<&[Vec<u32>]>,
    ) -> Vec<f32> {
        let signals = match given {
            Given::Values(xs) => self.signals(xs),
            Given::Tokens(_) => Vec::new(),
        };
        let linear = self.layers.iter().any(Layer::is_linear);
        let together = if linear && at.is_none() { self.group() } else { 1 };
        self.output(together, |n, outs| {
            let wanted = at.map(|at| at[n].as_slice());
            if wanted.is_some_and(<[u32]>::is_empty) {
                return;
            }
            let parts = wanted.map(|wanted| self.parts(wanted));
            let mut next = Vec::new();
            for (i, (layer, (packed, affine))) in self.layers.iter().zip(&laid_out.0).enumerate() {
                let links = parts.as_ref().map_or(&layer.links, |parts| &*parts[i].0);
                let at = parts.as_ref().zip(wanted);
                let at = at.map(|(parts, wanted)| At { computed: &parts[i].1, wanted });
                let place = Place { layer: i, positions: links.targets, at };
                if let (0, Given::Tokens(tokens)) = (i, given) {
                    let of_item = |n| tokens.currents(n, at.map(|at| at.computed));
                    let currents: Vec<_> = (n..n + outs.len()).map(of_item).collect();
                    next = self.pass_on(place, affine, &currents, outs);
                    continue;
                }
                let given = if i == 0 { &signals[n..n + outs.len()] } else { &*next };
                let steps = if i == 0 && self.constant { 1 } else { self.time_steps };
                let together = if layer.is_linear() { given.len() } else { 1 };
                let mut made = Vec::with_capacity(given.len());
                for (given, outs) in given.chunks(together).zip(outs.chunks_mut(together)) {
                    let currents = Workspace::with(|workspace| {
                        packed.all_currents(layer, links, given, steps, workspace)
                    });
                    made.extend(self.pass_on(place, affine, &currents, outs));
                }
                next = made;
            }
        })
    }

    /// Puts a layer's part of the output of some items into place, and returns what the next layer gets, if there is one.
    fn pass_on(
        &self,
        Place { layer, positions, at }: Place<'_>,
        affine: &Affine,
        currents: &[Buffer],
        outs: &mut [Vec<&mut [f32]>],
    ) -> Vec<Signal> {
        if self.places[layer].is_some() {
            self.end_items(layer, affine, currents, at, outs);
        }
        if layer + 1 == self.layers.len() {
            return Vec::new();
        }
        currents.iter().map(|currents| self.fire(layer, positions, affine, currents)).collect()
    }

    /// The links of each layer that these positions of the output depend on, and the positions that they lead to.
    fn parts(&self, wanted: &[u32]) -> Vec<(Cow<'_, Links>, Vec<u32>)> {
        let (mut parts, mut computed) = (Vec::with_capacity(self.layers.len()), wanted.to_vec());
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let links = &layer.links;
            // The first layer's signal has all positions.
            let mut sources =
                if i == 0 { (0..links.sources as u32).collect() } else { links.reaching(&computed) };
            if i > 0 && self.places[i - 1].is_some() {
                sources.extend(wanted);
                sources.sort_unstable();
                sources.dedup();
            }
            let part = match (sources.len(), computed.len()) == (links.sources, links.targets) {
                true => Cow::Borrowed(links),
                false => Cow::Owned(links.part(&sources, &computed)),
            };
            let next = if layer.flattened > 1 { (0..layer.flattened as u32).collect() } else { sources };
            parts.push((part, std::mem::replace(&mut computed, next)));
        }
        parts.reverse();
        parts
    }

    /// The currents of every item and, where the batch scales them, its statistics.
    fn currents(
        &self,
        layer: &Layer,
        packed: &Packed<'_>,
        signals: &[Signal],
        steps: usize,
    ) -> Result<(Vec<Buffer>, Option<Statistics>)> {
        let by_batch = layer.scaling != Scaling::Fixed;
        let together = if layer.is_linear() { self.group() } else { 1 };
        let all = |signals: &[Signal]| {
            let currents = Workspace::with(|workspace| {
                packed.all_currents(layer, &layer.links, signals, steps, workspace)
            });
            currents.into_iter().map(|currents| {
                let moments = by_batch.then(|| Moments::of(&currents, layer.channels.1));
                (currents, moments)
            })
        };
        let items: Vec<_> = signals.par_chunks(together).flat_map_iter(all).collect();
        let (currents, moments): (Vec<_>, Vec<Option<_>>) = items.into_iter().unzip();
        // In the order of the items, whatever the threads did.
        let total = moments.into_iter().flatten().reduce(|all, next| all.merge(&next));
        let total = match (total, &self.exchange) {
            (Some(total), Some(exchange)) => Some(total.of_all(&**exchange)?),
            (total, _) => total,
        };
        Ok((currents, total.map(|total| Statistics::new(&total))))
    }

    fn fire_all(&self, i: usize, affine: &Affine, currents: &[Buffer]) -> Vec<Signal> {
        let fire = |currents: &Buffer| self.fire(i, self.layers[i].links.targets, affine, currents);
        currents.par_iter().map(fire).collect()
    }

    fn neurons<'a>(&self, layer: &'a Layer, affine: &'a Affine) -> Neurons<'a> {
        Neurons { lif: &layer.lif, affine, time_steps: self.time_steps }
    }

    /// Lends the spikes of one item, `[time steps, neurons]`.
    fn spikes<R>(
        &self,
        layer: &Layer,
        neurons: usize,
        affine: &Affine,
        currents: &[f32],
        f: impl FnOnce(&[u8]) -> R,
    ) -> R {
        Workspace::with(|Workspace { spikes, .. }| {
            let spikes = lend(spikes, self.time_steps * neurons);
            self.neurons(layer, affine).run(currents, neurons, Out::Bytes(spikes));
            f(spikes)
        })
    }

    /// The spikes of one item's `positions`, from layer `i` to the one behind it.
    fn fire(&self, i: usize, positions: usize, affine: &Affine, currents: &[f32]) -> Signal {
        let (layer, channels) = (&self.layers[i], self.layers[i].channels.1);
        let pack = |spikes: &[u8]| Events::pack(spikes, positions, channels);
        let events = self.spikes(layer, positions * channels, affine, currents, pack);
        let flattens = self.layers.get(i + 1).is_some_and(|next| next.flattened > 1);
        Signal::Events(if flattens { events.flattened() } else { events })
    }

    /// A layer's part of the output of some items.
    fn end_items(
        &self,
        end: usize,
        affine: &Affine,
        currents: &[Buffer],
        at: Option<At<'_>>,
        outs: &mut [Vec<&mut [f32]>],
    ) {
        let (start, size) = (self.places[end].unwrap_or(0), self.layers[end].neurons());
        for (currents, out) in currents.iter().zip(outs) {
            let mut out: Vec<_> = out.iter_mut().map(|row| &mut row[start..start + size]).collect();
            self.end_item(&self.layers[end], affine, currents, at, &mut out);
        }
    }

    /// The same of one item: its time steps, or their sums; at some positions, or at all.
    fn end_item(
        &self,
        layer: &Layer,
        affine: &Affine,
        currents: &[f32],
        at: Option<At<'_>>,
        out: &mut [&mut [f32]],
    ) {
        let channels = layer.channels.1;
        let neurons = at.map_or(layer.links.targets, |at| at.computed.len()) * channels;
        match &self.end {
            End::Spikes => {
                self.spikes(layer, neurons, affine, currents, |spikes| {
                    for (out, spikes) in out.iter_mut().zip(spikes.chunks_exact(neurons)) {
                        place(spikes, channels, at, out, f32::from);
                    }
                });
            }
            End::Sums { weights, .. } => Workspace::with(|Workspace { values, .. }| {
                let sums = lend(values, weights.len() * neurons);
                sums.fill(0.);
                self.neurons(layer, affine).run(currents, neurons, Out::Sums(weights, sums));
                for (out, sums) in out.iter_mut().zip(sums.chunks_exact(neurons)) {
                    place(sums, channels, at, out, |x| x);
                }
            }),
        }
    }

    /// Fills the output tensor by so many items at once; `f` gets the number of the first, and the parts of each.
    fn output(&self, together: usize, f: impl Fn(usize, &mut [Vec<&mut [f32]>]) + Sync) -> Vec<f32> {
        let size = self.output_size();
        let mut output = vec![0f32; self.output_steps() * self.items * size];
        let mut parts = parts(&mut output, self.items, size);
        let groups = parts.par_chunks_mut(together).enumerate();
        groups.for_each(|(i, parts)| f(i * together, parts));
        output
    }
}

/// Of which layer currents are, and where.
#[derive(Clone, Copy)]
struct Place<'a> {
    layer: usize,
    /// Their number.
    positions: usize,
    /// Where the output is wanted at some of them only.
    at: Option<At<'a>>,
}

/// Positions of a map, ascending.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Those of which there are numbers.
    computed: &'a [u32],
    /// Those of which the output wants them, all computed.
    wanted: &'a [u32],
}

/// Rows of channels to the positions `at` of `[channels, positions]`, or to all of them.
fn place<A: Copy>(rows: &[A], channels: usize, at: Option<At<'_>>, out: &mut [f32], f: impl Fn(A) -> f32) {
    let Some(At { computed, wanted }) = at else { return channels_first(rows, channels, out, f) };
    let positions = out.len() / channels;
    let rows = rows.chunks_exact(channels).zip(computed);
    for (row, &p) in rows.filter(|(_, p)| wanted.binary_search(p).is_ok()) {
        out.iter_mut().skip(p as usize).step_by(positions).zip(row).for_each(|(out, &x)| *out = f(x));
    }
}

/// `[steps, items, size]`, by item.
pub(super) fn parts(values: &mut [f32], items: usize, size: usize) -> Vec<Vec<&mut [f32]>> {
    let mut parts: Vec<Vec<&mut [f32]>> = (0..items).map(|_| Vec::new()).collect();
    for (i, part) in values.chunks_exact_mut(size).enumerate() {
        parts[i % items].push(part);
    }
    parts
}
