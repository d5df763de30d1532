//! A chain from the gradient of its output to those of its input, its weights and its affine maps.

use rayon::prelude::*;

use super::events::{channels_first, channels_last};
use super::forward::{Kept, parts};
use super::layer::{Adjoint, Buffers, Layer, WeightGradient, pieces};
use super::neuron::{Neurons, SpikeGradient, Sums};
use super::norm::InputGradient;
use super::{End, Norm, Plan};

/// Items are cut into this many groups whatever the number of threads, so that sums are always formed alike.
const GROUPS: usize = 8;

/// The gradients of a chain's three arguments.
pub(super) struct Gradients {
    pub(super) input: Option<Vec<f32>>,
    pub(super) weights: Vec<f32>,
    pub(super) affines: Vec<f32>,
}

impl Plan {
    /// `grad` has the shape of the output.
    pub(super) fn gradients(
        &self,
        kept: &[Kept],
        (weights, affines): (&[f32], &[f32]),
        grad: &[f32],
        with_input: bool,
    ) -> Gradients {
        let mut gradients =
            Gradients { input: None, weights: vec![0.; weights.len()], affines: vec![0.; affines.len()] };
        let mut grads = self.output_gradients(grad);
        for (i, (layer, kept)) in self.layers.iter().zip(kept).enumerate().rev() {
            let sum = if i + 1 == self.layers.len() { &self.end } else { &End::Spikes };
            let (normalised, sums) = self.through_neurons(layer, kept, &grads, sum);
            drop(std::mem::take(&mut grads));
            let (scale_range, shift_range) = self.affine_ranges(i);
            let map = match (&kept.statistics, self.norm) {
                (Some(statistics), Norm::Batch { eps }) => {
                    let scale = &affines[scale_range.clone()];
                    gradients.affines[scale_range].copy_from_slice(&statistics.weight_gradient(&sums, eps));
                    statistics.gradient(scale, &sums, eps)
                }
                _ => {
                    let slopes = gradients.affines[scale_range].iter_mut().zip(&sums.grad_current);
                    slopes.for_each(|(g, s)| *g = *s as f32);
                    InputGradient::fixed(&kept.affine)
                }
            };
            let shifts = gradients.affines[shift_range].iter_mut().zip(&sums.grad);
            shifts.for_each(|(g, s)| *g = *s as f32);
            let range = self.weight_range(i);
            let adjoint = (i > 0 || with_input).then(|| Adjoint::new(layer, &weights[range.clone()]));
            let pass = Pass { layer, kept, map, adjoint };
            grads = pass.run(normalised, &mut gradients.weights[range]);
        }
        gradients.input = with_input.then(|| self.input_gradient(&grads));
        gradients
    }

    /// The output's gradient by item, channels last.
    fn output_gradients(&self, grad: &[f32]) -> Vec<Vec<f32>> {
        let Some(layer) = self.layers.last() else { return Vec::new() };
        let (size, steps) = (layer.neurons(), self.output_steps());
        let item = |n: usize| {
            let mut rows = vec![0f32; steps * size];
            for (t, rows) in rows.chunks_exact_mut(size).enumerate() {
                channels_last(&grad[(t * self.items + n) * size..][..size], layer.links.targets, rows, |x| x);
            }
            rows
        };
        (0..self.items).into_par_iter().map(item).collect()
    }

    /// From the spikes' gradient to that of the normalised currents, with its sums.
    fn through_neurons(
        &self,
        layer: &Layer,
        kept: &Kept,
        grads: &[Vec<f32>],
        end: &End,
    ) -> (Vec<Vec<f32>>, Sums) {
        let mean: Vec<f32> = match &kept.statistics {
            Some(statistics) => statistics.mean.iter().map(|&m| m as f32).collect(),
            None => vec![0.; layer.channels.1],
        };
        let neurons = Neurons { lif: &layer.lif, affine: &kept.affine, time_steps: self.time_steps };
        let item = |(currents, grads): (&Vec<f32>, &Vec<f32>)| {
            let mut into = vec![0f32; currents.len()];
            let grads = match end {
                End::Spikes => SpikeGradient::Each(grads),
                End::Sum(weights) => SpikeGradient::Sum(weights, grads),
            };
            let sums = neurons.backward(currents, layer.neurons(), &mean, grads, &mut into);
            (into, sums)
        };
        let items: Vec<_> = kept.currents.par_iter().zip(grads).map(item).collect();
        let (into, sums): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        (into, sums.iter().fold(Sums::zeros(layer.channels.1), Sums::add))
    }

    /// `[T, N, C, H, W]`, or `[N, C, H, W]`, from items that have channels last.
    fn input_gradient(&self, grads: &[Vec<f32>]) -> Vec<f32> {
        let (channels, positions) = (self.layers[0].channels.0, self.layers[0].links.sources);
        let size = channels * positions;
        let mut input = vec![0f32; grads.iter().map(Vec::len).sum()];
        parts(&mut input, self.items, size).into_par_iter().zip(grads).for_each(|(parts, grads)| {
            for (part, rows) in parts.into_iter().zip(grads.chunks_exact(size)) {
                channels_first(rows, channels, part, |x| x);
            }
        });
        input
    }
}

/// One layer's synapses, backward.
struct Pass<'a> {
    layer: &'a Layer,
    kept: &'a Kept,
    map: InputGradient,
    adjoint: Option<Adjoint<'a>>,
}

impl Pass<'_> {
    /// From the gradient of the normalised currents to that of the input, by item, and of the weights.
    fn run(&self, mut normalised: Vec<Vec<f32>>, weights: &mut [f32]) -> Vec<Vec<f32>> {
        let size = normalised.len().div_ceil(GROUPS).max(1);
        let group = |(g, grads): (usize, &mut [Vec<f32>])| {
            let mut gradient = WeightGradient::zeros(self.layer);
            let mut buffers = Buffers::default();
            for (i, grads) in grads.iter_mut().enumerate() {
                let n = g * size + i;
                self.map.apply_in_place(grads, &self.kept.currents[n]);
                gradient.add(&self.kept.signals[n], grads, &mut buffers);
            }
            let inputs = self.adjoint.as_ref().map(|adjoint| self.inputs(adjoint, grads, &mut buffers));
            (gradient, inputs.unwrap_or_default())
        };
        let results: Vec<_> = normalised.par_chunks_mut(size).enumerate().map(group).collect();
        let mut inputs = Vec::new();
        let mut total = WeightGradient::zeros(self.layer);
        for (gradient, group) in results {
            total = total.merge(gradient);
            inputs.extend(group);
        }
        total.write(weights);
        inputs
    }

    /// The input gradients of a group of items.
    fn inputs(&self, adjoint: &Adjoint<'_>, grads: &mut [Vec<f32>], buffers: &mut Buffers) -> Vec<Vec<f32>> {
        let (links, channels) = (&self.layer.links, self.layer.channels);
        let (from, to) = (self.layer.neurons(), links.sources * channels.0);
        let steps = grads.first().map_or(0, |g| g.len() / from);
        let block = adjoint.block(links.targets);
        if block <= steps {
            let item = |grads: &mut Vec<f32>| {
                // Taken, so that it is freed as soon as it has been used.
                let grads = std::mem::take(grads);
                let mut out = vec![0f32; steps * to];
                for times in pieces(steps, block) {
                    let (grads, out) = (
                        &grads[times.start * from..times.end * from],
                        &mut out[times.start * to..times.end * to],
                    );
                    adjoint.run(grads, out, &mut buffers.dense);
                }
                out
            };
            return grads.iter_mut().map(item).collect();
        }
        // Several items at once: the products want more rows than one has.
        let mut out = Vec::with_capacity(grads.len());
        for grads in grads.chunks(block.div_ceil(steps.max(1))) {
            let rows = grads.concat();
            let mut all = vec![0f32; grads.len() * steps * to];
            adjoint.run(&rows, &mut all, &mut buffers.dense);
            out.extend(all.chunks_exact(steps * to).map(<[f32]>::to_vec));
        }
        out
    }
}
