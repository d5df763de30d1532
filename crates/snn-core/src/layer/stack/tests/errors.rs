//! What does not fit is an error for the chain as it is for the twin, and what is empty is empty.

use super::*;
use crate::ops::chain::{Chain, End, Spec};

pub(super) const SAME: ConvConfig = ConvConfig { kernel: 3, stride: 1, padding: 1, output_padding: 0 };

pub(super) fn model(layers: &[(Synapse, usize)], channels: usize) -> Result<Model> {
    let case = Case { layers: layers.to_vec(), map: vec![channels], ..Case::default() };
    Model::new(&case, 0)
}

pub(super) fn ones(shape: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::ones(shape, dtype, &Device::Cpu)
}

/// Asserts an error, whatever is asked for, and running statistics that have not moved.
fn assert_rejected(what: &str, model: &Model, shape: &[usize]) -> Result<()> {
    let before = model.store.snapshot("")?;
    for dtype in [DType::F32, DType::F64, DType::U8] {
        let xs = ones(shape, dtype)?;
        for drive in [Drive::Spikes(&xs), Drive::Constant(&xs, 2)] {
            for finish in [Finish::Spikes, Finish::Sums(&[Readout::Mean])] {
                for train in [true, false] {
                    let result = run(&model.layers, drive, finish, train);
                    assert!(result.is_err(), "{what}: {shape:?} of {dtype:?}, {finish:?}, train = {train}");
                }
            }
        }
    }
    for (name, value) in model.store.snapshot("")? {
        assert_identical(&format!("{what}: {name}"), &value, &before[&name]);
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit() -> Result<()> {
    let conv = model(&[(Conv(SAME), 4)], 3)?;
    for shape in [
        &[][..],
        &[3],
        &[2, 3],
        &[5, 2, 3],
        &[5, 2, 3, 6],
        &[5, 2, 4, 6, 6],
        &[5, 2, 3, 6, 6, 1],
        &[2, 4, 6, 6],
    ] {
        assert_rejected("convolution", &conv, shape)?;
    }
    let transposed = model(&[(Transposed(SAME), 4)], 3)?;
    for shape in [&[5, 2, 3][..], &[2, 3], &[5, 2, 4, 6, 6], &[2, 2, 6, 6]] {
        assert_rejected("transposed convolution", &transposed, shape)?;
    }
    let linear = model(&[(Linear, 4)], 3)?;
    for shape in [&[][..], &[3], &[5, 2, 4], &[2, 4], &[5, 2, 3, 1, 1], &[2, 3, 1, 1], &[2, 3, 2, 2]] {
        assert_rejected("linear", &linear, shape)?;
    }
    Ok(())
}

#[test]
fn layers_that_do_not_fit() -> Result<()> {
    let large = Conv(ConvConfig::new(7, 1, 0));
    assert_rejected("kernel", &model(&[(Conv(SAME), 4), (large, 4)], 3)?, &[5, 2, 3, 6, 6])?;
    let nothing = Transposed(ConvConfig::new(1, 1, 3));
    assert_rejected("no output", &model(&[(nothing, 4)], 3)?, &[5, 2, 3, 6, 6])?;
    let shrink = Conv(ConvConfig::new(6, 1, 0));
    let behind_a_map = model(&[(shrink, 4), (Linear, 4)], 3)?;
    assert_rejected("linear behind a map", &behind_a_map, &[5, 2, 3, 6, 6])?;
    assert_rejected("linear behind a map", &behind_a_map, &[2, 3, 6, 6])?;
    let mut other = model(&[(Conv(SAME), 4)], 3)?;
    other.layers.extend(model(&[(Conv(SAME), 4)], 5)?.layers);
    assert_rejected("channels between layers", &other, &[5, 2, 3, 6, 6])
}

#[test]
fn no_layers() -> Result<()> {
    let none = model(&[], 3)?;
    for shape in [&[5, 2, 3, 6, 6][..], &[5, 2, 3], &[2, 3, 6, 6], &[0, 2, 3], &[5, 0, 3, 6, 6]] {
        assert_rejected("no layers", &none, shape)?;
    }
    let xs = ones(&[5, 2, 3, 6, 6], DType::F32)?;
    let stack = SpikingStack::new(Vec::new());
    assert!(stack.forward_observed(Drive::Spikes(&xs), true, &mut |_, _| Ok(())).is_err());
    Ok(())
}

#[test]
fn element_types_that_differ() -> Result<()> {
    let case = Case::default();
    let (single, xs) = case.draw()?;
    let double = single.copy(&case, DType::F64)?;
    for train in [true, false] {
        assert!(run(&double.layers, Drive::Spikes(&xs), Finish::Spikes, train).is_err());
        let xs = xs.to_dtype(DType::F64)?;
        assert!(run(&single.layers, Drive::Spikes(&xs), Finish::Spikes, train).is_err());
    }
    Ok(())
}

#[test]
fn a_sum_wants_a_weight_for_every_step() -> Result<()> {
    let case = Case::default();
    let (model, xs) = case.draw()?;
    let specs = specs(&model.layers[..1], &[3, 5, 6])?;
    let weights = [model.layers[0].synapse.weight.clone()];
    let affines = ones(&[2 * 4], DType::F32)?;
    let sum = |layers: &[Spec], constant, weight_count: usize| {
        let end = End::Sums { weights: vec![vec![0.5; weight_count]], of: vec![0] };
        let xs = if constant { xs.get(0)? } else { xs.clone() };
        let constant = constant.then_some(4);
        chain::run(&xs, &weights, &affines, &Chain { layers, constant, keep: false, end, exchange: None })
    };
    for constant in [true, false] {
        assert_eq!(sum(&specs, constant, 4)?.0.dims(), [1, 2, 4, 5, 6]);
        for count in [0, 3, 5] {
            assert!(sum(&specs, constant, count).is_err(), "{count} weights");
        }
        assert!(sum(&[], constant, 4).is_err(), "no layers");
    }
    Ok(())
}

/// No items, no time: nothing comes of it in evaluation, and there are no statistics of nothing.
#[test]
fn nothing_in_nothing_out() -> Result<()> {
    let convs = model(&[(Conv(SAME), 4), (Transposed(SAME), 2)], 3)?;
    let linears = model(&[(Linear, 4), (Linear, 2)], 3)?;
    for (model, map) in [(&convs, &[3, 6, 5][..]), (&linears, &[3])] {
        let shape = |front: &[usize]| [front, map].concat();
        let target = |front: &[usize]| [front, &[2], &map[1..]].concat();
        for dtype in [DType::F32, DType::F64] {
            let case = Case { layers: vec![(Linear, 4)], map: vec![3], ..Case::default() };
            let layers = match (dtype, map.len()) {
                (DType::F32, _) => model.layers.clone(),
                (_, 1) => {
                    let layers = vec![(Linear, 4), (Linear, 2)];
                    model.copy(&Case { layers, ..case }, dtype)?.layers
                }
                _ => {
                    let layers = vec![(Conv(SAME), 4), (Transposed(SAME), 2)];
                    model.copy(&Case { layers, ..case }, dtype)?.layers
                }
            };
            let no_items = ones(&shape(&[5, 0]), dtype)?;
            let ys = run(&layers, Drive::Spikes(&no_items), Finish::Spikes, false)?;
            assert_eq!(ys.dims(), target(&[5, 0]));
            let no_item = ones(&shape(&[0]), dtype)?;
            let ys = run(&layers, Drive::Constant(&no_item, 5), Finish::Spikes, false)?;
            assert_eq!(ys.dims(), target(&[5, 0]));
            let (no_time, item) = (ones(&shape(&[0, 2]), dtype)?, ones(&shape(&[2]), dtype)?);
            for drive in [Drive::Spikes(&no_time), Drive::Constant(&item, 0)] {
                assert_eq!(run(&layers, drive, Finish::Spikes, false)?.elem_count(), 0);
                assert!(
                    run(&layers, drive, Finish::Sums(&[Readout::Mean]), false).is_err(),
                    "a sum of no time"
                );
                assert!(run(&layers, drive, Finish::Spikes, true).is_err(), "statistics of no time");
            }
            for drive in [Drive::Spikes(&no_items), Drive::Constant(&no_item, 5)] {
                assert!(run(&layers, drive, Finish::Spikes, true).is_err(), "statistics of no items");
            }
        }
    }
    Ok(())
}
