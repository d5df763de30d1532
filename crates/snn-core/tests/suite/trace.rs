//! Spike statistics and read-outs on their own: shapes, views, odd inputs.

use candle_core::{DType, Device, Tensor};
use snn_core::{
    FiringRates, LifConfig, Readout, Seed, batch_norm, direct_encode, firing_rate, lerp, lif_constant,
    lif_step, nearest, psp, psp_distance, rate, straight_through,
};

use crate::common::{Result, assert_close, flat};

const READOUTS: [Readout; 3] =
    [Readout::Mean, Readout::Psp { tau: 3. }, Readout::ExponentialSum { decay: 0.5 }];

fn spikes(shape: &[usize]) -> Result<Tensor> {
    let xs = Seed(2).uniform("spikes", shape, (0., 1.), DType::F32, &Device::Cpu)?;
    Ok(xs.lt(0.3f32)?.to_dtype(DType::F32)?)
}

#[test]
fn weights_are_those_of_the_formulas() -> Result {
    assert_eq!(Readout::Mean.weights(4)?, [0.25; 4]);
    assert_eq!(Readout::Psp { tau: 2. }.weights(3)?, [0.125, 0.25, 0.5]);
    assert_eq!(Readout::Psp { tau: 1. }.weights(3)?, [0., 0., 1.]);
    assert_eq!(Readout::ExponentialSum { decay: 0.5 }.weights(3)?, [0.25, 0.5, 1.]);
    Ok(())
}

#[test]
fn time_steps_that_nothing_can_hold_are_errors() -> Result {
    let images = spikes(&[2, 3])?;
    for time_steps in [usize::MAX, usize::MAX / 6 + 1, 1 << 61, 1 << 40, 1 << 32, 1 << 31] {
        let named = format!("`time_steps` = {time_steps}");
        let says = |error: candle_core::Error| assert!(error.to_string().contains(&named), "{error}");
        says(direct_encode(&images, time_steps).unwrap_err());
        says(lif_constant(&images, time_steps, &LifConfig::default()).unwrap_err());
        READOUTS.into_iter().for_each(|readout| says(readout.weights(time_steps).unwrap_err()));
    }
    // A view that could be made, but never written out.
    let large = images.narrow(1, 0, 1)?.broadcast_as((2, 1 << 40))?;
    assert!(direct_encode(&large, 1 << 20).unwrap_err().to_string().contains("memory"));
    let long = spikes(&[1, 2])?.broadcast_as((1 << 40, 2))?;
    READOUTS.into_iter().for_each(|readout| assert!(readout.apply(&long).is_err()));
    assert!(psp(&long, 2.).is_err());
    assert_eq!(direct_encode(&images, 0)?.dims(), [0, 2, 3]);
    Ok(())
}

#[test]
fn read_outs_that_make_no_sense_are_errors_by_field() -> Result {
    let xs = spikes(&[4, 3])?;
    for (readout, wanted) in [
        (Readout::Psp { tau: 0.5 }, "`readout.psp.tau` = 0.5"),
        (Readout::Psp { tau: f64::NAN }, "`readout.psp.tau` = NaN"),
        (Readout::ExponentialSum { decay: 1.5 }, "`readout.exponential_sum.decay` = 1.5"),
    ] {
        for error in [readout.apply(&xs).unwrap_err(), readout.weights(4).unwrap_err()] {
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
    Ok(())
}

#[test]
fn element_types_that_differ_are_named() -> Result {
    let (single, double) = (spikes(&[4, 3])?, spikes(&[4, 3])?.to_dtype(DType::F64)?);
    let (vectors, codes) = (single.reshape((1, 3, 2, 2))?, double.narrow(0, 0, 2)?);
    let (weight, bias) = (double.get(0)?, single.get(0)?);
    let lif = LifConfig::default();
    for (error, words) in [
        (lif_step(&single, &double, &lif).unwrap_err(), ["x is F32", "v is F64"]),
        (nearest(&vectors, &codes).unwrap_err(), ["z is F32", "codes is F64"]),
        (batch_norm(&single, &weight, &bias, 1e-5).unwrap_err(), ["xs is F32", "weight is F64"]),
        (psp_distance(&single, &double, 2.).unwrap_err(), ["a is F32", "b is F64"]),
        (straight_through(&single, &double).unwrap_err(), ["values is F32", "carrier is F64"]),
        (
            lerp(&double.narrow(0, 0, 2)?, &single.get(0)?.narrow(0, 0, 1)?).unwrap_err(),
            ["pair is F64", "k is F32"],
        ),
    ] {
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    Ok(())
}

#[test]
fn views_equal_their_copies() -> Result {
    let stored = spikes(&[3, 8, 2])?;
    let (view, copy) = (stored.transpose(0, 1)?, stored.transpose(0, 1)?.force_contiguous()?);
    for readout in READOUTS {
        assert_close("read-out", &readout.apply(&view)?, &readout.apply(&copy)?, 0.);
    }
    assert_close("psp", &psp(&view, 2.)?, &psp(&copy, 2.)?, 0.);
    let constant = direct_encode(&stored, 5)?;
    assert_close("rate of a constant", &rate(&constant)?, &stored, 1e-6);
    Ok(())
}

#[test]
fn odd_inputs_are_errors_or_empty_but_no_panics() -> Result {
    let scalar = Tensor::new(1f32, &Device::Cpu)?;
    for readout in READOUTS {
        for bad in [scalar.clone(), spikes(&[4])?, spikes(&[0, 3])?] {
            assert!(readout.apply(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(readout.apply(&spikes(&[4, 0, 2])?)?.dims(), [0, 2]);
        assert!(readout.apply(&Tensor::zeros((4, 2), DType::U8, &Device::Cpu)?).is_err());
    }
    assert!(psp(&scalar, 2.).is_err());
    assert_eq!(psp(&spikes(&[4, 0, 2])?, 2.)?.dims(), [4, 0, 2]);
    assert!(psp(&spikes(&[4])?, 2.).is_err());
    for tau in [0.5, f64::NAN, f64::INFINITY] {
        let error = psp(&spikes(&[4, 3])?, tau).unwrap_err().to_string();
        assert!(error.contains("tau") && error.contains(&tau.to_string()), "{error}");
    }
    Ok(())
}

#[test]
fn firing_rates_add_up_over_batches() -> Result {
    let (large, small) = (spikes(&[16, 8, 5])?, spikes(&[16, 1, 5])?);
    let mut rates = FiringRates::default();
    rates.record("a", &large)?;
    rates.record("b", &small)?;
    rates.record("a", &small)?;
    let count = |xs: &Tensor| Ok::<_, Box<dyn std::error::Error>>(flat(xs)?.iter().sum::<f64>());
    let wanted = (count(&large)? + count(&small)?) / 720.;
    assert!((rates.rates()["a"] - wanted).abs() < 1e-6);
    assert!((rates.rates()["b"] - firing_rate(&small)?).abs() < 1e-12);
    // An empty batch changes nothing.
    rates.record("a", &spikes(&[16, 0, 5])?)?;
    assert!((rates.rates()["a"] - wanted).abs() < 1e-6, "{}", rates.rates()["a"]);
    Ok(())
}
