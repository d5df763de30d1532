//! Norm and neurons as one operation, as a GPU runs them, by the twin of that operation.

use super::*;
use crate::layer::run::{fused, settle};

fn run_fused(layers: &[SpikingLayer], drive: Drive<'_>, finish: Finish<'_>, train: bool) -> Result<Tensor> {
    assert_eq!(finish, Finish::Spikes);
    let (mut spikes, mut batches): (Option<Tensor>, _) = (None, Vec::new());
    for layer in layers {
        let lif = layer.neurons.lif().expect("LIF");
        let (next, batch) = fused(layer, spikes.as_ref().map_or(drive, Drive::Spikes), lif, train)?;
        spikes = Some(next);
        batches.push(batch);
    }
    settle(layers, (spikes.expect("a layer"), batches))
}

fn check_fused(case: &Case) -> Result<()> {
    let (model, xs) = case.draw()?;
    for dtype in [DType::F32, DType::F64] {
        let (xs, model) = (xs.to_dtype(dtype)?, model.copy(case, dtype)?);
        let got = outcome(case, &model.copy(case, dtype)?, &xs, run_fused)?;
        let wanted = outcome(case, &model, &xs, run_reference)?;
        assert_outcome(&format!("{dtype:?}, {case:?}"), &got, &wanted, case.finish);
    }
    Ok(())
}

/// Every norm, in training and evaluation, under currents of each step and those that stay.
#[test]
fn norms_and_neurons_as_one_operation() -> Result<()> {
    let layers = vec![(Conv(ConvConfig::new(3, 1, 1)), 5), (Transposed(ConvConfig::new(3, 2, 1)), 4)];
    let threshold = Norm::ThresholdDependent { alpha: 1.2, v_threshold: 1. };
    for norm in [Norm::Batch, threshold, Norm::None] {
        for (train, constant) in [(true, false), (false, false), (true, true), (false, true)] {
            let mixture = vec![LayerConfig::default().with_norm(norm); 2];
            let case = Case { layers: layers.clone(), mixture, train, constant, ..Case::default() };
            check_fused(&case)?;
        }
    }
    let layers = vec![(Linear, 8), (Linear, 5)];
    for train in [true, false] {
        check_fused(&Case { layers: layers.clone(), map: vec![12], batch: 6, train, ..Case::default() })?;
    }
    Ok(())
}
