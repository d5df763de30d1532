//! Batch norm or a fixed map and LIF in one pass, kernel after kernel, as `norm_lif/cuda/run.rs` launches them.

use candle_core::{DType, Device, Result, Tensor};

use super::Cases;
use super::host::{self, bytes, tensor};
use super::lif::{bound, configs};
use super::norm::{EPS, launched, size_of_input_gradient};
use crate::LifConfig;
use crate::ops::Real;
use crate::ops::batch_norm::cuda::Planes;
use crate::ops::cuda::launch::Launch;
use crate::ops::lif::{Neuron, by_division};
use crate::ops::norm_lif::cuda::Currents;
use crate::ops::norm_lif::{Sequence, map_lif, norm_lif};
use crate::ops::testing::{assert_identical, assert_within, flat, random, run};

/// Time steps and `[N, C, ...]`: one of each, linear layers, channels of several parts.
fn shapes() -> Vec<(usize, Vec<usize>)> {
    vec![
        (1, vec![1, 3, 2]),
        (16, vec![1, 2, 3, 3]),
        (7, vec![2, 1]),
        (3, vec![7, 17]),
        (2, vec![300, 2]),
        (4, vec![2, 3, 7, 7]),
        (6, vec![2, 2, 13, 11]),
        (19, vec![3, 5, 1, 9]),
        (5, vec![90, 70]),
    ]
}

/// 1 for each neuron none of whose potentials lies within `reach` of the threshold, or of where its surrogate's derivative jumps, else
/// 0: `[N, C, ...]`. On the others' spikes and gradients rounding may decide.
pub(super) fn settled(currents: &Tensor, sequence: &Sequence, reach: f64) -> Result<Tensor> {
    let dims = &sequence.spikes(currents.dims())?[1..];
    let (cfg, neuron) = (&sequence.lif, Neuron::<f64>::new(&sequence.lif));
    let (xs, neurons) = (flat(currents)?, dims.iter().product::<usize>());
    let slope = |h: f64| cfg.surrogate.derivative_of(neuron.excess(h));
    let clear = |h: f64| {
        let [low, high] = [h - reach, h + reach];
        neuron.fire(low) == neuron.fire(high) && (slope(low) - slope(high)).abs() < 0.1
    };
    let settled = |n: usize| {
        let (mut v, mut all) = (neuron.v_reset, true);
        for t in 0..sequence.steps {
            let x = xs[if sequence.constant { n } else { t * neurons + n }];
            let h = by_division!(neuron, DIVIDES => neuron.charge::<DIVIDES>(v, x));
            all &= clear(h);
            v = neuron.reset(h, neuron.fire(h));
        }
        f64::from(u8::from(all))
    };
    let settled: Vec<f64> = (0..neurons).map(settled).collect();
    // Else a test would look at next to nothing.
    assert!(settled.iter().sum::<f64>() >= 0.9 * neurons as f64 - 1., "{sequence:?}");
    Tensor::from_vec(settled, dims, &Device::Cpu)?.to_dtype(currents.dtype())
}

/// A layer's currents, what scales and shifts them, and what becomes of the gradient of its spikes.
struct Layer {
    what: String,
    sequence: Sequence,
    /// Currents, weight, bias.
    inputs: [Tensor; 3],
}

/// What the forward pass knows of the map, as bytes.
struct Map {
    fixed: bool,
    eps: f64,
    moments: Vec<u8>,
    by: Vec<u8>,
}

impl Layer {
    fn new<F: Real>(i: usize, lif: LifConfig, constant: bool) -> Result<Self> {
        let (steps, neurons) = shapes().swap_remove(i);
        let mut dims = neurons;
        dims[0] *= if constant { 1 } else { steps };
        let c = dims[1];
        let xs = (random(&format!("xs {i}"), &dims, F::DTYPE)? + if i.is_multiple_of(2) { 30. } else { 0. })?;
        // So that most neurons fire at times.
        let weight = (random("weight", &[c], F::DTYPE)?.abs()? + 0.5)?;
        let bias = ((random("bias", &[c], F::DTYPE)? * 0.3)? + 0.6)?;
        let what = format!("{lif:?}, {steps} steps of {dims:?}, constant: {constant}");
        Ok(Self { what, sequence: Sequence { lif, steps, constant }, inputs: [xs, weight, bias] })
    }

    fn currents(&self) -> Result<Currents<'_>> {
        Currents::new("norm_lif", self.inputs[0].layout(), &self.sequence)
    }

    fn bytes<F: Real>(&self) -> [Vec<u8>; 3] {
        self.inputs.each_ref().map(bytes::<F>)
    }

    /// By the batch's statistics; none where nothing can be compiled.
    fn of_batch<F: Real>(&self) -> Result<Option<Map>> {
        let planes = Planes::new("norm", "xs", self.inputs[0].layout())?;
        let [xs, weight, bias] = self.bytes::<F>();
        let Some(mut left) = launched(planes.sum::<F>()?, vec![xs.clone()]) else { return Ok(None) };
        let mut left = launched(planes.moments::<F>()?, vec![xs, left.remove(1)]).unwrap();
        let moments = left.remove(2);
        let mut left = launched(planes.coefficients::<F>(EPS)?, vec![moments.clone(), weight, bias]).unwrap();
        Ok(Some(Map { fixed: false, eps: EPS, moments, by: left.remove(3) }))
    }

    /// By weight and bias alone.
    fn fixed<F: Real>(&self) -> Result<Map> {
        let planes = Planes::new("norm", "xs", self.inputs[0].layout())?;
        let ([_, weight, bias], c) = (self.bytes::<F>(), self.inputs[1].elem_count());
        let moments = vec![0; 2 * c * DType::F64.size_in_bytes()];
        let mut left = launched(planes.coefficients::<F>(1.)?, vec![moments.clone(), weight, bias]).unwrap();
        let by = left.remove(3);
        let [_, weight, bias] = &self.inputs;
        let wanted = Tensor::stack(&[&weight.zeros_like()?, weight, bias], 1)?;
        assert_identical("the map", &tensor::<F>(&by, &[c, 3])?, &wanted);
        Ok(Map { fixed: true, eps: 1., moments, by })
    }

    /// The mapped currents, by the kernel of batch norm.
    fn mapped<F: Real>(&self, map: &Map) -> Result<Tensor> {
        let planes = Planes::new("norm", "xs", self.inputs[0].layout())?;
        let [xs, ..] = self.bytes::<F>();
        let left = launched(planes.affine::<F>()?, vec![xs, map.by.clone()]).unwrap();
        tensor::<F>(&left[2], self.inputs[0].dims())
    }

    /// The backward launch and its operands.
    fn backward<F: Real>(&self, map: &Map, upstream: &Tensor) -> Result<(Launch, Vec<Vec<u8>>)> {
        let (currents, [xs, ..]) = (self.currents()?, self.bytes::<F>());
        let parts = vec![0xff; currents.planes.sums() * DType::F64.size_in_bytes()];
        let empty = Cases::<F>::empty(self.inputs[0].elem_count());
        let operands = vec![xs, map.by.clone(), bytes::<F>(upstream), empty, parts];
        Ok((currents.backward::<F>(map.fixed, upstream.layout())?, operands))
    }

    /// Adds what must equal the CPU's LIF behind the mapped currents, whatever the grid.
    fn add<F: Real>(&self, cases: &mut Cases<F>, map: &Map) -> Result<()> {
        let wanted = run(|x| self.sequence.run(&x[0]), &[self.mapped::<F>(map)?])?;
        let [xs, ..] = self.bytes::<F>();
        let operands = vec![xs, map.by.clone(), Cases::<F>::empty(wanted[0].elem_count())];
        cases.add(&self.what, self.currents()?.forward::<F>()?, operands, vec![(2, wanted[0].clone(), 0.)]);
        let upstream = random("upstream", wanted[0].dims(), F::DTYPE)?;
        let (launch, operands) = self.backward::<F>(map, &upstream)?;
        let mut grads = wanted[1].clone();
        if map.fixed {
            let by_channel = [vec![1, grads.dim(1)?], vec![1; grads.rank() - 2]].concat();
            grads = grads.broadcast_mul(&self.inputs[1].reshape(by_channel)?)?;
        }
        cases.add(&self.what, launch, operands, vec![(3, grads, bound(&self.sequence.lif, F::DTYPE))]);
        Ok(())
    }

    /// `[spikes, grad_xs, grad_weight, grad_bias]` of settled neurons, kernel after kernel.
    fn kernels<F: Real>(&self, map: &Map, settled: &Tensor) -> Result<Vec<Tensor>> {
        let (currents, [xs, weight, _], dims) = (self.currents()?, self.bytes::<F>(), self.inputs[0].dims());
        let (spikes, c) = (self.sequence.spikes(dims)?, self.inputs[1].elem_count());
        let left = launched(currents.forward::<F>()?, vec![xs.clone(), map.by.clone()]).unwrap();
        let fired = tensor::<F>(&left[2], &spikes)?.broadcast_mul(settled)?;

        let upstream = random("upstream", &spikes, F::DTYPE)?.broadcast_mul(settled)?;
        let (launch, operands) = self.backward::<F>(map, &upstream)?;
        let alone = Launch { grid: 1, ..launch.clone() };
        let mut left = host::run(&[(launch, operands.clone()), (alone, operands)]).unwrap();
        assert!(left[0][4] == left[1][4], "{}: the sums depend on the grid", self.what);
        let (parts, grads) = (left[0].remove(4), left[0].remove(3));
        let operands = vec![parts, map.moments.clone(), weight, Cases::<F>::empty(2 * c)];
        let mut left = launched(currents.planes.gradients::<F>(map.eps)?, operands).unwrap();
        let (by, of_parameters) = (left.remove(4), tensor::<F>(&left[3], &[2, c])?);
        let grad_xs = if map.fixed {
            grads
        } else {
            launched(currents.planes.input_gradient::<F>()?, vec![xs, grads, by]).unwrap().remove(3)
        };
        Ok(vec![fired, tensor::<F>(&grad_xs, dims)?, of_parameters.get(1)?, of_parameters.get(0)?])
    }

    /// The size of the terms of the currents' gradients, which pass through neurons and norm.
    fn size_of_input_gradient<F: Real>(&self, map: &Map, settled: &Tensor) -> Result<Tensor> {
        let mapped = [self.mapped::<F>(map)?];
        let through = run(|x| self.sequence.run(&x[0])?.broadcast_mul(settled), &mapped)?;
        size_of_input_gradient([&self.inputs[0], &self.inputs[1]], &through[1])
    }

    /// Holds the kernels to the CPU's ops.
    fn check<F: Real>(&self, map: &Map, reach: f64, bound: f64) -> Result<()> {
        let settled = settled(&self.mapped::<F>(map)?, &self.sequence, reach)?;
        let cpu = |x: &[Tensor]| {
            let by = [&x[1], &x[2]];
            let spikes = match map.fixed {
                true => map_lif(&x[0], by, &self.sequence)?,
                false => norm_lif(&x[0], by, EPS, &self.sequence, None)?.0.ys,
            };
            spikes.broadcast_mul(&settled)
        };
        let (wanted, got) = (run(cpu, &self.inputs)?, self.kernels::<F>(map, &settled)?);
        let what = format!("{}, fixed: {}", self.what, map.fixed);
        assert_identical(&what, &got[0], &wanted[0]);
        assert!(wanted[0].elem_count() < 100 || flat(&wanted[0])?.contains(&1.), "{what}: nothing fires");
        let size =
            if map.fixed { wanted[1].clone() } else { self.size_of_input_gradient::<F>(map, &settled)? };
        assert_within(&format!("{what}: grad_xs"), &got[1], &wanted[1], &size, bound);
        // Sums over a channel of terms of both signs are measured by the size of the terms.
        let size = random("upstream", wanted[0].dims(), F::DTYPE)?.sqr()?.sum_all()?.sqrt()?;
        for (i, name) in [(2, "grad_weight"), (3, "grad_bias")] {
            let size = size.broadcast_as(got[i].shape())?;
            assert_within(&format!("{what}: {name}"), &got[i], &wanted[i], &size, bound);
        }
        Ok(())
    }
}

fn check<F: Real>(reach: f64, bound: f64) -> Result<()> {
    let mut cases = Cases::<F>::new();
    for i in 0..shapes().len() {
        let configs = configs();
        // All neurons on one shape, one on each other.
        let chosen = if i == 5 { &configs[..] } else { &configs[i % configs.len()..][..1] };
        for (k, &lif) in chosen.iter().enumerate() {
            let layer = Layer::new::<F>(i, lif, (i + k) % 3 == 1)?;
            let Some(map) = layer.of_batch::<F>()? else { return Ok(()) };
            for map in [map, layer.fixed::<F>()?] {
                layer.add::<F>(&mut cases, &map)?;
                layer.check::<F>(&map, reach, bound)?;
            }
        }
    }
    cases.check();
    Ok(())
}

#[test]
fn single_precision_is_the_cpus() -> Result<()> {
    check::<f32>(1e-4, 1e-5)
}

#[test]
fn double_precision_is_the_cpus() -> Result<()> {
    check::<f64>(1e-9, 1e-11)
}
