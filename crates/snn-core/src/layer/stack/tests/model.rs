//! Neurons of the user's own among the others.

use std::sync::Arc;

use super::*;
use crate::{NeuronModel, lif_step};

/// The configured neuron, as a user would write it.
#[derive(Debug)]
struct Own(LifConfig);

impl NeuronModel for Own {
    fn step(&self, x: &Tensor, state: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let v =
            state.first().map_or_else(|| x.zeros_like()? + self.0.v_reset.potential(), |v| Ok(v.clone()))?;
        let (spikes, v) = lif_step(x, &v, &self.0)?;
        Ok((spikes, vec![v]))
    }
}

/// Three layers, of which these have neurons of their own.
fn with_own(case: &Case, model: &Model, own: &[usize], dtype: DType) -> Result<Model> {
    let mut model = model.copy(case, dtype)?;
    for &i in own {
        model.layers[i] = model.layers[i].clone().with_neuron(Arc::new(Own(case.lif)));
    }
    Ok(model)
}

#[test]
fn a_model_of_ones_own_runs_among_fused_layers() -> Result<()> {
    let same = ConvConfig::new(3, 1, 1);
    for (train, constant) in [(true, false), (false, false), (true, true), (false, true)] {
        let case = Case {
            layers: vec![(Conv(same), 16), (Conv(same), 5), (Conv(same), 4)],
            map: vec![3, 6, 5],
            train,
            constant,
            ..Case::default()
        };
        let (model, xs) = case.draw()?;
        for own in [&[0][..], &[1], &[2], &[0, 1, 2], &[0, 2]] {
            for dtype in [DType::F32, DType::F64] {
                let xs = xs.to_dtype(dtype)?;
                let got = outcome(&case, &with_own(&case, &model, own, dtype)?, &xs, run)?;
                let wanted = outcome(&case, &model.copy(&case, dtype)?, &xs, run)?;
                assert_outcome(&format!("{own:?}, train = {train}"), &got, &wanted, case.finish);
            }
        }
    }
    Ok(())
}

#[test]
fn a_stack_with_a_model_can_be_prepared_and_observed() -> Result<()> {
    let same = ConvConfig::new(3, 1, 1);
    let case = Case { layers: vec![(Conv(same), 6), (Conv(same), 5)], train: false, ..Case::default() };
    let (model, xs) = case.draw()?;
    let stack = SpikingStack::new(with_own(&case, &model, &[1], DType::F32)?.layers);
    let all = stack.readout(case.drive(&xs), Readout::Mean, false)?;
    let prepared = stack.prepare(&case.map)?.readout(case.drive(&xs), Readout::Mean)?;
    assert_relative("prepared", &prepared, &all, 1e-6);
    let mut seen = 0;
    let spikes = stack.forward_observed(case.drive(&xs), false, &mut |_, _| {
        seen += 1;
        Ok(())
    })?;
    assert_relative("observed", &spikes.mean(0)?, &all, 1e-6);
    assert_eq!(seen, 2);
    Ok(())
}
