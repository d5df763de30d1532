//! Hand-picked stacks: every kind of layer, geometry, drive and finish.

use super::*;
use crate::Surrogate;

fn conv(kernel: usize, stride: usize, padding: usize) -> Synapse {
    Conv(ConvConfig::new(kernel, stride, padding))
}

fn transposed(kernel: usize, stride: usize, padding: usize, output_padding: usize) -> Synapse {
    Transposed(ConvConfig::new(kernel, stride, padding).with_output_padding(output_padding))
}

fn case(
    layers: &[(Synapse, usize)],
    map: &[usize],
    (time_steps, batch): (usize, usize),
    values: Values,
) -> Case {
    Case { layers: layers.to_vec(), map: map.to_vec(), time_steps, batch, values, ..Case::default() }
}

/// In training and evaluation, spikes and their sum; gradients that all come of something.
fn check_all(what: &str, case: &Case) -> Result<()> {
    for train in [true, false] {
        for finish in
            [Finish::Spikes, Finish::Sums(&[Readout::Psp { tau: 3. }]), Finish::Sums(&[Readout::Mean])]
        {
            let what = format!("{what}, train = {train}, {finish:?}");
            let case = Case { finish, train, ..case.clone() };
            let got = check(&what, &case)?;
            let rate = firing_rate(&got["output"])?;
            assert!(finish != Finish::Spikes || (0.02..0.7).contains(&rate), "{what}: fires at {rate}");
            for (name, tensor) in &got {
                // Batch norm takes the synapse's bias away again.
                let layer = name.split('.').next().and_then(|i| i.parse().ok()).unwrap_or(0);
                let normalised = case.config(layer).norm != Norm::None;
                let nothing = train && normalised && name.ends_with(".bias") && !name.contains("bn");
                let size = flat(tensor)?.iter().map(|x| x * x).sum::<f64>().sqrt();
                assert_eq!(size < 1e-6, nothing, "{what}: {name} has size {size:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn one_convolution() -> Result<()> {
    check_all("3x3", &case(&[(conv(3, 1, 1), 33)], &[3, 7, 7], (2, 9), Values::Binary(0.1)))?;
    check_all("3x3, stride 2", &case(&[(conv(3, 2, 1), 17)], &[4, 9, 7], (5, 2), Values::Binary(0.2)))?;
    check_all("5x5, stride 3", &case(&[(conv(5, 3, 2), 65)], &[17, 5, 8], (1, 9), Values::Binary(0.1)))?;
    check_all("4x4, one item, one step", &case(&[(conv(4, 2, 1), 5)], &[3, 9, 8], (1, 1), Values::Normal))?;
    // As many positions in as out, and yet not the same ones.
    check_all("1x1, stride 2, padding 1", &case(&[(conv(1, 2, 1), 6)], &[8, 3, 3], (5, 9), Values::Normal))
}

#[test]
fn one_transposed_convolution() -> Result<()> {
    let layer = |synapse, to| [(synapse, to)];
    check_all("3x3", &case(&layer(transposed(3, 2, 1, 1), 17), &[5, 4, 3], (5, 2), Values::Binary(0.2)))?;
    check_all("5x5", &case(&layer(transposed(5, 3, 2, 2), 65), &[3, 4, 3], (2, 9), Values::Binary(0.1)))?;
    check_all("4x4", &case(&layer(transposed(4, 2, 1, 0), 3), &[33, 4, 4], (2, 2), Values::Normal))?;
    check_all("2x2", &case(&layer(transposed(2, 2, 0, 1), 4), &[6, 3, 2], (2, 1), Values::Binary(0.5)))
}

#[test]
fn linear_layers() -> Result<()> {
    check_all("one", &case(&[(Linear, 30)], &[40], (5, 9), Values::Binary(0.2)))?;
    let three = [(Linear, 33), (Linear, 130), (Linear, 7)];
    check_all("three", &case(&three, &[40], (5, 9), Values::Binary(0.3)))?;
    check_all("three, numbers", &case(&three, &[20], (2, 9), Values::Normal))?;
    let constant = Case { constant: true, ..case(&three, &[20], (5, 9), Values::Normal) };
    check_all("three, constant", &constant)
}

#[test]
fn linear_layers_behind_maps() -> Result<()> {
    let classifier = [(conv(3, 2, 1), 17), (conv(3, 1, 1), 18), (Linear, 70), (Linear, 5)];
    check_all("spikes", &case(&classifier, &[3, 8, 7], (5, 2), Values::Binary(0.3)))?;
    let constant = Case { constant: true, ..case(&classifier, &[1, 9, 9], (4, 9), Values::Normal) };
    check_all("constant", &constant)?;
    check_all("at once", &case(&[(Linear, 30), (Linear, 4)], &[3, 4, 5], (5, 9), Values::Binary(0.3)))
}

/// As one chain, and as two with a tensor between them.
#[test]
fn a_flattening_changes_no_number() -> Result<()> {
    let layers = [(conv(3, 2, 1), 17), (conv(3, 2, 1), 33), (Linear, 70), (Linear, 5)];
    for (train, finish) in
        [(true, Finish::Spikes), (true, Finish::Sums(&[Readout::Mean])), (false, Finish::Spikes)]
    {
        let case = Case { train, finish, ..case(&layers, &[2, 9, 13], (3, 9), Values::Binary(0.3)) };
        let (model, xs) = case.draw()?;
        let in_two: Run = |layers, drive, finish, train| {
            let spikes = run_chain(&layers[..2], drive, Finish::Spikes, train)?.flatten_from(2)?;
            run_chain(&layers[2..], Drive::Spikes(&spikes), finish, train)
        };
        let wanted = outcome(&case, &model.copy(&case, DType::F32)?, &xs, in_two)?;
        for (name, got) in chain_outcome(&case, &model, &xs)? {
            assert_eq!(flat(&got)?, flat(&wanted[&name])?, "train = {train}, {finish:?}: {name}");
        }
    }
    Ok(())
}

#[test]
fn direct_encoding() -> Result<()> {
    let constant = |layers: &[_], map: &[usize], sizes| Case {
        constant: true,
        ..case(layers, map, sizes, Values::Normal)
    };
    check_all("one", &constant(&[(conv(3, 2, 1), 17)], &[1, 9, 7], (5, 2)))?;
    check_all("one step", &constant(&[(conv(3, 2, 1), 17)], &[1, 9, 7], (1, 9)))?;
    let encoder = [(conv(3, 2, 1), 32), (conv(3, 2, 1), 64), (conv(1, 1, 0), 16)];
    check_all("three", &constant(&encoder, &[1, 13, 11], (4, 2)))?;
    let binary = Case { values: Values::Binary(0.4), ..constant(&encoder[..2], &[2, 8, 8], (3, 2)) };
    check_all("ones and zeros", &binary)
}

#[test]
fn several_layers() -> Result<()> {
    // Both input gradients go through Winograd's filtering.
    let same = [(conv(3, 1, 1), 33), (conv(3, 1, 1), 16)];
    check_all("3x3 twice", &case(&same, &[17, 8, 8], (5, 2), Values::Binary(0.2)))?;
    let wide = [(conv(3, 1, 1), 130)];
    check_all("wide", &case(&wide, &[65, 7, 7], (2, 2), Values::Binary(0.1)))?;
    let hourglass =
        [(conv(3, 2, 1), 17), (conv(1, 1, 0), 20), (transposed(3, 2, 1, 1), 16), (transposed(4, 2, 1, 0), 3)];
    check_all("hourglass", &case(&hourglass, &[2, 7, 6], (5, 1), Values::Normal))?;
    let mixed = [(conv(2, 1, 1), 18), (conv(4, 2, 1), 17), (conv(3, 1, 1), 16), (conv(3, 1, 1), 17)];
    check_all("mixed", &case(&mixed, &[3, 6, 9], (4, 2), Values::Binary(0.3)))
}

#[test]
fn other_neurons() -> Result<()> {
    let base = LifConfig::default();
    for lif in [
        LifConfig { tau: Some(3.5), decay_input: false, v_reset: Reset::Soft, ..base },
        LifConfig { v_reset: Reset::Hard(-0.25), surrogate: Surrogate::Sigmoid { alpha: 4. }, ..base },
        LifConfig { detach_reset: true, surrogate: Surrogate::Triangle { width: 0.8 }, ..base },
        LifConfig { v_reset: Reset::Soft, v_threshold: 0.7, ..LifConfig::integrate_and_fire() },
    ] {
        let layers = [(conv(3, 1, 1), 16), (conv(3, 2, 1), 5)];
        let case = case(&layers, &[16, 5, 6], (5, 2), Values::Binary(0.2));
        check_all(&format!("{lif:?}"), &Case { lif, ..case })?;
    }
    Ok(())
}

#[test]
fn f32_on_the_cpu_runs_as_a_chain_and_f64_as_the_twin() -> Result<()> {
    for train in [true, false] {
        let layers = [(conv(3, 1, 1), 16), (conv(3, 2, 1), 5)];
        let case = Case { train, ..case(&layers, &[16, 5, 6], (5, 2), Values::Binary(0.2)) };
        let (model, xs) = case.draw()?;
        let on = |dtype, run: Run| outcome(&case, &model.copy(&case, dtype)?, &xs.to_dtype(dtype)?, run);
        let same = |a: &Outcome, b: &Outcome| -> Result<bool> {
            a.keys().try_fold(true, |same, name| Ok(same && flat(&a[name])? == flat(&b[name])?))
        };
        assert!(same(&on(DType::F32, run)?, &on(DType::F32, run_chain)?)?);
        assert!(same(&on(DType::F64, run)?, &on(DType::F64, run_reference)?)?);
        // Rounding tells the two apart; if nothing did, the lines above would prove nothing.
        assert!(!same(&on(DType::F32, run_chain)?, &on(DType::F32, run_reference)?)?);
    }
    Ok(())
}

#[test]
fn layers_without_a_norm() -> Result<()> {
    let layers = [(conv(3, 1, 1), 16), (conv(3, 2, 1), 5), (transposed(3, 2, 1, 1), 4)];
    let lif = LifConfig { v_threshold: 0.3, ..LifConfig::default() };
    let (with, without) = (LayerConfig::from(lif), LayerConfig::from(lif).with_norm(Norm::None));
    for mixture in [vec![without; 3], vec![without, with, without], vec![with, without, with]] {
        for constant in [false, true] {
            let case = case(&layers, &[16, 5, 6], (5, 2), Values::Binary(0.4));
            check_all(&format!("{mixture:?}"), &Case { mixture: mixture.clone(), constant, ..case })?;
        }
    }
    let linear = case(&[(Linear, 33), (Linear, 7)], &[40], (5, 9), Values::Normal);
    check_all("linear", &Case { mixture: vec![without; 2], ..linear })
}

#[test]
fn parametric_neurons() -> Result<()> {
    let base = LifConfig::default();
    let learned = |lif: LifConfig| LayerConfig::from(lif).with_learned_tau();
    let mixture = vec![
        learned(LifConfig { decay_input: false, v_reset: Reset::Hard(-0.25), ..base }),
        base.into(),
        learned(LifConfig { v_reset: Reset::Soft, surrogate: Surrogate::Gaussian { sigma: 0.5 }, ..base }),
        learned(LifConfig { v_threshold: 0.6, ..base }).with_norm(Norm::None),
    ];
    let layers = [(conv(3, 1, 1), 16), (conv(3, 2, 1), 5), (conv(1, 1, 0), 33), (transposed(3, 2, 1, 1), 4)];
    for constant in [false, true] {
        let case = case(&layers, &[16, 5, 6], (5, 2), Values::Binary(0.3));
        check_all("mixture", &Case { mixture: mixture.clone(), constant, ..case })?;
    }
    // More neurons than a chunk has.
    let wide = case(&[(Linear, 700), (Linear, 7)], &[20], (4, 9), Values::Normal);
    check_all("wide", &Case { mixture: vec![learned(base); 2], ..wide })
}
