//! Prepared stacks against the stacks themselves, everywhere and at some positions.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::Rng;

use super::random::{case, mixed_case, positions};
use super::*;

const READOUT: Readout = Readout::Psp { tau: 3. };

/// Some positions of each item, in any order, some of them twice, some items without any.
fn some(seed: u64, items: usize, map: usize) -> Vec<Vec<u32>> {
    let mut rng = Seed(seed).rng("positions");
    let item = |_| {
        let count = rng.random_range(0..=map.min(6));
        (0..count).map(|_| rng.random_range(0..map as u32)).collect()
    };
    (0..items).map(item).collect()
}

/// `ys: [N, C, ...]` with zeros where a position is not among these.
pub(super) fn only(ys: &Tensor, at: &[Vec<u32>]) -> Result<Tensor> {
    let map: usize = ys.dims()[2..].iter().product();
    let (channels, mut values) = (ys.dim(1)?, flat(ys)?);
    for (i, value) in values.iter_mut().enumerate() {
        if !at[i / (channels * map)].contains(&((i % map) as u32)) {
            *value = 0.;
        }
    }
    Tensor::from_vec(values, ys.shape(), &Device::Cpu)?.to_dtype(ys.dtype())
}

fn check_prepared(case: &Case) -> Result<()> {
    let (model, xs) = case.draw()?;
    let map = positions(case).last().copied().unwrap_or(1);
    for dtype in [DType::F32, DType::F64] {
        let (stack, xs) = (SpikingStack::new(model.copy(case, dtype)?.layers), xs.to_dtype(dtype)?);
        let (prepared, drive) = (stack.prepare(&case.map)?, case.drive(&xs));
        let all = stack.readout(drive, READOUT, false)?;
        assert_identical("spikes", &prepared.forward(drive)?, &stack.forward(drive, false)?);
        assert_relative("everywhere", &prepared.readout(drive, READOUT)?, &all, 1e-6);
        let at = some(3, case.batch, map);
        assert_relative("at some", &prepared.readout_at(drive, READOUT, &at)?, &only(&all, &at)?, 1e-6);
        let every = vec![(0..map as u32).rev().collect(); case.batch];
        assert_relative("at all", &prepared.readout_at(drive, READOUT, &every)?, &all, 1e-6);
    }
    Ok(())
}

#[test]
fn any_prepared_stack_equals_its_stack() {
    let config = ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() };
    proptest!(config, |(case in case())| {
        let case = Case { train: false, ..case };
        check_prepared(&case).expect("a prepared stack");
    });
    let config = ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() };
    proptest!(config, |(case in mixed_case())| {
        check_prepared(&Case { train: false, ..case }).expect("a prepared stack of a mixture");
    });
}

#[test]
fn few_positions_cost_nothing_in_accuracy() -> Result<()> {
    // Events everywhere: sums are formed in the same order, whatever is left out.
    let same = ConvConfig::new(3, 1, 1);
    let case = Case {
        layers: vec![(Conv(same), 20), (Conv(same), 70), (Conv(same), 9)],
        map: vec![8, 7, 7],
        batch: 3,
        train: false,
        ..Case::default()
    };
    let (model, xs) = case.draw()?;
    let stack = SpikingStack::new(model.layers);
    let prepared = stack.prepare(&case.map)?;
    let all = stack.readout(Drive::Spikes(&xs), READOUT, false)?;
    for p in [0, 24, 48] {
        let at = vec![vec![], vec![p], vec![p, 3]];
        assert_identical("at", &prepared.readout_at(Drive::Spikes(&xs), READOUT, &at)?, &only(&all, &at)?);
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_an_error() -> Result<()> {
    let case = Case { train: false, ..Case::default() };
    let (model, xs) = case.draw()?;
    let stack = SpikingStack::new(model.layers);
    assert!(stack.prepare(&[4, 5, 6]).is_err() && stack.prepare(&[3]).is_err());
    assert!(SpikingStack::new(vec![]).prepare(&[3, 5, 6]).is_err());
    let prepared = stack.prepare(&case.map)?;
    let at = |xs: &Tensor, at: &[Vec<u32>]| prepared.readout_at(Drive::Spikes(xs), READOUT, at);
    assert!(at(&xs, &[vec![0], vec![30]]).is_err(), "a position outside the map");
    assert!(at(&xs, &[vec![0]]).is_err(), "not one list for each item");
    assert!(at(&xs.narrow(3, 0, 4)?, &[vec![0], vec![0]]).is_err(), "another map");
    Ok(())
}
