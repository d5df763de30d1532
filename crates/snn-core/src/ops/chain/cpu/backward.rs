//! A chain from the gradient of its output to those of its input, its weights and its affine maps.

use candle_core::Result;
use rayon::prelude::*;

use super::adjoint::Adjoint;
use super::events::{Events, channels_first, channels_last};
use super::forward::{Kept, parts};
use super::gradient::WeightGradient;
use super::layer::{Layer, pieces};
use super::linear;
use super::memory::{Buffer, Workspace};
use super::neuron::{Neurons, SpikeGradient, Sums};
use super::norm::InputGradient;
use super::scratch::lend;
use super::{End, Plan};
use crate::ops::chain::spec::Scaling;

/// Items are cut into this many groups whatever the number of threads, so that sums are always formed alike.
const GROUPS: usize = 8;

/// The gradients of a chain's arguments.
pub(super) struct Gradients {
    pub(super) input: Option<Vec<f32>>,
    /// Of each layer.
    pub(super) weights: Vec<Vec<f32>>,
    pub(super) affines: Vec<f32>,
}

impl Plan {
    /// `grad` has the shape of the output.
    pub(super) fn gradients(
        &self,
        kept: &[Kept],
        (weights, affines): (&[&[f32]], &[f32]),
        grad: &[f32],
        with_input: bool,
    ) -> Result<Gradients> {
        let zeros = weights.iter().map(|weights| vec![0.; weights.len()]).collect();
        let mut gradients = Gradients { input: None, weights: zeros, affines: vec![0.; affines.len()] };
        let last = self.layers.len() - 1;
        let mut grads = self.output_gradients(grad);
        for (i, (layer, kept)) in self.layers.iter().zip(kept).enumerate().rev() {
            let sum = if i == last { &self.end } else { &End::Spikes };
            if i < last
                && let End::Sums { weights, .. } = &self.end
                && let Some(start) = self.places[i]
            {
                self.add_sums(&mut grads, layer, weights, (grad, start));
            }
            let (normalised, sums) = self.through_neurons(layer, kept, grads, sum);
            let range = self.affine_range(i);
            let (scales, rest) = gradients.affines[range.clone()].split_at_mut(layer.channels.1);
            let (shifts, rates) = rest.split_at_mut(layer.channels.1);
            let map = match (&kept.statistics, layer.scaling) {
                (Some(statistics), Scaling::Batch { eps }) => {
                    let scale = &affines[range][..layer.channels.1];
                    scales.copy_from_slice(&statistics.weight_gradient(&sums, eps));
                    match &self.exchange {
                        // The parameters' gradients are this shard's; the currents' see the whole batch.
                        Some(exchange) => statistics.gradient(scale, &sums.of_all(&**exchange)?, eps),
                        None => statistics.gradient(scale, &sums, eps),
                    }
                }
                _ => {
                    scales.iter_mut().zip(&sums.grad_current).for_each(|(g, s)| *g = *s as f32);
                    InputGradient::fixed(&kept.affine)
                }
            };
            shifts.iter_mut().zip(&sums.grad).for_each(|(g, s)| *g = *s as f32);
            rates.fill(sums.rate as f32);
            let adjoint = (i > 0 || with_input).then(|| Adjoint::new(layer, weights[i]));
            // The first layer's input is flattened already.
            let flattened = if i > 0 { layer.flattened } else { 1 };
            let pass = Pass { layer, kept, map, adjoint, flattened };
            grads = pass.run(normalised, &mut gradients.weights[i]);
        }
        gradients.input = with_input.then(|| self.input_gradient(&mut grads));
        Ok(gradients)
    }

    /// Items a group.
    pub(super) fn group(&self) -> usize {
        self.items.div_ceil(GROUPS).max(1)
    }

    /// One buffer a group, with so many floats an item.
    fn groups(&self, each: usize) -> Vec<Buffer> {
        let starts = (0..self.items).step_by(self.group());
        starts.map(|start| Buffer::new(self.group().min(self.items - start) * each)).collect()
    }

    /// The output's gradient by item, channels last, as far as it is the last layer's.
    fn output_gradients(&self, grad: &[f32]) -> Vec<Buffer> {
        let last = self.layers.len() - 1;
        let (layer, start, all) = (&self.layers[last], self.places[last].unwrap_or(0), self.output_size());
        let (size, steps) = (layer.neurons(), self.output_steps());
        let mut groups = self.groups(steps * size);
        by_item(&mut groups, steps * size).into_par_iter().enumerate().for_each(|(n, rows)| {
            for (t, rows) in rows.chunks_exact_mut(size).enumerate() {
                let grad = &grad[(t * self.items + n) * all + start..][..size];
                channels_last(grad, layer.links.targets, rows, |x| x);
            }
        });
        groups
    }

    /// Adds what the sums over time of a layer in between give to the gradient of its spikes; its part of the output's gradient
    /// begins at `start` in each row of `grad`.
    fn add_sums(
        &self,
        grads: &mut [Buffer],
        layer: &Layer,
        weights: &[Vec<f32>],
        (grad, start): (&[f32], usize),
    ) {
        let (size, all) = (layer.neurons(), self.output_size());
        by_item(grads, self.time_steps * size).into_par_iter().enumerate().for_each(|(n, grads)| {
            Workspace::with(|Workspace { values, .. }| {
                let row = lend(values, size);
                for (r, weights) in weights.iter().enumerate() {
                    let grad = &grad[(r * self.items + n) * all + start..][..size];
                    channels_last(grad, layer.links.targets, row, |x| x);
                    for (grads, &weight) in grads.chunks_exact_mut(size).zip(weights) {
                        grads.iter_mut().zip(&*row).for_each(|(g, x)| *g += weight * x);
                    }
                }
            });
        });
    }

    /// From the spikes' gradient to that of the normalised currents, with its sums.
    fn through_neurons(
        &self,
        layer: &Layer,
        kept: &Kept,
        mut grads: Vec<Buffer>,
        end: &End<f32>,
    ) -> (Vec<Buffer>, Sums) {
        let neurons = Neurons { lif: &layer.lif, affine: &kept.affine, time_steps: self.time_steps };
        let size = layer.neurons();
        let each = kept.each();
        let total = |sums: Vec<Sums>| sums.iter().fold(Sums::zeros(layer.channels.1), Sums::add);
        let backward = |currents: &Buffer, grads: SpikeGradient<'_>, into: &mut [f32]| {
            neurons.backward(currents, size, grads, into)
        };
        let currents = kept.currents.par_iter();
        if *end == End::Spikes && each == self.time_steps * size {
            let items = currents.zip(by_item(&mut grads, each));
            let sums =
                items.map(|(currents, grads)| backward(currents, SpikeGradient::InPlace, grads)).collect();
            return (grads, total(sums));
        }
        let mut into = self.groups(each);
        let given = by_item(
            &mut grads,
            match end {
                End::Spikes => self.time_steps * size,
                End::Sums { weights, .. } => weights.len() * size,
            },
        );
        let items = currents.zip(given).zip(by_item(&mut into, each));
        let item = |((currents, grads), into): ((&Buffer, &mut [f32]), &mut [f32])| {
            let grads = match end {
                End::Spikes => SpikeGradient::Each(grads),
                End::Sums { weights, .. } => SpikeGradient::Sums(weights, grads),
            };
            backward(currents, grads, into)
        };
        let sums = items.map(item).collect();
        (into, total(sums))
    }

    /// `[T, N, C, H, W]`, or `[N, C, H, W]`, from items that have channels last.
    fn input_gradient(&self, grads: &mut [Buffer]) -> Vec<f32> {
        let (channels, positions) = (self.layers[0].channels.0, self.layers[0].links.sources);
        let size = channels * positions;
        let all: usize = grads.iter().map(|group| group.len()).sum();
        let (mut input, each) = (vec![0f32; all], all / self.items);
        parts(&mut input, self.items, size).into_par_iter().zip(by_item(grads, each)).for_each(
            |(parts, grads)| {
                for (part, rows) in parts.into_iter().zip(grads.chunks_exact(size)) {
                    channels_first(rows, channels, part, |x| x);
                }
            },
        );
        input
    }
}

/// The items in these groups.
fn by_item(groups: &mut [Buffer], each: usize) -> Vec<&mut [f32]> {
    groups.iter_mut().flat_map(|group| group.chunks_exact_mut(each)).collect()
}

/// One layer's synapses, backward.
struct Pass<'a> {
    layer: &'a Layer,
    kept: &'a Kept,
    map: InputGradient,
    adjoint: Option<Adjoint<'a>>,
    /// Positions of the map whose gradient is wanted channels last; 1 where it is as the layer reads it.
    flattened: usize,
}

impl Pass<'_> {
    /// From the gradient of the normalised currents to that of the input, by group, and of the weights.
    fn run(&self, normalised: Vec<Buffer>, weights: &mut [f32]) -> Vec<Buffer> {
        if let Some(events) = linear::events(self.layer, &self.kept.signals) {
            return self.run_linear(normalised, &events, weights);
        }
        let each = self.kept.each();
        let size = normalised.first().map_or(1, |group| group.len() / each);
        let group = |(g, mut grads): (usize, Buffer)| {
            let mut gradient = WeightGradient::zeros(self.layer);
            Workspace::with(|workspace| match self.adjoint.as_ref() {
                Some(adjoint) if adjoint.takes_any_block() => {
                    let input = self.step_by_step(g * size, adjoint, &mut grads, &mut gradient, workspace);
                    (gradient, Some(input))
                }
                adjoint => {
                    for (n, grads) in (g * size..).zip(grads.chunks_exact_mut(each)) {
                        self.map.apply_in_place(grads, &self.kept.currents[n]);
                        gradient.add(&self.kept.signals[n], grads, workspace);
                    }
                    (gradient, adjoint.map(|adjoint| self.input(adjoint, &grads, workspace)))
                }
            })
        };
        let results: Vec<_> = normalised.into_par_iter().enumerate().map(group).collect();
        let mut total = WeightGradient::zeros(self.layer);
        let mut inputs = Vec::new();
        for (gradient, input) in results {
            total = total.merge(gradient);
            inputs.extend(input);
        }
        total.write(weights);
        inputs
    }

    /// All that is made of a few time steps while they are in the caches, for items from `first` on.
    fn step_by_step(
        &self,
        first: usize,
        adjoint: &Adjoint<'_>,
        grads: &mut [f32],
        gradient: &mut WeightGradient<'_>,
        workspace: &mut Workspace,
    ) -> Buffer {
        let (from, to) = (self.layer.neurons(), self.layer.links.sources * self.layer.channels.0);
        let (each, steps) = (self.kept.each(), self.kept.each() / from);
        let mut out = Buffer::new(grads.len() / from * to);
        let items = grads.chunks_exact_mut(each).zip(out.chunks_exact_mut(steps * to));
        for (n, (grads, out)) in (first..).zip(items) {
            for times in pieces(steps, self.layer.gradient_block()) {
                let range = times.start * from..times.end * from;
                let (grads, currents) = (&mut grads[range.clone()], &self.kept.currents[n][range]);
                self.map.apply_in_place(grads, currents);
                gradient.add_block(&self.kept.signals[n], times.clone(), grads, workspace);
                adjoint.run(grads, &mut out[times.start * to..times.end * to], &mut workspace.dense);
            }
        }
        out
    }

    /// The same of a linear layer.
    fn run_linear(
        &self,
        mut normalised: Vec<Buffer>,
        events: &[&Events],
        weights: &mut [f32],
    ) -> Vec<Buffer> {
        let each = self.kept.each();
        let size = normalised.first().map_or(1, |group| group.len() / each);
        let group = |(g, grads): (usize, &mut Buffer)| {
            for (n, grads) in (g * size..).zip(grads.chunks_exact_mut(each)) {
                self.map.apply_in_place(grads, &self.kept.currents[n]);
            }
            let adjoint = self.adjoint.as_ref();
            adjoint.map(|adjoint| Workspace::with(|workspace| self.input(adjoint, grads, workspace)))
        };
        let inputs: Vec<_> = normalised.par_iter_mut().enumerate().map(group).collect();
        linear::weight_gradient(self.layer, events, &normalised, size, weights);
        inputs.into_iter().flatten().collect()
    }

    /// The input gradient of a group of items, whose time steps are all alike to it.
    fn input(&self, adjoint: &Adjoint<'_>, grads: &[f32], workspace: &mut Workspace) -> Buffer {
        let (links, channels) = (&self.layer.links, self.layer.channels);
        let (from, to) = (self.layer.neurons(), links.sources * channels.0);
        let steps = grads.len() / from;
        let mut out = Buffer::new(steps * to);
        for times in pieces(steps, adjoint.block(links.targets)) {
            let (grads, out) =
                (&grads[times.start * from..times.end * from], &mut out[times.start * to..times.end * to]);
            adjoint.run(grads, out, &mut workspace.dense);
            if self.flattened > 1 {
                let row = lend(&mut workspace.values, to);
                for out in out.chunks_exact_mut(to) {
                    row.copy_from_slice(out);
                    channels_last(row, self.flattened, out, |x| x);
                }
            }
        }
        out
    }
}
