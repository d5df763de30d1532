//! A batch in shards against the whole batch: the same outputs, gradients and running statistics.

use super::*;
use crate::ops::testing::in_shards;

/// What shards of a batch leave behind: outputs and input gradients side by side, parameters' gradients summed.
fn outcome_of_shards(case: &Case, model: &Model, xs: &Tensor, shards: usize, run: Run) -> Result<Outcome> {
    let (axis, size) = (usize::from(!case.constant), case.batch / shards);
    let whole = run(&model.copy(case, xs.dtype())?.layers, case.drive(xs), case.finish, case.train)?;
    let upstream = Seed(9).normal("upstream", whole.shape(), (0., 1.), DType::F32, &Device::Cpu)?;
    let found = in_shards(shards, |shard| {
        let xs = Var::from_tensor(&xs.narrow(axis, shard * size, size)?.contiguous()?)?;
        let output = run(&model.layers, case.drive(&xs), case.finish, case.train)?;
        let upstream = upstream.narrow(1, shard * size, size)?.to_dtype(output.dtype())?;
        let grads = (&output * upstream)?.sum_all()?.backward()?;
        let input = grads.get(&xs).cloned().map_or_else(|| xs.zeros_like(), Ok)?;
        Ok((output.detach(), input, model.store.gradients(&grads)?))
    })?;
    let mut all = found[0].2.clone();
    for (_, _, gradients) in &found[1..] {
        for (name, gradient) in gradients {
            let sum = (&all[name] + gradient)?;
            all.insert(name.clone(), sum);
        }
    }
    let (outputs, inputs): (Vec<_>, Vec<_>) = found.into_iter().map(|(y, x, _)| (y, x)).unzip();
    all.insert("output".into(), Tensor::cat(&outputs, 1)?);
    all.insert("input".into(), Tensor::cat(&inputs, axis)?);
    for (name, var) in model.store.vars() {
        if name.contains("running") {
            all.insert(name, var.as_tensor().copy()?);
        }
    }
    Ok(all)
}

/// The chain and its twin, in shards and whole.
fn check_shards(what: &str, case: &Case) -> Result<()> {
    let (model, xs) = case.draw()?;
    let whole = chain_outcome(case, &model, &xs)?;
    for shards in [1, 2, 3, 6] {
        let what = format!("{what}, {shards} shards");
        let chain = outcome_of_shards(case, &model.copy(case, DType::F32)?, &xs, shards, run_chain)?;
        assert_outcome(&what, &chain, &whole, case.finish);
        let (twin, xs) = (model.copy(case, DType::F64)?, xs.to_dtype(DType::F64)?);
        let twin = outcome_of_shards(case, &twin, &xs, shards, run_reference)?;
        assert_outcome(&format!("{what}, twin"), &chain, &twin, case.finish);
    }
    Ok(())
}

#[test]
fn shards_make_the_whole_batch() -> Result<()> {
    let layers = vec![(Conv(ConvConfig::new(3, 1, 1)), 5), (Conv(ConvConfig::new(3, 2, 1)), 4)];
    let norms = [
        LayerConfig {
            norm: Norm::ThresholdDependent { alpha: 1.2, v_threshold: 1. },
            ..LayerConfig::default()
        },
        LayerConfig::default(),
    ];
    for train in [true, false] {
        for finish in [Finish::Spikes, Finish::Sums(&[Readout::Mean])] {
            let case = Case { layers: layers.clone(), batch: 6, finish, train, ..Case::default() };
            check_shards("spikes", &case)?;
            let constant = Case { constant: true, values: Values::Normal, ..case.clone() };
            check_shards("constant", &constant)?;
            check_shards("tdBN, then batch norm", &Case { mixture: norms.to_vec(), ..case })?;
        }
    }
    let layers = vec![(Linear, 8), (Linear, 5)];
    check_shards("linear", &Case { layers: layers.clone(), map: vec![12], batch: 6, ..Case::default() })?;
    // One value a channel in a shard, as many as there are shards in all; a single one is refused.
    let case = Case { layers, map: vec![12], batch: 6, time_steps: 1, ..Case::default() };
    check_shards("one value", &case)?;
    let (model, xs) = case.draw()?;
    let one = xs.narrow(1, 0, 1)?.contiguous()?;
    for run in [run_chain, run_reference] {
        let refused = in_shards(1, |_| run(&model.layers, case.drive(&one), case.finish, true));
        let text = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("more than 1 value per channel when training, got 1 in all shards"), "{text}");
    }
    Ok(())
}

/// What one shard normalises by depends on the others.
#[test]
fn a_shard_sees_the_others() -> Result<()> {
    let case = Case { batch: 6, ..Case::default() };
    let (model, xs) = case.draw()?;
    let alone = xs.narrow(1, 0, 2)?.contiguous()?;
    let alone = run_chain(&model.copy(&case, DType::F32)?.layers, Drive::Spikes(&alone), case.finish, true)?;
    let model = model.copy(&case, DType::F32)?;
    let together = outcome_of_shards(&case, &model, &xs, 3, run_chain)?["output"].narrow(1, 0, 2)?;
    assert_ne!(flat(&alone)?, flat(&together)?);
    Ok(())
}
