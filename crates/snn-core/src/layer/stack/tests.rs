//! Chains against their twin, layer by layer: outputs, gradients, running statistics.

mod errors;
mod fused;
mod graph;
mod inputs;
mod lookup;
mod model;
mod prepared;
mod random;
mod refusals;
mod shards;
mod side_by_side;
mod threshold;
mod twin;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};
use rand::Rng;

use super::*;
use crate::layer::run::{currents, make_by_chain, make_by_reference, specs};
use crate::ops::chain;
use crate::ops::testing::{assert_identical, assert_relative, flat};
use crate::time::{merge_time, split_time};
use crate::{ConvConfig, LayerConfig, LifConfig, Norm, ParamStore, Reset, Seed, firing_rate};

/// Gradients in f32, through all layers.
const GRADIENT_BOUND: f64 = 1e-4;
const STATISTICS_BOUND: f64 = 1e-5;
/// Potentials that come closer to the threshold than this may fire or not, by rounding alone.
const MARGIN: f64 = 1e-5;

#[derive(Clone, Copy, Debug)]
enum Synapse {
    Conv(ConvConfig),
    Transposed(ConvConfig),
    Linear,
}
use Synapse::{Conv, Linear, Transposed};

/// What the first layer gets.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// Zeros and ones, so many of them ones.
    Binary(f64),
    Normal,
    /// Item `n` of the batch is `self.0[n % self.0.len()]`.
    Items(&'static [Values]),
}

/// A stack, its input, and how it is run.
#[derive(Clone, Debug)]
struct Case {
    /// Synapse and target channels.
    layers: Vec<(Synapse, usize)>,
    /// Of every layer that `mixture` names none for.
    lif: LifConfig,
    mixture: Vec<LayerConfig>,
    /// `[C, H, W]` or `[C]`.
    map: Vec<usize>,
    batch: usize,
    time_steps: usize,
    values: Values,
    constant: bool,
    finish: Finish<'static>,
    train: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            layers: vec![(Conv(ConvConfig::new(3, 1, 1)), 4)],
            lif: LifConfig::default(),
            mixture: Vec::new(),
            map: vec![3, 5, 6],
            batch: 2,
            time_steps: 4,
            values: Values::Binary(0.2),
            constant: false,
            finish: Finish::Spikes,
            train: true,
        }
    }
}

/// A stack with its parameters.
struct Model {
    store: ParamStore,
    layers: Vec<SpikingLayer>,
}

impl Model {
    /// In f32, with norms that are not the initial ones, so that they matter and neurons fire.
    fn new(case: &Case, seed: u64) -> Result<Self> {
        let store = ParamStore::new(Seed(seed), DType::F32, &Device::Cpu);
        let model = Self::build(case, store)?;
        for (name, var) in model.store.vars() {
            let config = case.config(name.split('.').next().and_then(|i| i.parse().ok()).unwrap_or(0));
            let (centre, spread) = match name.rsplit('.').next() {
                // Without a norm, only the bias sees to it that neurons fire.
                Some("bias") if config.norm == Norm::None => (config.neuron.v_threshold, 0.4),
                Some("running_mean") => (0., 0.1),
                Some("running_var") => (0.08, 0.01),
                Some("w") => (0.4, 0.5),
                Some("weight") if name.contains("bn") => (1.2, 0.2),
                Some("bias") if name.contains("bn") => (0.8, 0.2),
                _ => continue,
            };
            var.set(&Seed(seed).normal(&name, var.shape(), (centre, spread), DType::F32, &Device::Cpu)?)?;
        }
        Ok(model)
    }

    fn build(case: &Case, store: ParamStore) -> Result<Self> {
        let (mut from, mut layers) = (case.map[0], Vec::new());
        // What is refused may have no map, or one that no layer fits.
        let flattens =
            case.map.len() == 3 && case.layers.iter().any(|(synapse, _)| matches!(synapse, Linear));
        let mut positions = vec![1; case.layers.len()];
        if flattens {
            positions[0] = case.map[1..].iter().product();
            positions[1..].copy_from_slice(&random::positions(case)[..case.layers.len() - 1]);
        }
        for (i, &(synapse, to)) in case.layers.iter().enumerate() {
            let (vb, config) = (store.builder().pp(i), case.config(i));
            layers.push(match synapse {
                Conv(cfg) => SpikingLayer::conv(from, to, cfg, config, vb)?,
                Transposed(cfg) => SpikingLayer::conv_transpose(from, to, cfg, config, vb)?,
                Linear => SpikingLayer::linear(from * positions[i], to, config, vb)?,
            });
            from = to;
        }
        Ok(Self { store, layers })
    }

    /// A copy with statistics of its own.
    fn copy(&self, case: &Case, dtype: DType) -> Result<Self> {
        let copy = Self::build(case, ParamStore::new(Seed(0), dtype, &Device::Cpu))?;
        for ((_, to), (_, from)) in copy.store.vars().iter().zip(self.store.vars()) {
            to.set(&from.to_dtype(dtype)?)?;
        }
        Ok(copy)
    }
}

impl Case {
    fn config(&self, layer: usize) -> LayerConfig {
        self.mixture.get(layer).copied().unwrap_or_else(|| self.lif.into())
    }

    fn drive<'a>(&self, xs: &'a Tensor) -> Drive<'a> {
        if self.constant { Drive::Constant(xs, self.time_steps) } else { Drive::Spikes(xs) }
    }

    fn input(&self, seed: u64) -> Result<Tensor> {
        let (mut rng, size) = (Seed(seed).rng("input"), self.map.iter().product::<usize>());
        let steps = if self.constant { 1 } else { self.time_steps };
        let normal =
            Seed(seed).normal("input", steps * self.batch * size, (0., 1.), DType::F32, &Device::Cpu)?;
        let mut values: Vec<f32> = normal.to_vec1()?;
        for (i, item) in values.chunks_exact_mut(size).enumerate() {
            let kind = match self.values {
                Values::Items(all) => all[i % self.batch % all.len()],
                one => one,
            };
            if let Values::Binary(density) = kind {
                item.iter_mut().for_each(|x| *x = f32::from(u8::from(rng.random::<f64>() < density)));
            }
        }
        let time = if self.constant { None } else { Some(self.time_steps) };
        let shape: Vec<usize> = time.into_iter().chain([self.batch]).chain(self.map.clone()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// A model and an input whose f64 twin keeps its potentials clear of the threshold, so that no rounding decides
    /// about a spike.
    fn draw(&self) -> Result<(Model, Tensor)> {
        for seed in 0..100 {
            let (model, xs) = (Model::new(self, seed)?, self.input(seed)?);
            if self.margin(&model, &xs)? > MARGIN {
                return Ok((model, xs));
            }
        }
        panic!("no seed of a hundred keeps the potentials clear of the threshold: {self:?}");
    }

    /// The least distance of any potential to the threshold.
    fn margin(&self, model: &Model, xs: &Tensor) -> Result<f64> {
        let (model, xs) = (model.copy(self, DType::F64)?, xs.to_dtype(DType::F64)?);
        let (mut margin, mut spikes) = (f64::INFINITY, None);
        for (i, layer) in model.layers.iter().enumerate() {
            let currents = match spikes.as_ref().map_or(self.drive(&xs), Drive::Spikes) {
                Drive::Spikes(xs) => {
                    split_time(&currents(layer, &merge_time(xs)?, self.train, 1)?.0, self.time_steps)?
                }
                Drive::Constant(x, time_steps) => {
                    crate::direct_encode(&currents(layer, x, self.train, time_steps)?.0, time_steps)?
                }
            };
            let rate = layer.neurons.rate()?.map(|rate| rate.squeeze(0)?.to_scalar::<f64>()).transpose()?;
            let mut values = flat(&currents)?;
            let neurons = values.len() / self.time_steps;
            for n in 0..neurons {
                let cfg = self.config(i).neuron;
                let tau = rate.map(f64::recip).or(cfg.tau);
                let mut v = cfg.v_reset.potential();
                for x in values.iter_mut().skip(n).step_by(neurons) {
                    let leaked = v - cfg.v_reset.potential();
                    let h = match tau {
                        None => v + *x,
                        Some(tau) if cfg.decay_input => v + (*x - leaked) / tau,
                        Some(tau) => v - leaked / tau + *x,
                    };
                    margin = margin.min((h - cfg.v_threshold).abs());
                    let fires = h >= cfg.v_threshold;
                    v = match cfg.v_reset {
                        Reset::Hard(v_reset) => {
                            if fires {
                                v_reset
                            } else {
                                h
                            }
                        }
                        Reset::Soft => {
                            if fires {
                                h - cfg.v_threshold
                            } else {
                                h
                            }
                        }
                    };
                    *x = f64::from(u8::from(fires));
                }
            }
            spikes = Some(Tensor::from_vec(values, currents.shape(), &Device::Cpu)?);
        }
        Ok(margin)
    }
}

type Run = fn(&[SpikingLayer], Drive<'_>, Finish<'_>, bool) -> Result<Tensor>;

fn run_chain(layers: &[SpikingLayer], drive: Drive<'_>, finish: Finish<'_>, train: bool) -> Result<Tensor> {
    settle(layers, make_by_chain(layers, drive, finish, train)?)
}

fn run_reference(
    layers: &[SpikingLayer],
    drive: Drive<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<Tensor> {
    settle(layers, make_by_reference(layers, drive, finish, train)?)
}

/// What a run leaves behind, by name: `output`, `input` and the parameters (their gradients), running statistics.
type Outcome = BTreeMap<String, Tensor>;

/// The output, the gradients of `sum(output * weights)`, `weights` random, and the statistics afterwards.
fn outcome(case: &Case, model: &Model, xs: &Tensor, run: Run) -> Result<Outcome> {
    let xs = Var::from_tensor(xs)?;
    let output = run(&model.layers, case.drive(&xs), case.finish, case.train)?;
    let upstream = Seed(9)
        .normal("upstream", output.shape(), (0., 1.), DType::F32, &Device::Cpu)?
        .to_dtype(output.dtype())?;
    let grads = (&output * upstream)?.sum_all()?.backward()?;
    let mut all = model.store.gradients(&grads)?;
    all.insert("input".into(), grads.get(&xs).cloned().map_or_else(|| xs.zeros_like(), Ok)?);
    all.insert("output".into(), output.detach());
    for (name, var) in model.store.vars() {
        if name.contains("running") {
            all.insert(name, var.as_tensor().copy()?);
        }
    }
    Ok(all)
}

/// The outcome of the chain; asserts that it leaves no doubt about which code ran.
fn chain_outcome(case: &Case, model: &Model, xs: &Tensor) -> Result<Outcome> {
    let model = model.copy(case, DType::F32)?;
    assert!(chain::supports(xs));
    outcome(case, &model, xs, run_chain)
}

fn twin_outcome(case: &Case, model: &Model, xs: &Tensor, dtype: DType) -> Result<Outcome> {
    outcome(case, &model.copy(case, dtype)?, &xs.to_dtype(dtype)?, run_reference)
}

/// Asserts that two outcomes of the same run differ by rounding alone.
#[track_caller]
fn assert_outcome(what: &str, got: &Outcome, wanted: &Outcome, finish: Finish<'_>) {
    assert!(got.keys().eq(wanted.keys()), "{what}: {:?} and {:?}", got.keys(), wanted.keys());
    for (name, wanted) in wanted {
        let (what, got) = (format!("{what}: {name}"), &got[name]);
        match name.as_str() {
            "output" if finish == Finish::Spikes => assert_identical(&what, got, wanted),
            "output" => assert_relative(&what, got, wanted, 1e-6),
            name if name.contains("running") => assert_relative(&what, got, wanted, STATISTICS_BOUND),
            _ => assert_relative(&what, got, wanted, GRADIENT_BOUND),
        }
    }
}

/// Asserts that the chain equals its twin in f32 and in f64; returns the chain's outcome.
#[track_caller]
fn check(what: &str, case: &Case) -> Result<Outcome> {
    let (model, xs) = case.draw()?;
    let got = chain_outcome(case, &model, &xs)?;
    assert_outcome(&format!("{what}, f64"), &got, &twin_outcome(case, &model, &xs, DType::F64)?, case.finish);
    assert_outcome(&format!("{what}, f32"), &got, &twin_outcome(case, &model, &xs, DType::F32)?, case.finish);
    Ok(got)
}
