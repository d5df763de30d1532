//! A chain as one node of a graph: gradients asked for twice, in part, across chains, on any number of threads.

use super::*;
use crate::ops::testing::{assert_within, check_threads};

fn stack() -> Case {
    let (same, double) = (ConvConfig::new(3, 1, 1), ConvConfig::new(3, 2, 1).with_output_padding(1));
    Case {
        layers: vec![(Conv(same), 16), (Conv(same), 18), (Transposed(double), 5)],
        map: vec![3, 6, 5],
        batch: 3,
        ..Case::default()
    }
}

fn normal(label: &str, like: &Tensor) -> Result<Tensor> {
    Seed(5).normal(label, like.shape(), (0., 1.), DType::F32, &Device::Cpu)
}

/// The gradients of a loss in the parameters and in the input.
fn gradients(model: &Model, xs: &Var, loss: &Tensor) -> Result<Outcome> {
    let grads = loss.backward()?;
    let mut all = model.store.gradients(&grads)?;
    all.insert("input".into(), grads.get(xs).cloned().map_or_else(|| xs.zeros_like(), Ok)?);
    assert!(flat(&all["input"])?.iter().any(|g| *g != 0.));
    Ok(all)
}

#[test]
fn gradients_can_be_asked_for_again() -> Result<()> {
    for (train, finish) in
        [(true, Finish::Spikes), (false, Finish::Spikes), (false, Finish::Sums(&[Readout::Mean]))]
    {
        let case = Case { train, finish, ..stack() };
        let (model, xs) = case.draw()?;
        let xs = Var::from_tensor(&xs)?;
        let ys = run_chain(&model.layers, case.drive(&xs), finish, train)?;
        let statistics = model.store.snapshot("")?;
        let loss = (&ys * normal("first", &ys)?)?.sum_all()?;
        let first = gradients(&model, &xs, &loss)?;
        for (name, again) in gradients(&model, &xs, &loss)? {
            assert_identical(&format!("train = {train}: {name}"), &again, &first[&name]);
        }
        // Another loss of the same spikes, alone and together with the first.
        let other = (ys.sqr()? * normal("second", &ys)?)?.sum_all()?;
        let (second, both) = (gradients(&model, &xs, &other)?, gradients(&model, &xs, &(&loss + other)?)?);
        for (name, both) in &both {
            let what = format!("train = {train}: sum of losses, {name}");
            let (sum, size) = ((&first[name] + &second[name])?, (first[name].abs()? + second[name].abs()?)?);
            assert_within(&what, both, &sum, &size, GRADIENT_BOUND);
            let differs = flat(&first[name])? != flat(&second[name])?;
            assert_eq!(differs, flat(both)?.iter().any(|g| *g != 0.), "{what}: the losses are the same");
        }
        for (name, value) in model.store.snapshot("")? {
            assert_identical(&format!("{name} moves in the backward pass"), &value, &statistics[&name]);
        }
    }
    Ok(())
}

#[test]
fn an_input_may_want_no_gradient() -> Result<()> {
    for train in [true, false] {
        let case = Case { train, ..stack() };
        let (model, xs) = case.draw()?;
        let with = chain_outcome(&case, &model, &xs)?;
        let model = model.copy(&case, DType::F32)?;
        let ys = run_chain(&model.layers, case.drive(&xs), case.finish, train)?;
        let upstream = Seed(9).normal("upstream", ys.shape(), (0., 1.), DType::F32, &Device::Cpu)?;
        let grads = (&ys * upstream)?.sum_all()?.backward()?;
        assert!(grads.get(&xs).is_none());
        for (name, got) in model.store.gradients(&grads)? {
            assert_identical(&format!("train = {train}: {name}"), &got, &with[&name]);
        }
    }
    Ok(())
}

#[test]
fn only_the_input_may_want_a_gradient() -> Result<()> {
    let case = stack();
    let (model, xs) = case.draw()?;
    let with = chain_outcome(&case, &model, &xs)?;
    let mut fixed = model.copy(&case, DType::F32)?.layers;
    for layer in &mut fixed {
        layer.synapse.weight = layer.synapse.weight.detach();
        let norm = layer.norm.as_mut().expect("a norm");
        norm.weight = norm.weight.detach();
        norm.bias = norm.bias.detach();
    }
    let xs = Var::from_tensor(&xs)?;
    let ys = run_chain(&fixed, case.drive(&xs), case.finish, true)?;
    let upstream = Seed(9).normal("upstream", ys.shape(), (0., 1.), DType::F32, &Device::Cpu)?;
    let grads = (&ys * upstream)?.sum_all()?.backward()?;
    let got = grads.get(&xs).expect("a gradient of the input");
    assert_identical("input", got, &with["input"]);
    Ok(())
}

#[test]
fn two_chains_in_a_row_are_one() -> Result<()> {
    for train in [true, false] {
        let case = Case { train, ..stack() };
        let (model, xs) = case.draw()?;
        let one = chain_outcome(&case, &model, &xs)?;
        for cut in 1..3 {
            let halves: Run = match cut {
                1 => |layers, drive, finish, train| {
                    let spikes = run_chain(&layers[..1], drive, Finish::Spikes, train)?;
                    run_chain(&layers[1..], Drive::Spikes(&spikes), finish, train)
                },
                _ => |layers, drive, finish, train| {
                    let spikes = run_chain(&layers[..2], drive, Finish::Spikes, train)?;
                    run_chain(&layers[2..], Drive::Spikes(&spikes), finish, train)
                },
            };
            let two = outcome(&case, &model.copy(&case, DType::F32)?, &xs, halves)?;
            for (name, wanted) in &one {
                assert_identical(&format!("cut behind {cut}, train = {train}: {name}"), &two[name], wanted);
            }
        }
    }
    Ok(())
}

#[test]
fn training_in_between_does_not_disturb_an_evaluation() -> Result<()> {
    let case = Case { train: false, ..stack() };
    let (model, xs) = case.draw()?;
    let xs = Var::from_tensor(&xs)?;
    let loss_of = |model: &Model| {
        let ys = run_chain(&model.layers, case.drive(&xs), case.finish, false)?;
        (&ys * normal("loss", &ys)?)?.sum_all()
    };
    let wanted = gradients(&model, &xs, &loss_of(&model)?)?;
    let loss = loss_of(&model)?;
    let before = model.store.snapshot("")?;
    run_chain(&model.layers, case.drive(&xs), case.finish, true)?;
    let moved = model
        .store
        .vars()
        .into_iter()
        .filter(|(name, var)| flat(var).expect("values") != flat(&before[name]).expect("values"));
    assert_eq!(moved.count(), 2 * 3, "mean and variance of each layer move, nothing else");
    for (name, got) in gradients(&model, &xs, &loss)? {
        assert_identical(&name, &got, &wanted[&name]);
    }
    Ok(())
}

/// More items than there are groups of them, and more than one block of weights.
#[test]
fn threads_do_not_matter() -> Result<()> {
    const MIXED: &[Values] = &[Values::Binary(0.1), Values::Normal, Values::Binary(0.7), Values::Binary(0.2)];
    for (train, constant) in [(true, false), (false, false), (true, true), (false, true)] {
        for finish in [Finish::Spikes, Finish::Sums(&[Readout::Psp { tau: 3. }])] {
            let mut case =
                Case { train, constant, finish, batch: 19, values: Values::Items(MIXED), ..stack() };
            case.layers[1].1 = 130;
            let (model, xs) = (Model::new(&case, 0)?, case.input(0)?);
            check_threads(|| Ok(chain_outcome(&case, &model, &xs)?.into_values().collect()))?;
            let learned = LayerConfig::from(case.lif).with_learned_tau();
            case.mixture = vec![learned.with_norm(Norm::None), learned, case.lif.into()];
            let model = Model::new(&case, 0)?;
            check_threads(|| Ok(chain_outcome(&case, &model, &xs)?.into_values().collect()))?;
        }
    }
    Ok(())
}
