//! Sums of several layers side by side, against the same layers one by one.

use super::errors::SAME;
use super::*;

const MEAN: Readout = Readout::Mean;
const PSP: Readout = Readout::Psp { tau: 3. };

fn maps() -> Case {
    let layers =
        vec![(Conv(SAME), 20), (Transposed(SAME), 9), (Conv(ConvConfig::new(1, 1, 0)), 17), (Conv(SAME), 5)];
    Case { layers, map: vec![3, 7, 7], time_steps: 5, batch: 9, ..Case::default() }
}

fn features() -> Case {
    let layers = vec![(Linear, 20), (Linear, 33), (Linear, 6)];
    Case { layers, map: vec![12], time_steps: 4, batch: 9, ..Case::default() }
}

#[test]
fn sums_of_several_layers_equal_their_twins() -> Result<()> {
    let orders: [(Case, &[Finish<'static>]); 2] = [
        (
            maps(),
            &[Finish::SumsOf(MEAN, &[3, 0]), Finish::SumsOf(PSP, &[0, 1, 2, 3]), Finish::SumsOf(MEAN, &[3])],
        ),
        (features(), &[Finish::SumsOf(MEAN, &[2, 0]), Finish::SumsOf(PSP, &[1, 2])]),
    ];
    for (case, finishes) in orders {
        for (&finish, constant, train) in
            finishes.iter().flat_map(|f| [(f, false, true), (f, true, true), (f, true, false)])
        {
            let case = Case { finish, constant, train, ..case.clone() };
            let got = check(&format!("{finish:?}, constant {constant}, train {train}"), &case)?;
            let of_input = flat(&got["input"])?.iter().map(|x| x * x).sum::<f64>();
            assert!(of_input > 1e-6, "{finish:?}: the gradient of the input is {of_input:e}");
        }
    }
    Ok(())
}

/// One by one: spikes of each layer, summed by the read-out.
fn one_by_one(stack: &SpikingStack, drive: Drive<'_>, of: &[usize]) -> Result<Tensor> {
    let mut sums = Vec::new();
    stack.forward_observed(drive, false, &mut |_, spikes| {
        sums.push(PSP.apply(spikes)?);
        Ok(())
    })?;
    Tensor::cat(&of.iter().map(|&i| &sums[i]).collect::<Vec<_>>(), 1)
}

#[test]
fn prepared_stacks_sum_the_same_at_some_positions_and_nothing_elsewhere() -> Result<()> {
    for constant in [true, false] {
        let case = Case { train: false, constant, ..maps() };
        let (model, xs) = case.draw()?;
        for dtype in [DType::F32, DType::F64] {
            let (stack, xs) = (SpikingStack::new(model.copy(&case, dtype)?.layers), xs.to_dtype(dtype)?);
            let (prepared, drive) = (stack.prepare(&case.map)?, case.drive(&xs));
            for of in [&[3, 0][..], &[2, 3], &[0, 1, 2, 3]] {
                let all = one_by_one(&stack, drive, of)?;
                assert_relative("everywhere", &stack.readout_of(drive, PSP, of, false)?, &all, 1e-6);
                let at: Vec<_> = (0..9u32).map(|n| (0..n).map(|i| (i * 11 + n) % 49).collect()).collect();
                let some = prepared.readout_of_at(drive, PSP, of, &at)?;
                assert_relative("at some", &some, &super::prepared::only(&all, &at)?, 1e-6);
            }
        }
    }
    Ok(())
}

#[test]
fn layers_with_neurons_of_ones_own_are_summed_too() -> Result<()> {
    let case = Case { train: false, ..maps() };
    let (model, xs) = case.draw()?;
    let mut layers = model.layers;
    layers[1] = layers[1].clone().with_neuron(std::sync::Arc::new(crate::Analog::Relu));
    let stack = SpikingStack::new(layers);
    let wanted = one_by_one(&stack, case.drive(&xs), &[3, 1])?;
    assert_relative("own", &stack.readout_of(case.drive(&xs), PSP, &[3, 1], false)?, &wanted, 1e-6);
    Ok(())
}

#[test]
fn what_cannot_lie_side_by_side_is_named() -> Result<()> {
    let case = Case { train: false, ..maps() };
    let (model, xs) = case.draw()?;
    let stack = SpikingStack::new(model.layers);
    let halved = Case {
        layers: vec![
            (Conv(ConvConfig::new(3, 2, 1)), 4),
            (Conv(SAME), 4),
            (Conv(ConvConfig::new(3, 2, 1)), 4),
        ],
        ..case.clone()
    };
    let halved = SpikingStack::new(halved.draw()?.0.layers);
    for (stack, of, words) in [
        (&stack, &[0, 1][..], "wanted are the last"),
        (&stack, &[], "wanted are the last"),
        (&stack, &[4, 3], "wanted are the last"),
        (&stack, &[0, 3, 0], "named twice"),
        (&halved, &[2, 1], "(4, 4), (4, 4), (2, 2)"),
    ] {
        for result in [
            stack.readout_of(case.drive(&xs), PSP, of, false),
            stack.prepare(&case.map)?.readout_of_at(case.drive(&xs), PSP, of, &vec![vec![0]; 9]),
        ] {
            let error = result.expect_err("layers that do not fit").to_string();
            assert!(error.contains(words), "{of:?}: {error}");
        }
    }
    Ok(())
}
