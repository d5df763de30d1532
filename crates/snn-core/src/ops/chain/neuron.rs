//! Normalisation and LIF neurons of one item of a batch, channels last, in one pass over time.

use crate::LifConfig;
use crate::ops::lif::Neuron;

/// Neurons that a kernel handles at once: their state stays in the first-level cache.
const CHUNK: usize = 512;

/// The affine map of batch norm, by channel.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
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
    /// `sum_t w[t] spike[t]`, added, `[neurons]`.
    Sum(&'a [f32], &'a mut [f32]),
}

/// Where the gradient of the spikes comes from.
#[derive(Clone, Copy)]
pub(super) enum SpikeGradient<'a> {
    /// `[time steps, neurons]`.
    Each(&'a [f32]),
    /// `w[t] grad`, with `grad: [neurons]`.
    Sum(&'a [f32], &'a [f32]),
}

impl SpikeGradient<'_> {
    fn read(&self, t: usize, neurons: usize, chunk: std::ops::Range<usize>, into: &mut [f32]) {
        match self {
            Self::Each(grads) => into.copy_from_slice(&grads[t * neurons..][chunk]),
            Self::Sum(weights, grads) => {
                into.iter_mut().zip(&grads[chunk]).for_each(|(i, g)| *i = weights[t] * g);
            }
        }
    }
}

/// By channel: the sums that batch norm's backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    /// `sum g`, the gradient of the shift.
    pub(super) grad: Vec<f64>,
    /// `sum g (y - mean)`.
    pub(super) grad_current: Vec<f64>,
}

impl Sums {
    pub(super) fn zeros(channels: usize) -> Self {
        Self { grad: vec![0.; channels], grad_current: vec![0.; channels] }
    }

    pub(super) fn add(mut self, other: &Self) -> Self {
        self.grad.iter_mut().zip(&other.grad).for_each(|(a, b)| *a += b);
        self.grad_current.iter_mut().zip(&other.grad_current).for_each(|(a, b)| *a += b);
        self
    }
}

impl Neurons<'_> {
    /// Rows of channels that make a chunk.
    fn chunk(&self) -> usize {
        let channels = self.affine.scale.len();
        (CHUNK / channels).max(1) * channels
    }

    /// Scale and shift of every neuron of a chunk.
    fn expanded(&self) -> (Vec<f32>, Vec<f32>) {
        let n = self.chunk();
        let repeat = |values: &[f32]| values.iter().copied().cycle().take(n).collect();
        (repeat(&self.affine.scale), repeat(&self.affine.shift))
    }

    /// Runs all time steps on `currents: [steps, neurons]`; one step stands for all where the current is constant.
    #[inline(always)]
    pub(super) fn run(&self, currents: &[f32], neurons: usize, mut out: Out<'_>) {
        let neuron = Neuron::<f32>::new(self.lif, false);
        let (scale, shift) = self.expanded();
        let constant = currents.len() == neurons;
        let mut membrane = vec![0f32; scale.len()];
        for from in (0..neurons).step_by(scale.len()) {
            let n = scale.len().min(neurons - from);
            let v = &mut membrane[..n];
            v.fill(neuron.v_reset);
            let (scale, shift) = (&scale[..n], &shift[..n]);
            for t in 0..self.time_steps {
                let ys = &currents[if constant { 0 } else { t * neurons } + from..][..n];
                match &mut out {
                    Out::Bytes(spikes) => {
                        let spikes = &mut spikes[t * neurons + from..][..n];
                        for i in 0..n {
                            let h = neuron.charge(v[i], scale[i] * ys[i] + shift[i]);
                            let s = neuron.fire(h);
                            spikes[i] = u8::from(s > 0.);
                            v[i] = neuron.reset(h, s);
                        }
                    }
                    Out::Sum(weights, sums) => {
                        let (weight, sums) = (weights[t], &mut sums[from..][..n]);
                        for i in 0..n {
                            let h = neuron.charge(v[i], scale[i] * ys[i] + shift[i]);
                            let s = neuron.fire(h);
                            sums[i] += weight * s;
                            v[i] = neuron.reset(h, s);
                        }
                    }
                }
            }
        }
    }

    /// Backward through time; the membrane is recomputed. Writes the gradient of the normalised current to `into`, of
    /// the shape of `currents`, and returns its sums by channel.
    #[inline(always)]
    pub(super) fn backward(
        &self,
        currents: &[f32],
        neurons: usize,
        mean: &[f32],
        grads: SpikeGradient<'_>,
        into: &mut [f32],
    ) -> Sums {
        let neuron = Neuron::<f32>::new(self.lif, false);
        let (scale, shift) = self.expanded();
        let (size, channels, steps) = (scale.len(), mean.len(), self.time_steps);
        let constant = currents.len() == neurons;
        let mean: Vec<f32> = mean.iter().copied().cycle().take(size).collect();
        let mut sums = Sums::zeros(channels);
        let mut membrane = vec![0f32; steps * size];
        let [mut v, mut gv, mut gs, mut sum, mut sum_current] = std::array::from_fn(|_| vec![0f32; size]);
        for from in (0..neurons).step_by(size) {
            let n = size.min(neurons - from);
            let (scale, shift, mean) = (&scale[..n], &shift[..n], &mean[..n]);
            let at = |t: usize| if constant { from } else { t * neurons + from };
            v.fill(neuron.v_reset);
            for (t, hs) in membrane.chunks_exact_mut(size).enumerate() {
                let (ys, hs, v) = (&currents[at(t)..][..n], &mut hs[..n], &mut v[..n]);
                for i in 0..n {
                    hs[i] = neuron.charge(v[i], scale[i] * ys[i] + shift[i]);
                    v[i] = neuron.reset(hs[i], neuron.fire(hs[i]));
                }
            }
            gv.fill(0.);
            sum.fill(0.);
            sum_current.fill(0.);
            for (t, hs) in membrane.chunks_exact(size).enumerate().rev() {
                let (hs, gv, gs) = (&hs[..n], &mut gv[..n], &mut gs[..n]);
                let (sum, sum_current) = (&mut sum[..n], &mut sum_current[..n]);
                grads.read(t, neurons, from..from + n, gs);
                let (ys, out) = (&currents[at(t)..][..n], &mut into[at(t)..][..n]);
                for i in 0..n {
                    let gh = neuron.charge_gradient(hs[i], neuron.fire(hs[i]), gs[i], gv[i]);
                    let gx = neuron.drive * gh;
                    gv[i] = neuron.leak * gh;
                    sum[i] += gx;
                    sum_current[i] += gx * (ys[i] - mean[i]);
                    out[i] = if constant { sum[i] } else { gx };
                }
            }
            for (i, (s, c)) in sum[..n].iter().zip(&sum_current[..n]).enumerate() {
                sums.grad[i % channels] += f64::from(*s);
                sums.grad_current[i % channels] += f64::from(*c);
            }
        }
        sums
    }
}
