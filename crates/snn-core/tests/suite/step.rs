//! A time step or a chunk at a time: the whole sequence, bit for bit where sums are exact.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use snn_core::{
    ConvConfig, Drive, LayerConfig, LifConfig, NeuronModel, Norm, ParamStore, Pool, Readout, Reset, Seed,
    SewFunction, SpikingLayer, SpikingNetwork, SpikingStack, SpikingState,
};

use crate::common::{Result, assert_close, flat};

const TIME_STEPS: usize = 8;

/// Weights in eighths, norms that do nothing but shift: every sum is exact in f32, in any order.
fn dyadic(params: &ParamStore) -> Result {
    for (name, var) in params.vars() {
        let value = match name.rsplit('.').next() {
            // eps = 1e-5 makes it 1.
            Some("running_var") => (var.ones_like()? * 0.99999)?,
            Some("bias") if name.contains("bn") => (var.ones_like()? * 0.75)?,
            Some("weight") if name.contains("bn") => continue,
            _ => ((var.as_tensor() * 24.)?.round()? / 8.)?,
        };
        var.set(&value)?;
    }
    Ok(())
}

fn spikes(dims: &[usize], dtype: DType) -> Result<Tensor> {
    let uniform = Seed(5).uniform("spikes", dims, (0., 1.), DType::F32, &Device::Cpu)?;
    Ok(uniform.lt(0.3)?.to_dtype(dtype)?)
}

/// Chunks of 1, 2, ... time steps, the last as long as the rest.
fn in_chunks(xs: &Tensor, mut step: impl FnMut(&Tensor) -> candle_core::Result<Tensor>) -> Result<Tensor> {
    let (mut from, mut made) = (0, Vec::new());
    for length in 1.. {
        let length = length.min(xs.dim(0)? - from);
        if length == 0 {
            break;
        }
        made.push(step(&xs.narrow(0, from, length)?)?);
        from += length;
    }
    Ok(Tensor::cat(&made, 0)?)
}

/// Step by step and in chunks, it is the whole.
fn check(
    what: &str,
    xs: &Tensor,
    whole: &Tensor,
    step: impl Fn(&Tensor, &mut SpikingState) -> candle_core::Result<Tensor>,
    chunk: impl Fn(&Tensor, &mut SpikingState) -> candle_core::Result<Tensor>,
) -> Result {
    let fires = flat(whole)?.iter().filter(|s| **s > 0.).count() as f64 / whole.elem_count() as f64;
    assert!((0.02..0.9).contains(&fires), "{what}: fires at {fires}");
    let mut state = SpikingState::default();
    let steps =
        (0..xs.dim(0)?).map(|t| step(&xs.get(t)?, &mut state)).collect::<candle_core::Result<Vec<_>>>()?;
    assert_close(&format!("{what}: steps"), &Tensor::stack(&steps, 0)?, whole, 0.);
    let mut state = SpikingState::default();
    let chunks = in_chunks(xs, |xs| chunk(xs, &mut state))?;
    assert_close(&format!("{what}: chunks"), &chunks, whole, 0.);
    Ok(())
}

fn neurons() -> [LayerConfig; 6] {
    let base = LifConfig::default();
    [
        base.into(),
        LifConfig { v_reset: Reset::Soft, decay_input: false, ..base }.into(),
        LifConfig { v_reset: Reset::Hard(-0.25), v_threshold: 0.75, tau: Some(4.), ..base }.into(),
        LifConfig::integrate_and_fire().into(),
        LayerConfig::from(base).with_learned_tau(),
        LayerConfig::from(LifConfig { strict_threshold: true, v_threshold: 0.125, ..base })
            .with_norm(Norm::None),
    ]
}

/// Charges, and fires when it is full: a neuron of a user's own, with a state that a LIF neuron has not.
#[derive(Debug)]
struct Counter;

impl NeuronModel for Counter {
    fn step(&self, x: &Tensor, state: &[Tensor]) -> candle_core::Result<(Tensor, Vec<Tensor>)> {
        let (charge, fired) = match state {
            [charge, fired] => (charge.clone(), fired.clone()),
            _ => (x.zeros_like()?, x.zeros_like()?),
        };
        let charge = (charge + x)?;
        let spikes = charge.ge(1.)?.to_dtype(x.dtype())?;
        Ok((spikes.clone(), vec![(charge - &spikes)?, (fired + spikes)?]))
    }
}

#[test]
fn a_neuron_of_ones_own_goes_step_by_step() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let params = ParamStore::new(Seed(1), dtype, &Device::Cpu);
        let (vb, lif) = (params.builder(), LifConfig::default());
        let layers = vec![
            SpikingLayer::linear(7, 9, lif, vb.pp(0))?,
            SpikingLayer::linear(9, 5, lif, vb.pp(1))?.with_neuron(Arc::new(Counter)),
        ];
        dyadic(&params)?;
        let (stack, xs) = (SpikingStack::new(layers), spikes(&[TIME_STEPS, 2, 7], dtype)?);
        let whole = stack.forward(Drive::Spikes(&xs), false)?;
        check("counter", &xs, &whole, |x, s| stack.step(x, s), |xs, s| stack.step_chunk(xs, s))?;
    }
    Ok(())
}

#[test]
fn layers_and_stacks_go_step_by_step() -> Result {
    // f32 runs the engine where the whole sequence goes, f64 its twin.
    for dtype in [DType::F32, DType::F64] {
        for lif in neurons() {
            let params = ParamStore::new(Seed(1), dtype, &Device::Cpu);
            let (vb, halve) = (params.builder(), ConvConfig::new(3, 2, 1));
            let layers = vec![
                SpikingLayer::conv(3, 6, halve, lif, vb.pp(0))?,
                SpikingLayer::conv_transpose(6, 4, halve.with_output_padding(1), lif, vb.pp(1))?,
            ];
            let linear = SpikingLayer::linear(7, 9, lif, vb.pp("linear"))?;
            dyadic(&params)?;
            let stack = SpikingStack::new(layers);
            let xs = spikes(&[TIME_STEPS, 2, 3, 6, 5], dtype)?;
            let what = format!("{dtype:?}, {lif:?}");
            let whole = stack.forward(Drive::Spikes(&xs), false)?;
            check(&what, &xs, &whole, |x, s| stack.step(x, s), |xs, s| stack.step_chunk(xs, s))?;
            let xs = spikes(&[TIME_STEPS, 2, 7], dtype)?;
            let whole = linear.forward_t(&xs, false)?;
            check(&what, &xs, &whole, |x, s| linear.step(x, s), |xs, s| linear.step_chunk(xs, s))?;
        }
    }
    Ok(())
}

fn network(readout: Readout, params: &ParamStore) -> Result<SpikingNetwork> {
    let same = ConvConfig::new(3, 1, 1);
    let network = SpikingNetwork::builder(&[2, 6, 6], LifConfig::default(), params.builder())
        .conv(4, same)
        .residual(SewFunction::Add, |block| block.conv(4, same))
        .pool(Pool::Average { kernel: 2 })
        .flatten()
        .linear(16)
        .readout(3, readout)
        .build()?;
    dyadic(params)?;
    Ok(network)
}

#[test]
fn networks_go_step_by_step() -> Result {
    for dtype in [DType::F32, DType::F64] {
        for readout in [Readout::Mean, Readout::Psp { tau: 2. }, Readout::ExponentialSum { decay: 0.5 }] {
            let params = ParamStore::new(Seed(1), dtype, &Device::Cpu);
            let network = network(readout, &params)?;
            let xs = spikes(&[TIME_STEPS, 2, 2, 6, 6], dtype)?;
            let whole = network.forward(Drive::Spikes(&xs), false)?;
            let what = format!("{dtype:?}, {readout:?}");
            check(&what, &xs, &whole, |x, s| network.step(x, s), |xs, s| network.step_chunk(xs, s))?;
            // The read-out so far is that of the sequence so far.
            let (mut state, mut seen) = (SpikingState::default(), 0);
            for length in [1, 3, 4] {
                network.step_chunk(&xs.narrow(0, seen, length)?, &mut state)?;
                let logits = network.readout_so_far(&state)?;
                seen += length;
                let so_far = xs.narrow(0, 0, seen)?;
                let wanted = network.readout(Drive::Spikes(&so_far), false)?;
                assert_close(&format!("{what}: {seen} steps"), &logits, &wanted, 1e-6);
            }
        }
    }
    Ok(())
}

#[test]
fn a_state_is_a_value() -> Result {
    let params = ParamStore::new(Seed(1), DType::F32, &Device::Cpu);
    let network = network(Readout::Mean, &params)?;
    let xs = spikes(&[TIME_STEPS, 2, 2, 6, 6], DType::F32)?;
    let (first, rest) = (xs.narrow(0, 0, 3)?, xs.narrow(0, 3, TIME_STEPS - 3)?);
    let mut state = SpikingState::default();
    assert!(network.readout_so_far(&state).is_err(), "nothing seen");
    network.step_chunk(&first, &mut state)?;
    let mut other = state.clone();
    network.step_chunk(&rest, &mut state)?;
    let wanted = network.readout_so_far(&state)?;
    // What is refused leaves no trace.
    let larger = spikes(&[1, 3, 2, 6, 6], DType::F32)?;
    let refused = network.step_chunk(&larger, &mut other).err().ok_or("another batch")?.to_string();
    assert!(
        refused.contains("0.0") && refused.contains("[2, 4, 6, 6]") && refused.contains("[3, 4, 6, 6]"),
        "{refused}"
    );
    assert!(network.step_chunk(&xs.narrow(0, 0, 0)?, &mut other).is_err(), "no time steps");
    assert!(network.step_chunk(&xs.narrow(4, 0, 5)?, &mut other).is_err(), "another map");
    assert!(network.step_chunk(&xs.to_dtype(DType::F64)?, &mut other).is_err(), "another type");
    let layer = SpikingLayer::linear(2, 3, LifConfig::default(), params.builder().pp("other"))?;
    let strange = layer.step(&Tensor::ones((2, 2), DType::F32, &Device::Cpu)?, &mut other);
    assert!(strange.is_err_and(|e| e.to_string().contains("a state of 3 spiking layers, given to 1")));
    network.step_chunk(&rest, &mut other)?;
    assert_close("the same from there", &network.readout_so_far(&other)?, &wanted, 0.);
    // No graph grows with time.
    assert!(!wanted.track_op() && !network.step_chunk(&rest, &mut other)?.track_op());
    Ok(())
}
