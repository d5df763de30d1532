//! Normalisation and LIF neurons of one item of a batch, channels last, in one pass over time.

use std::ops::Range;

use crate::neuron::by_surrogate;
use crate::ops::lif::{Neuron, by_division};
use crate::ops::simd::{prefetch, vectorised};
use crate::{LifConfig, Surrogate};

/// Neurons that a kernel handles at once: their state stays in the first-level cache.
const CHUNK: usize = 512;

/// What parameters make of currents: the affine map of a norm, `y -> scale (y - centre) + shift`, by channel, and the leak where it is
/// learned. Near the mean `y - centre` is exact, and small where `scale y` may be large.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) centre: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    /// `1/tau` in place of the config's.
    pub(super) rate: Option<f32>,
}

impl Affine {
    /// `y -> scale y + shift`.
    pub(super) fn new(scale: Vec<f32>, shift: Vec<f32>) -> Self {
        Self { centre: vec![0.; scale.len()], scale, shift, rate: None }
    }

    fn channels(&self) -> usize {
        self.scale.len()
    }
}

/// The neurons of a layer: how many, and what is constant over time.
pub(super) struct Neurons<'a> {
    pub(super) lif: &'a LifConfig,
    pub(super) affine: &'a Affine,
    pub(super) time_steps: usize,
}

/// What [`Neurons::run`] leaves behind.
pub(super) enum Out<'a> {
    /// Spikes, `[time steps, neurons]`, each 0 or 1.
    Bytes(&'a mut [u8]),
    /// `sum_t w[r][t] spike[t]`, added, `[rows, neurons]`.
    Sums(&'a [Vec<f32>], &'a mut [f32]),
}

/// Where the gradient of the spikes comes from.
#[derive(Clone, Copy)]
pub(super) enum SpikeGradient<'a> {
    /// `[time steps, neurons]`.
    Each(&'a [f32]),
    /// The same, where the result will be written.
    InPlace,
    /// `sum_r w[r][t] grad[r]`, with `grad: [rows, neurons]`.
    Sums(&'a [Vec<f32>], &'a [f32]),
}

impl SpikeGradient<'_> {
    /// Lets the gradient of the spikes of a chunk at a time step lie where its result will.
    #[inline(always)]
    fn read(&self, t: usize, chunk: Range<usize>, neurons: usize, into: &mut [f32]) {
        match self {
            Self::Each(grads) => into.copy_from_slice(&grads[t * neurons..][chunk]),
            Self::InPlace => {}
            Self::Sums(weights, grads) => {
                into.fill(0.);
                for (weights, grads) in weights.iter().zip(grads.chunks_exact(neurons)) {
                    into.iter_mut().zip(&grads[chunk.clone()]).for_each(|(i, g)| *i += weights[t] * g);
                }
            }
        }
    }
}

/// By channel: the sums that batch norm's backward pass needs; of all, the gradient of the leak.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    /// `sum g`, the gradient of the shift.
    pub(super) grad: Vec<f64>,
    /// `sum g (y - centre)`.
    pub(super) grad_current: Vec<f64>,
    /// The gradient of `1/tau`, where it is learned.
    pub(super) rate: f64,
}

impl Sums {
    pub(super) fn zeros(channels: usize) -> Self {
        Self { grad: vec![0.; channels], grad_current: vec![0.; channels], rate: 0. }
    }

    pub(super) fn add(mut self, other: &Self) -> Self {
        self.grad.iter_mut().zip(&other.grad).for_each(|(a, b)| *a += b);
        self.grad_current.iter_mut().zip(&other.grad_current).for_each(|(a, b)| *a += b);
        self.rate += other.rate;
        self
    }
}

impl Neurons<'_> {
    /// Rows of channels that make a chunk.
    fn chunk(&self) -> usize {
        let channels = self.affine.channels();
        (CHUNK / channels).max(1) * channels
    }

    /// The affine map of every neuron of a chunk.
    fn expanded(&self) -> Affine {
        let Affine { centre, scale, shift, rate } = self.affine;
        let repeat = |values: &[f32]| values.repeat(self.chunk() / values.len());
        Affine { centre: repeat(centre), scale: repeat(scale), shift: repeat(shift), rate: *rate }
    }

    /// Runs all time steps on `currents: [steps, neurons]`; one step stands for all where the current is constant.
    pub(super) fn run(&self, currents: &[f32], neurons: usize, out: Out<'_>) {
        let expanded = self.expanded();
        let drive = self.drive(&expanded, currents, neurons);
        match out {
            Out::Bytes(spikes) => by_division!(drive.neuron, DIVIDES => fire::<DIVIDES>(&drive, spikes)),
            Out::Sums(weights, sums) => {
                by_division!(drive.neuron, DIVIDES => fire_and_sum::<DIVIDES>(&drive, weights, sums))
            }
        }
    }

    /// Backward through time; the membrane is recomputed. Writes the gradient of the normalised current to `into`, of
    /// the shape of `currents`, and returns its sums by channel.
    pub(super) fn backward(
        &self,
        currents: &[f32],
        neurons: usize,
        grads: SpikeGradient<'_>,
        into: &mut [f32],
    ) -> Sums {
        let expanded = self.expanded();
        let (drive, surrogate) = (self.drive(&expanded, currents, neurons), self.lif.surrogate);
        if self.affine.rate.is_some() {
            return backward::<false, true>(&drive, surrogate, grads, into);
        }
        by_division!(drive.neuron, DIVIDES => backward::<DIVIDES, false>(&drive, surrogate, grads, into))
    }

    fn drive<'b>(&self, affine: &'b Affine, currents: &'b [f32], neurons: usize) -> Drive<'b> {
        let neuron = Neuron::new(self.lif);
        let neuron = self.affine.rate.map_or(neuron, |rate| neuron.with_rate(rate));
        let (channels, time_steps) = (self.affine.channels(), self.time_steps);
        Drive { neuron, channels, affine, currents, neurons, time_steps }
    }
}

/// What drives the neurons of one item.
struct Drive<'a> {
    neuron: Neuron<f32>,
    channels: usize,
    /// Of every neuron of a chunk.
    affine: &'a Affine,
    currents: &'a [f32],
    neurons: usize,
    time_steps: usize,
}

impl<'a> Drive<'a> {
    /// First neuron and length of each chunk.
    #[inline(always)]
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (neurons, size) = (self.neurons, self.size());
        (0..neurons).step_by(size).map(move |from| (from, size.min(neurons - from)))
    }

    /// Neurons of a whole chunk.
    #[inline(always)]
    fn size(&self) -> usize {
        self.affine.channels()
    }

    /// Centre, scale and shift of the first `n` neurons of a chunk.
    #[inline(always)]
    fn affine(&self, n: usize) -> (&'a [f32], &'a [f32], &'a [f32]) {
        let Affine { centre, scale, shift, .. } = self.affine;
        (&centre[..n], &scale[..n], &shift[..n])
    }

    #[inline(always)]
    fn constant(&self) -> bool {
        self.currents.len() == self.neurons
    }

    /// The currents of a chunk at a time step; those that come next are on their way.
    #[inline(always)]
    fn currents(&self, t: usize, (from, n): (usize, usize)) -> &'a [f32] {
        let next = match t + 1 < self.time_steps {
            true => self.place(t + 1, (from, n)),
            false => self.place(0, (from + n, n.min(self.neurons - from - n))),
        };
        prefetch(&self.currents[next]);
        &self.currents[self.place(t, (from, n))]
    }

    /// Where the currents of a chunk at a time step lie.
    #[inline(always)]
    fn place(&self, t: usize, (from, n): (usize, usize)) -> Range<usize> {
        let start = if self.constant() { from } else { t * self.neurons + from };
        start..start + n
    }
}

vectorised! {
    /// Spikes as bytes, `[time steps, neurons]`.
    fn fire<const DIVIDES: bool>(drive: &Drive<'_>, spikes: &mut [u8]) {
        let neuron = drive.neuron;
        let mut membrane = vec![0f32; drive.size()];
        for (from, n) in drive.chunks() {
            let v = &mut membrane[..n];
            v.fill(neuron.v_reset);
            let (centre, scale, shift) = drive.affine(n);
            for t in 0..drive.time_steps {
                let ys = drive.currents(t, (from, n));
                let spikes = &mut spikes[t * drive.neurons + from..][..n];
                for i in 0..n {
                    let h = neuron.charge::<DIVIDES>(v[i], scale[i] * (ys[i] - centre[i]) + shift[i]);
                    let s = neuron.fire(h);
                    spikes[i] = u8::from(s > 0.);
                    v[i] = neuron.reset(h, s);
                }
            }
        }
    }
}

vectorised! {
    /// `sums[r] += sum_t weights[r][t] spike[t]`, `[rows, neurons]`.
    fn fire_and_sum<const DIVIDES: bool>(drive: &Drive<'_>, weights: &[Vec<f32>], sums: &mut [f32]) {
        let neuron = drive.neuron;
        let [mut membrane, mut fired] = std::array::from_fn(|_| vec![0f32; drive.size()]);
        for (from, n) in drive.chunks() {
            let v = &mut membrane[..n];
            v.fill(neuron.v_reset);
            let ((centre, scale, shift), fired) = (drive.affine(n), &mut fired[..n]);
            for t in 0..drive.time_steps {
                let ys = drive.currents(t, (from, n));
                for i in 0..n {
                    let h = neuron.charge::<DIVIDES>(v[i], scale[i] * (ys[i] - centre[i]) + shift[i]);
                    fired[i] = neuron.fire(h);
                    v[i] = neuron.reset(h, fired[i]);
                }
                for (sums, weights) in sums.chunks_exact_mut(drive.neurons).zip(weights) {
                    let (sums, weight) = (&mut sums[from..][..n], weights[t]);
                    for i in 0..n {
                        sums[i] += weight * fired[i];
                    }
                }
            }
        }
    }
}

vectorised! {
    /// See [`Neurons::backward`].
    fn backward<const DIVIDES: bool, const LEARNS: bool>(
        drive: &Drive<'_>,
        surrogate: Surrogate,
        grads: SpikeGradient<'_>,
        into: &mut [f32],
    ) -> Sums {
        by_surrogate!(surrogate, f32, slope => backward_with::<DIVIDES, LEARNS>(drive, slope, grads, into))
    }
}

#[inline(always)]
fn backward_with<const DIVIDES: bool, const LEARNS: bool>(
    drive: &Drive<'_>,
    slope: impl Fn(f32) -> f32,
    grads: SpikeGradient<'_>,
    into: &mut [f32],
) -> Sums {
    let (neuron, size, constant) = (drive.neuron, drive.size(), drive.constant());
    let mut sums = Sums::zeros(drive.channels);
    let mut membrane = vec![0f32; drive.time_steps * size];
    let [mut v, mut gv, mut sum, mut sum_current] = std::array::from_fn(|_| vec![0f32; size]);
    let mut sum_rate = vec![0f32; if LEARNS { size } else { 0 }];
    for (from, n) in drive.chunks() {
        let (centre, scale, shift) = drive.affine(n);
        v.fill(neuron.v_reset);
        for (t, hs) in membrane.chunks_exact_mut(size).enumerate() {
            let (ys, hs, v) = (drive.currents(t, (from, n)), &mut hs[..n], &mut v[..n]);
            for i in 0..n {
                let h = neuron.charge::<DIVIDES>(v[i], scale[i] * (ys[i] - centre[i]) + shift[i]);
                hs[i] = h;
                v[i] = neuron.reset(h, neuron.fire(h));
            }
        }
        if let Some(last) = drive.time_steps.checked_sub(1) {
            prefetch(&into[drive.place(last, (from, n))]);
        }
        gv.fill(0.);
        sum.fill(0.);
        sum_current.fill(0.);
        sum_rate.fill(0.);
        for (t, hs) in membrane.chunks_exact(size).enumerate().rev() {
            let (hs, gv) = (&hs[..n], &mut gv[..n]);
            let (sum, sum_current) = (&mut sum[..n], &mut sum_current[..n]);
            if let Some(before) = t.checked_sub(1) {
                prefetch(&into[drive.place(before, (from, n))]);
            }
            let (ys, out) =
                (&drive.currents[drive.place(t, (from, n))], &mut into[drive.place(t, (from, n))]);
            grads.read(t, from..from + n, drive.neurons, out);
            if LEARNS {
                potentials_before(&neuron, t.checked_sub(1).map(|t| &membrane[t * size..][..n]), &mut v[..n]);
            }
            for i in 0..n {
                let h = hs[i];
                let gh = neuron.charge_gradient(h, neuron.fire(h), slope(neuron.excess(h)), out[i], gv[i]);
                let gx;
                (gx, gv[i]) = neuron.discharge::<DIVIDES>(gh);
                if LEARNS {
                    let x = scale[i] * (ys[i] - centre[i]) + shift[i];
                    sum_rate[i] += gh * neuron.flow(v[i], x);
                }
                sum[i] += gx;
                sum_current[i] += gx * (ys[i] - centre[i]);
                out[i] = if constant { sum[i] } else { gx };
            }
        }
        add_rows(&sum[..n], &mut sums.grad);
        add_rows(&sum_current[..n], &mut sums.grad_current);
        if LEARNS {
            sums.rate += sum_rate[..n].iter().map(|&x| f64::from(x)).sum::<f64>();
        }
    }
    sums
}

/// What a step began with: the potentials behind the step before it, or those at rest.
#[inline(always)]
fn potentials_before(neuron: &Neuron<f32>, hs: Option<&[f32]>, v: &mut [f32]) {
    match hs {
        Some(hs) => v.iter_mut().zip(hs).for_each(|(v, &h)| *v = neuron.reset(h, neuron.fire(h))),
        None => v.fill(neuron.v_reset),
    }
}

/// Adds rows of channels.
#[inline(always)]
fn add_rows(rows: &[f32], sums: &mut [f64]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
}
