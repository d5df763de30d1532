//! What arrives at the first layer: from silence to all ones, numbers, a mixture, views.

use super::*;

/// Two layers whose input gradients go through Winograd's filtering, and a third that halves the map.
fn stack() -> Case {
    let (same, halve) = (ConvConfig::new(3, 1, 1), ConvConfig::new(3, 2, 1));
    Case {
        layers: vec![(Conv(same), 18), (Conv(same), 16), (Conv(halve), 7)],
        map: vec![17, 6, 5],
        batch: 3,
        ..Case::default()
    }
}

#[test]
fn any_density() -> Result<()> {
    for density in [0., 0.01, 0.1, 0.29, 0.31, 0.5, 0.99, 1.] {
        for train in [true, false] {
            let case = Case { values: Values::Binary(density), train, ..stack() };
            let got = check(&format!("density {density}, train = {train}"), &case)?;
            // Neurons are driven by their norm's bias alone where nothing arrives.
            assert!(flat(&got["input"])?.iter().any(|g| *g != 0.), "density {density}");
            let weight_gradient = flat(&got["0.conv.weight"])?;
            assert_eq!(weight_gradient.iter().all(|g| *g == 0.), density == 0., "density {density}");
        }
    }
    Ok(())
}

#[test]
fn every_item_its_own() -> Result<()> {
    const MIXED: &[Values] =
        &[Values::Binary(1.), Values::Binary(0.05), Values::Normal, Values::Binary(0.), Values::Binary(0.6)];
    for batch in [5, 19] {
        for (constant, train) in [(true, true), (true, false), (false, true), (false, false)] {
            let case =
                Case { values: Values::Items(MIXED), batch, constant, train, time_steps: 3, ..stack() };
            check(&format!("{batch} items, constant = {constant}, train = {train}"), &case)?;
        }
    }
    Ok(())
}

/// A batch is its items one by one, where nothing is normalised by the batch.
#[test]
fn items_do_not_see_each_other() -> Result<()> {
    const MIXED: &[Values] = &[Values::Binary(0.1), Values::Normal, Values::Binary(0.7)];
    let case = Case { values: Values::Items(MIXED), batch: 6, train: false, ..stack() };
    let (model, xs) = case.draw()?;
    let all = chain_outcome(&case, &model, &xs)?;
    for n in 0..6 {
        let alone = run_chain(&model.layers, Drive::Spikes(&xs.narrow(1, n, 1)?), case.finish, false)?;
        assert_identical(&format!("item {n}"), &alone, &all["output"].narrow(1, n, 1)?);
    }
    Ok(())
}

#[test]
fn views_equal_their_copies() -> Result<()> {
    for train in [true, false] {
        let case = Case { train, ..stack() };
        let (model, xs) = case.draw()?;
        // [C, W, T, N, H + 2], of which the stack gets a part, turned round.
        let wide = xs.permute((2, 4, 0, 1, 3))?.pad_with_zeros(4, 1, 1)?;
        let on = |copy: fn(Tensor) -> Result<Tensor>| {
            let (model, wide) = (model.copy(&case, DType::F32)?, Var::from_tensor(&wide)?);
            let view = copy(wide.narrow(4, 1, 6)?.permute((2, 3, 0, 4, 1))?)?;
            let ys = copy(run_chain(&model.layers, Drive::Spikes(&view), case.finish, train)?.t()?)?;
            let upstream = Seed(9).normal("upstream", ys.shape(), (0., 1.), DType::F32, &Device::Cpu)?;
            let grads = (&ys * upstream)?.sum_all()?.backward()?;
            let mut all = model.store.gradients(&grads)?;
            all.insert("output".into(), ys.detach());
            all.insert("input".into(), grads.get(&wide).cloned().map_or_else(|| wide.zeros_like(), Ok)?);
            Ok::<_, candle_core::Error>(all)
        };
        let (view, copy) = (on(Ok)?, on(|t| t.force_contiguous())?);
        assert_identical(
            "output",
            &view["output"],
            &run_chain(&model.layers, Drive::Spikes(&xs), case.finish, train)?.t()?,
        );
        assert!(flat(&view["input"])?.iter().any(|g| *g != 0.));
        for (name, wanted) in &copy {
            assert_identical(name, &view[name], wanted);
        }
    }
    Ok(())
}

/// Batch norm of a single element, constant in time, is its bias, whatever the element: nothing in front of it has a
/// gradient.
#[test]
fn a_single_element_has_no_statistics() -> Result<()> {
    let case = Case {
        layers: vec![(Linear, 6)],
        map: vec![5],
        batch: 1,
        time_steps: 2,
        constant: true,
        values: Values::Normal,
        ..Case::default()
    };
    let (model, xs) = case.draw()?;
    let got = chain_outcome(&case, &model, &xs)?;
    let wanted = twin_outcome(&case, &model, &xs, DType::F64)?;
    for name in ["output", "0.bn.bias", "0.bn.running_mean", "0.bn.running_var"] {
        assert_relative(name, &got[name], &wanted[name], STATISTICS_BOUND);
    }
    assert!(flat(&got["0.bn.bias"])?.iter().all(|g| *g != 0.));
    for name in ["input", "0.linear.weight", "0.bn.weight"] {
        // Of two terms of size 1 / sqrt(eps) = 316 that cancel.
        assert!(flat(&got[name])?.iter().all(|g| g.abs() < 316. * 1e-6), "{name}: {}", got[name]);
    }
    Ok(())
}

/// Channels beyond what a list of events can count.
#[test]
fn very_many_channels() -> Result<()> {
    for (from, hidden) in [(70_000, 2), (3, 70_000)] {
        let case = Case {
            layers: vec![(Linear, hidden), (Linear, 5)],
            map: vec![from],
            time_steps: 2,
            values: Values::Binary(0.2),
            train: false,
            ..Case::default()
        };
        // Too many neurons to keep all clear of the threshold: their sum over the hidden layer hardly notices one.
        let (model, xs) = (Model::new(&case, 0)?, case.input(0)?);
        let got = outcome(&case, &model.copy(&case, DType::F32)?, &xs, run)?;
        let wanted = twin_outcome(&case, &model, &xs, DType::F64)?;
        assert_identical(&format!("{from} channels to {hidden}"), &got["output"], &wanted["output"]);
        assert_relative("gradient", &got["0.linear.weight"], &wanted["0.linear.weight"], GRADIENT_BOUND);
    }
    Ok(())
}
