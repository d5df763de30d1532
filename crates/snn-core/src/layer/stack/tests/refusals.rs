//! What is refused by name: where it is made, or before any layer has run.

use super::errors::{SAME, model, ones};
use super::*;
use crate::{ReadoutLayer, Surrogate};

/// What no input will ever fit is refused where it is made, and leaves no parameters behind.
#[test]
fn layers_that_cannot_be() -> Result<()> {
    let refused = |synapse: Synapse, (c_in, c_out): (usize, usize), lif: LifConfig, wanted: &str| {
        let case = Case { layers: vec![(synapse, c_out)], lif, map: vec![c_in], ..Case::default() };
        let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let error = Model::build(&case, store.clone()).err().expect(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(store.vars().is_empty(), "{wanted}");
    };
    let good = LifConfig::default();
    for synapse in [Conv(SAME), Transposed(SAME), Linear] {
        let lif = |lif: LifConfig, wanted: &str| refused(synapse, (3, 4), lif, wanted);
        lif(LifConfig { tau: Some(0.5), ..good }, "`neuron.tau` = 0.5");
        lif(LifConfig { tau: Some(f64::NAN), ..good }, "`neuron.tau` = NaN");
        lif(LifConfig { v_threshold: -1., ..good }, "`neuron.v_threshold` = -1");
        lif(
            LifConfig { surrogate: Surrogate::Atan { alpha: 0. }, ..good },
            "`neuron.surrogate.atan.alpha` = 0",
        );
        refused(synapse, (0, 4), good, "c_in` = 0");
        refused(synapse, (3, 0), good, "c_out` = 0");
        refused(synapse, (1 << 60, 1 << 60), good, "does not fit into memory");
    }
    for with in [Conv, Transposed] {
        let conv = |cfg: ConvConfig, wanted: &str| refused(with(cfg), (3, 4), good, wanted);
        conv(ConvConfig::new(3, 0, 1), "`conv.stride` = 0");
        conv(ConvConfig::new(0, 1, 1), "`conv.kernel` = 0");
        conv(SAME.with_output_padding(1), "`conv.output_padding` = 1");
        conv(ConvConfig::new(usize::MAX, 1, 1), "does not fit into memory");
        conv(ConvConfig::new(1 << 26, 1, 1), "does not fit into memory");
    }
    let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let readouts = [
        (Readout::Psp { tau: 0.5 }, "`readout.psp.tau` = 0.5"),
        (Readout::ExponentialSum { decay: 0. }, "`readout.exponential_sum.decay` = 0"),
    ];
    for (readout, wanted) in readouts {
        for made in [
            ReadoutLayer::conv(3, 4, SAME, readout, store.builder()),
            ReadoutLayer::conv_transpose(3, 4, SAME, readout, store.builder()),
            ReadoutLayer::linear(3, 4, readout, store.builder()),
        ] {
            let error = made.expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
    assert!(store.vars().is_empty());
    Ok(())
}

/// More time steps than anything can hold are an error, whatever they would be for.
#[test]
fn time_without_end() -> Result<()> {
    let convs = model(&[(Conv(SAME), 4)], 3)?;
    let linears = model(&[(Linear, 4)], 3)?;
    let on = |model: &Model, shape: &[usize]| -> Result<()> {
        let stack = SpikingStack::new(model.layers.clone());
        let (xs, before) = (ones(shape, DType::F32)?, model.store.snapshot("")?);
        for time_steps in [usize::MAX, usize::MAX / 2 + 1, 1 << 40, 1 << 32] {
            let drive = Drive::Constant(&xs, time_steps);
            for train in [true, false] {
                assert!(stack.forward(drive, train).is_err(), "{time_steps}");
                assert!(stack.forward_observed(drive, train, &mut |_, _| Ok(())).is_err(), "{time_steps}");
                assert!(model.layers[0].forward_constant(&xs, time_steps, train).is_err(), "{time_steps}");
            }
            let prepared = stack.prepare(&shape[1..])?;
            for error in [
                stack.forward(drive, true).unwrap_err(),
                stack.readout(drive, Readout::Mean, false).unwrap_err(),
                prepared.readout(drive, Readout::Mean).unwrap_err(),
            ] {
                assert!(error.to_string().contains(&format!("`time_steps` = {time_steps}")), "{error}");
            }
        }
        for (name, value) in model.store.snapshot("")? {
            assert_identical(&name, &value, &before[&name]);
        }
        Ok(())
    };
    on(&convs, &[2, 3, 6, 5])?;
    on(&linears, &[2, 3])
}

/// A map that has more positions than can be counted, or than fit into memory.
#[test]
fn maps_without_end() -> Result<()> {
    for synapse in [Conv(SAME), Transposed(SAME)] {
        let stack = SpikingStack::new(model(&[(synapse, 4)], 3)?.layers);
        let readout = match synapse {
            Conv(cfg) => ReadoutLayer::conv(3, 2, cfg, Readout::Mean, store().builder())?,
            _ => ReadoutLayer::conv_transpose(3, 2, SAME, Readout::Mean, store().builder())?,
        };
        for (rows, columns) in [(usize::MAX, 1), (1 << 33, 1 << 33), (1 << 20, 1 << 20), (1 << 16, 1 << 16)] {
            assert!(stack.prepare(&[3, rows, columns]).is_err(), "{rows} x {columns}");
            assert!(readout.reach((rows, columns), &[vec![0]]).is_err(), "{rows} x {columns}");
        }
        assert!(stack.connections([3, usize::MAX, 5]).is_err());
        // Large ones are counted without a list of their positions.
        let (rows, columns) = (1u64 << 40, 1u64 << 41);
        let macs = stack.connections([3, rows as usize, columns as usize])?[0].macs();
        assert_eq!(macs, 12. * (3 * rows - 2) as f64 * (3 * columns - 2) as f64);
        assert_eq!(
            readout.reach((40_000, 40_000), &[vec![0, 1_599_999_999]])?,
            [[0, 1, 40_000, 40_001, 1_599_959_998, 1_599_959_999, 1_599_999_998, 1_599_999_999]]
        );
    }
    Ok(())
}

fn store() -> ParamStore {
    ParamStore::new(Seed(0), DType::F32, &Device::Cpu)
}

/// The message says which operand has which type.
#[test]
fn element_types_are_named() -> Result<()> {
    #[track_caller]
    fn says<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
        let error = result.expect_err("types that differ").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let single = model(&[(Conv(SAME), 4), (Conv(SAME), 4)], 3)?.layers;
    let double = ParamStore::new(Seed(0), DType::F64, &Device::Cpu);
    let mixed = SpikingLayer::conv(4, 4, SAME, LifConfig::default(), double.builder())?;
    let mixed = SpikingStack::new(vec![single[0].clone(), mixed]);
    let stack = SpikingStack::new(single.clone());
    let prepared = stack.prepare(&[3, 6, 5])?;
    for (dtype, name) in [(DType::F64, "F64"), (DType::U8, "U8"), (DType::BF16, "BF16")] {
        let images = ones(&[2, 3, 6, 5], dtype)?;
        let (drive, words) =
            (Drive::Constant(&images, 4), [&format!("its input is {name}"), "weight is F32"]);
        for train in [true, false] {
            says(stack.forward(drive, train), &words);
            says(stack.readout(drive, Readout::Mean, train), &words);
            says(stack.forward_observed(drive, train, &mut |_, _| Ok(())), &words);
            says(single[0].forward_constant(&images, 4, train), &words);
        }
        says(prepared.readout(drive, Readout::Mean), &words);
        says(prepared.readout_at(drive, Readout::Mean, &[vec![0], vec![]]), &words);
    }
    let images = ones(&[2, 3, 6, 5], DType::F32)?;
    for train in [true, false] {
        let drive = Drive::Constant(&images, 4);
        says(mixed.forward(drive, train), &["layer 1", "stack is F32", "weight is F64"]);
        says(mixed.forward_observed(drive, train, &mut |_, _| Ok(())), &["layer 1", "weight is F64"]);
    }
    let sums = [ones(&[2, 1, 6, 5], DType::F32)?, ones(&[2, 2, 6, 5], DType::F64)?];
    let readout = ReadoutLayer::conv(3, 2, SAME, Readout::Mean, store().builder())?;
    let words = ["sum 1 is F64", "weight is F32"];
    says(readout.forward_sums(&sums, 4), &words);
    says(readout.forward_sums_at(&sums, 4, &[vec![0], vec![]]), &words);
    says(readout.forward(&ones(&[4, 2, 3, 6, 5], DType::F64)?), &["sum 0 is F64", "weight is F32"]);
    let linear = ReadoutLayer::linear(3, 2, Readout::Mean, store().builder())?;
    says(linear.forward(&ones(&[4, 2, 3], DType::F64)?), &["sum 0 is F64", "weight is F32"]);
    Ok(())
}

/// A layer that refuses leaves the statistics of those before it alone.
#[test]
fn statistics_move_together_or_not_at_all() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
        let (lif, vb) = (LifConfig::default(), store.builder());
        let shrink = ConvConfig::new(5, 1, 0);
        let first = SpikingLayer::conv(3, 4, SAME, lif, vb.pp(0))?;
        let last = SpikingLayer::conv(4, 2, shrink, lif, vb.pp(1))?;
        let stack = SpikingStack::new(vec![first, last]);
        let before = store.snapshot("")?;
        let still = |what: &str| -> Result<()> {
            for (name, value) in store.snapshot("")? {
                assert_identical(&format!("{what}: {name}"), &value, &before[&name]);
            }
            Ok(())
        };
        // One value a channel behind the last layer; a map that is too small for it.
        for (shape, wanted) in
            [(&[1, 3, 5, 5][..], "more than 1 value per channel"), (&[2, 3, 4, 4], "kernel")]
        {
            let xs = ones(shape, dtype)?;
            let (drive, spikes) = (Drive::Constant(&xs, 1), xs.unsqueeze(0)?);
            for result in [
                stack.forward(drive, true),
                stack.forward(Drive::Spikes(&spikes), true),
                stack.readout(drive, Readout::Mean, true),
                stack.forward_observed(drive, true, &mut |_, _| Ok(())),
            ] {
                let error = result.expect_err(wanted).to_string();
                assert!(error.contains(wanted), "{error}");
            }
            still(wanted)?;
        }
        let xs = ones(&[1, 3, 5, 5], dtype)?;
        let stopped = stack.forward_observed(Drive::Constant(&xs, 4), true, &mut |i, _| match i {
            0 => Ok(()),
            _ => bail!("enough"),
        });
        assert!(stopped.is_err());
        assert!(stack.readouts(Drive::Constant(&xs, 4), &[], true).is_err());
        assert!(stack.readout(Drive::Constant(&xs, 4), Readout::Psp { tau: 0.5 }, true).is_err());
        still("stopped")?;
        // Copies in time are values.
        stack.forward(Drive::Constant(&xs, 2), true)?;
        assert!(still_moves(&store, &before)?);
    }
    Ok(())
}

fn still_moves(store: &ParamStore, before: &BTreeMap<String, Tensor>) -> Result<bool> {
    let name = "1.bn.running_var";
    let after = store.snapshot("")?;
    Ok(flat(&after[name])? != flat(&before[name])?)
}

/// With one value a channel, or none, there are no statistics: nothing moves.
#[test]
fn a_single_value_is_no_batch() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let store = ParamStore::new(Seed(0), dtype, &Device::Cpu);
        let layer = SpikingLayer::linear(3, 4, LifConfig::default(), store.builder())?;
        let (x, before) = (ones(&[1, 3], dtype)?, store.snapshot("")?);
        for (result, values) in [
            (layer.forward_t(&x.unsqueeze(0)?, true), 1),
            (layer.forward_constant(&x, 1, true), 1),
            (layer.forward_constant(&x, 0, true), 0),
            (layer.forward_constant(&ones(&[5, 3], dtype)?, 0, true), 0),
            (layer.forward_constant(&ones(&[0, 3], dtype)?, 5, true), 0),
        ] {
            let error = result.expect_err("no batch").to_string();
            let wanted = format!("expected more than 1 value per channel when training, got {values}");
            assert!(error.contains(&wanted), "{error}");
        }
        for (name, value) in store.snapshot("")? {
            assert_identical(&name, &value, &before[&name]);
        }
        assert_eq!(layer.forward_t(&x.unsqueeze(0)?, false)?.dims(), [1, 1, 4]);
        // Sixteen equal values are sixteen values, as for PyTorch: of variance 0.
        assert_eq!(layer.forward_constant(&x, 16, true)?.dims(), [16, 1, 4]);
        assert_eq!(
            flat(&store.snapshot("")?["bn.running_var"])?,
            [f64::from(0.9f32); 4].map(|v| { if dtype == DType::F32 { v } else { 0.9 } })
        );
    }
    Ok(())
}
