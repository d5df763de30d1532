//! A spiking network that sees its input as it comes: one time step in, its events out, nothing kept but its state.
//!
//! A dot runs along a row of 24 sensors and back, in front of an untrained network of two spiking layers. Each line is a time
//! step: the sensors that see it, the output neurons that fire, and the answer that leads so far. Needs no data and takes a
//! moment: `cargo run --release --example streaming`

use candle_core::{D, DType, Device, Tensor};
use spiking_diffusion::cli;
use spiking_diffusion::snn_core::{
    ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingNetwork, SpikingState,
};

const SENSORS: usize = 24;
const TIME_STEPS: usize = 2 * SENSORS - 2;

/// What the sensors see at a time step, `[1, 1, 1, SENSORS]`.
fn sensors(t: usize) -> candle_core::Result<Tensor> {
    let place = if t < SENSORS { t } else { TIME_STEPS - t };
    let seen: Vec<f32> = (0..SENSORS).map(|i| f32::from(u8::from(i.abs_diff(place) <= 1))).collect();
    Tensor::from_vec(seen, (1, 1, 1, SENSORS), &Device::Cpu)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu); // of a trained network: restored from its checkpoint
    let lif = LifConfig { v_threshold: 0.15, ..LifConfig::default() };
    let network = SpikingNetwork::builder(&[1, 1, SENSORS], lif, params.builder())
        .conv(4, ConvConfig::new(3, 1, 1))
        .flatten()
        .linear(12)
        .readout(3, Readout::Psp { tau: 8. })
        .build()?;

    let (mut state, mut fired) = (SpikingState::default(), Vec::new());
    for t in 0..TIME_STEPS {
        let x = sensors(t)?;
        let spikes = network.step(&x, &mut state)?;
        let leads = network.readout_so_far(&state)?.argmax(D::Minus1)?.to_vec1::<u32>()?[0];
        cli::print(&format!("{t:>3} {} fire {} answer {leads}", picture(&x)?, picture(&spikes)?))?;
        fired.push(spikes);
    }

    // Had it been given all at once, it would have said the same.
    let all = Tensor::stack(&(0..TIME_STEPS).map(sensors).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    let (spikes, logits) =
        (network.forward(Drive::Spikes(&all), false)?, network.readout(Drive::Spikes(&all), false)?);
    let differ = (&spikes - Tensor::stack(&fired, 0)?)?.abs()?.sum_all()?.to_scalar::<f32>()?;
    let apart = (logits - network.readout_so_far(&state)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
    if differ > 0. || apart > 1e-5 {
        return Err(
            format!("step by step: {differ} spikes and {apart} of a logit from the whole sequence").into()
        );
    }
    cli::print("check: step by step it says what it says of the whole sequence: ok")?;
    Ok(())
}

/// `#` for each event.
fn picture(events: &Tensor) -> candle_core::Result<String> {
    let events = events.flatten_all()?.to_vec1::<f32>()?;
    Ok(events.iter().map(|s| if *s > 0. { '#' } else { '.' }).collect())
}
