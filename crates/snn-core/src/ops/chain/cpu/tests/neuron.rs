use candle_core::Var;

use super::super::neuron::{Affine, Neurons, Out, SpikeGradient};
use super::super::norm::InputGradient;
use super::*;
use crate::{Reset, Surrogate, lif_reference};

const RESETS: [Reset; 3] = [Reset::Hard(0.), Reset::Hard(-0.25), Reset::Soft];
/// Time constants by which a float divides exactly.
const LEAKS: [(Option<f64>, bool); 5] =
    [(Some(2.), true), (Some(2.), false), (Some(4.), true), (Some(4.), false), (None, true)];

fn configs() -> Vec<LifConfig> {
    let mut all = Vec::new();
    for v_reset in RESETS {
        for (tau, decay_input) in LEAKS {
            for surrogate in Surrogate::EACH {
                for detach_reset in [false, true] {
                    all.push(LifConfig {
                        tau,
                        v_threshold: 1.,
                        v_reset,
                        decay_input,
                        detach_reset,
                        surrogate,
                        strict_threshold: detach_reset,
                    });
                }
            }
        }
    }
    all
}

/// A layer's currents `[steps, positions, channels]` in short binary fractions: every sum is exact, ties are common.
struct Case {
    lif: LifConfig,
    affine: Affine,
    currents: Vec<f32>,
    neurons: usize,
    time_steps: usize,
}

impl Case {
    fn new(lif: LifConfig, (channels, positions): (usize, usize), steps: usize, time_steps: usize) -> Self {
        let parts = |label: &str, len: usize, (low, high): (f64, f64), part: f64| -> Vec<f32> {
            let mut rng = Seed(7).rng(label);
            (0..len).map(|_| (rng.random_range(low..high) * part).round() as f32 / part as f32).collect()
        };
        let affine = Affine {
            centre: parts("centre", channels, (-1., 1.), 8.),
            scale: parts("scale", channels, (0.25, 2.), 4.),
            shift: parts("shift", channels, (-0.5, 1.), 4.),
            rate: None,
        };
        let currents = parts("currents", steps * positions * channels, (-1., 2.5), 8.);
        Self { lif, affine, currents, neurons: positions * channels, time_steps }
    }

    fn kernel(&self) -> Neurons<'_> {
        Neurons { lif: &self.lif, affine: &self.affine, time_steps: self.time_steps }
    }

    fn channels(&self) -> usize {
        self.affine.scale.len()
    }

    /// `scale (y - centre) + shift` at every time step, `[T, neurons]` in f64, and the variable that it comes of.
    fn normalised(&self) -> Result<(Var, Tensor)> {
        let channels = self.channels();
        let normalise = |(i, y): (usize, &f32)| {
            let Affine { centre, scale, shift, .. } = &self.affine;
            let c = i % channels;
            f64::from(scale[c] * (y - centre[c]) + shift[c])
        };
        let values: Vec<f64> = self.currents.iter().enumerate().map(normalise).collect();
        let xs = Var::from_vec(values, (self.currents.len() / self.neurons, self.neurons), &Device::Cpu)?;
        let all = xs.broadcast_as((self.time_steps, self.neurons))?;
        Ok((xs, all))
    }

    fn spikes(&self) -> Vec<u8> {
        // Whatever was there is overwritten.
        let mut spikes = vec![7u8; self.time_steps * self.neurons];
        self.kernel().run(&self.currents, self.neurons, Out::Bytes(&mut spikes));
        spikes
    }

    /// Spikes, their sum over time, the gradient of the normalised currents and its sums, against the reference.
    fn check(&self, grads: &SpikeGradient<'_>) -> Result<()> {
        let what = format!("{:?}, {} channels, {} neurons", self.lif, self.channels(), self.neurons);
        let (xs, all) = self.normalised()?;
        let wanted = lif_reference(&all, &self.lif)?;
        let wanted_spikes: Vec<f64> = wanted.flatten_all()?.to_vec1()?;
        assert!(self.spikes().iter().map(|&s| f64::from(s)).eq(wanted_spikes.iter().copied()), "{what}");

        let row = |from: f32| (0..self.time_steps).map(|t| from + t as f32).collect::<Vec<_>>();
        let weights = [row(0.3), row(2.)];
        let mut sums = vec![1f32; 2 * self.neurons];
        self.kernel().run(&self.currents, self.neurons, Out::Sums(&weights, &mut sums));
        let column = |n: usize| wanted_spikes[n..].iter().step_by(self.neurons);
        let sum = |n: usize, weights: &[f32]| {
            1. + column(n).zip(weights).map(|(s, w)| s * f64::from(*w)).sum::<f64>()
        };
        let wanted_sums =
            weights.iter().flat_map(|row| (0..self.neurons).map(|n| (sum(n, row), sum(n, row))));
        assert_sums(&format!("{what}: sums"), &sums, &wanted_sums.collect(), 1e-6);

        let upstream: Vec<f64> = match grads {
            SpikeGradient::Each(grads) => grads.iter().map(|&g| f64::from(g)).collect(),
            SpikeGradient::Sums(weights, grads) => (0..self.time_steps * self.neurons)
                .map(|i| (i / self.neurons, i % self.neurons))
                .map(|(t, n)| {
                    let rows = weights.iter().zip(grads.chunks_exact(self.neurons));
                    rows.map(|(w, g)| f64::from(w[t]) * f64::from(g[n])).sum()
                })
                .collect(),
            SpikeGradient::InPlace => unreachable!("compared with `Each` below"),
        };
        let upstream = Tensor::from_vec(upstream, wanted.shape(), &Device::Cpu)?;
        let store = (wanted * upstream)?.sum_all()?.backward()?;
        let gradient: Vec<f64> = store.get(&xs).expect("a gradient").flatten_all()?.to_vec1()?;
        assert!(gradient.iter().any(|g| *g != 0.), "{what}: tested for nothing");

        let mut into = vec![f32::NAN; self.currents.len()];
        let got = self.kernel().backward(&self.currents, self.neurons, *grads, &mut into);
        if let SpikeGradient::Each(grads) = grads
            && grads.len() == into.len()
        {
            let mut values = grads.to_vec();
            let in_place = SpikeGradient::InPlace;
            let sums = self.kernel().backward(&self.currents, self.neurons, in_place, &mut values);
            assert!(values == into && sums.grad == got.grad, "{what}: in place");
        }
        let itself: Sums = gradient.iter().map(|&g| (g, g)).collect();
        assert_sums(&format!("{what}: gradient"), &into, &itself, 1e-5);
        let mut sums = [vec![(0., 0.); self.channels()], vec![(0., 0.); self.channels()]];
        for (i, (g, y)) in gradient.iter().zip(&self.currents).enumerate() {
            let c = i % self.channels();
            for (sums, term) in sums.iter_mut().zip([*g, g * f64::from(y - self.affine.centre[c])]) {
                sums[c] = (sums[c].0 + term, sums[c].1 + term.abs());
            }
        }
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        assert_sums(&format!("{what}: sum of gradients"), &single(&got.grad), &sums[0], 1e-5);
        assert_sums(&format!("{what}: with currents"), &single(&got.grad_current), &sums[1], 1e-5);
        Ok(())
    }

    fn check_both(&self) -> Result<()> {
        let each = normal(4, "each", self.time_steps * self.neurons);
        self.check(&SpikeGradient::Each(&each))?;
        let weights = [normal(5, "weights", self.time_steps), normal(6, "weights", self.time_steps)];
        let given = normal(7, "sums", 2 * self.neurons);
        self.check(&SpikeGradient::Sums(&weights[..1], &given[..self.neurons]))?;
        self.check(&SpikeGradient::Sums(&weights, &given))
    }
}

#[test]
fn all_neurons_equal_the_reference() -> Result<()> {
    for lif in configs() {
        Case::new(lif, (3, 11), 6, 6).check_both()?;
        Case::new(lif, (3, 11), 1, 6).check_both()?; // constant
    }
    Ok(())
}

#[test]
fn any_number_of_neurons_equals_the_reference() -> Result<()> {
    // Chunks hold 512 neurons, or one position where that has more channels.
    for size in [(1, 1), (1, 1025), (33, 31), (130, 7), (512, 2), (700, 3)] {
        for (steps, time_steps) in [(1, 1), (2, 2), (5, 5), (1, 5)] {
            Case::new(LifConfig::default(), size, steps, time_steps).check_both()?;
        }
    }
    Ok(())
}

#[test]
fn few_spikes_differ_on_any_input() -> Result<()> {
    for lif in [LifConfig { tau: Some(3.3), ..Default::default() }, LifConfig::integrate_and_fire()] {
        let mut case = Case::new(lif, (10, 2000), 16, 16);
        case.affine.scale = normal(8, "scale", 10).iter().map(|s| 1. + 0.3 * s).collect();
        case.currents = normal(9, "currents", 16 * 20_000);
        let wanted: Vec<f64> = lif_reference(&case.normalised()?.1, &lif)?.flatten_all()?.to_vec1()?;
        let differ = case.spikes().iter().zip(&wanted).filter(|(s, w)| f64::from(**s) != **w).count();
        // Rounding (1e-7) against a density of potentials around the threshold below 1: a few in 320,000 at most.
        assert!(differ <= 3, "{lif:?}: {differ} spikes differ");
        let rate = wanted.iter().sum::<f64>() / wanted.len() as f64;
        assert!((0.02..0.7).contains(&rate), "{lif:?}: fires at {rate}");
    }
    Ok(())
}

#[test]
fn huge_infinite_and_no_currents() -> Result<()> {
    let values = [0.5, 2., -2., 1e25, -1e25, 8e37, -8e37, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let n = values.len() * values.len();
    for lif in configs() {
        let mut case = Case::new(lif, (1, n), 4, 4);
        case.affine = Affine::new(vec![1.], vec![0.]);
        let pairs = || values.iter().flat_map(|&a| values.map(|b| (a, b)));
        case.currents = pairs().map(|pair| pair.0).chain(pairs().map(|pair| pair.1)).collect();
        case.currents.extend(vec![1.5; 2 * n]);
        let xs = Var::from_slice(&case.currents, (4, n), &Device::Cpu)?;
        let wanted = lif_reference(&xs, &lif)?;
        let spikes: Vec<f32> = case.spikes().into_iter().map(f32::from).collect();
        assert_eq!(spikes, wanted.flatten_all()?.to_vec1::<f32>()?, "{lif:?}");
        let mut sums = vec![0f32; n];
        case.kernel().run(&case.currents, n, Out::Sums(&[vec![1.; 4]], &mut sums));
        assert_eq!(sums, wanted.sum(0)?.to_vec1::<f32>()?, "{lif:?}");
        let upstream = normal(4, "upstream", 4 * n);
        let loss = (wanted * Tensor::from_slice(&upstream, (4, n), &Device::Cpu)?)?.sum_all()?;
        let wanted: Vec<f32> = loss.backward()?.get(&xs).expect("a gradient").flatten_all()?.to_vec1()?;
        let mut got = vec![f32::NAN; 4 * n];
        case.kernel().backward(&case.currents, n, SpikeGradient::Each(&upstream), &mut got);
        for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            assert!((got - wanted).abs() <= 1e-5 * wanted.abs().max(1.), "{lif:?}, {i}: {got}, not {wanted}");
        }
    }
    Ok(())
}

#[test]
fn a_fixed_map_passes_gradients_through_currents_that_are_no_numbers() {
    let map = InputGradient::fixed(&Affine::new(vec![2.], vec![1.]));
    let mut grads = [3., 0., -1.];
    map.apply_in_place(&mut grads, &[f32::INFINITY, f32::NAN, 1e38]);
    assert_eq!(grads, [6., 0., -2.]);
}

#[test]
fn fires_at_the_threshold_exactly() {
    let mut case = Case::new(LifConfig::default(), (1, 2), 1, 1);
    case.affine = Affine::new(vec![1.], vec![0.]);
    case.currents = vec![2., 2f32.next_down()]; // H = X / 2
    assert_eq!(case.spikes(), [1, 0]);
}
