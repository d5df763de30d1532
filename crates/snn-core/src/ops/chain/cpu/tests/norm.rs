use candle_core::Var;

use super::super::neuron::{Affine, Sums as GradientSums};
use super::super::norm::Moments;
use super::*;
use crate::batch_norm_reference;
use crate::ops::testing::{assert_relative, flat};

const EPS: f64 = 1e-5;

/// Rows of channels around `centre`, each channel with a spread of its own.
fn rows(channels: usize, len: usize, centre: f32) -> Vec<f32> {
    let (values, spread) = (normal(1, "values", len * channels), normal(2, "spread", channels));
    values.iter().enumerate().map(|(i, v)| centre + v * (0.1 + spread[i % channels].abs())).collect()
}

/// Mean and biased variance by channel in two passes.
fn two_passes(rows: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (rows.len() / channels) as f64;
    let column = |c: usize| rows[c..].iter().step_by(channels).map(|&x| f64::from(x));
    let mean: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / n).collect();
    let square = |c: usize| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / n;
    (mean.clone(), (0..channels).map(square).collect())
}

fn close(what: &str, got: &[f64], wanted: &[f64], bound: f64) {
    assert_eq!(got.len(), wanted.len());
    for (c, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= bound * w.abs(), "{what}, channel {c}: {g} and {w}");
    }
}

#[test]
fn moments_equal_two_passes() {
    for channels in [1, 3, 17, 130] {
        for centre in [0.5, -4096., 1e6] {
            for lengths in [&[1][..], &[2], &[50], &[1, 1], &[3, 1, 40], &[7, 7, 7, 7]] {
                let all = rows(channels, lengths.iter().sum(), centre);
                let mut rest = &all[..];
                let parts = lengths.iter().map(|len| {
                    let (part, behind) = rest.split_at(len * channels);
                    rest = behind;
                    Moments::of(part, channels)
                });
                let total = parts.reduce(|a, b| a.merge(&b)).expect("a part");
                let got = Statistics::new(&total);
                let (mean, variance) = two_passes(&all, channels);
                let what = format!("{channels} channels around {centre}, {lengths:?}");
                assert_eq!(got.count, lengths.iter().sum::<usize>() as f64, "{what}");
                close(&format!("{what}: mean"), &got.mean, &mean, 1e-12);
                close(&format!("{what}: variance"), &got.variance, &variance, 1e-9);
            }
        }
    }
}

#[test]
fn constant_channels_have_no_variance() {
    let rows = [4096.3f32, -0.1].repeat(50);
    let part = || Moments::of(&rows, 2);
    let statistics = Statistics::new(&part().merge(&part()));
    assert_eq!(statistics.variance, [0., 0.]);
    assert_eq!(statistics.mean, [f64::from(4096.3f32), f64::from(-0.1f32)]);
    // They become their bias, without rounding.
    let Affine { centre, scale, shift, .. } = statistics.affine(&[1.5, 0.3], &[0.7, -2.], EPS);
    let ys: Vec<f32> = (0..2).map(|c| scale[c] * (rows[c] - centre[c]) + shift[c]).collect();
    assert_eq!(ys, [0.7, -2.]);
}

/// The affine map and both gradients, of currents `[rows, channels]`, against the reference in f64.
#[test]
fn coefficients_are_batch_norms() -> Result<()> {
    for (channels, len, centre) in
        [(1, 9, 0.), (3, 40, 2.), (17, 33, -5.), (130, 12, 0.5), (3, 40, 1e4), (17, 33, -1e6)]
    {
        let what = format!("{channels} channels, {len} rows around {centre}");
        let (values, grads) = (rows(channels, len, centre), normal(3, "grads", len * channels));
        let [weight, bias] = ["weight", "bias"].map(|label| normal(4, label, channels));
        let var = |values: &[f32], shape: &[usize]| {
            Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(DType::F64)?)
        };
        let vars = [var(&values, &[len, channels])?, var(&weight, &[channels])?, var(&bias, &[channels])?];
        let wanted = batch_norm_reference(&vars[0], &vars[1], &vars[2], EPS)?.ys;
        let upstream = var(&grads, &[len, channels])?.as_detached_tensor();
        let store = (&wanted * upstream)?.sum_all()?.backward()?;

        let statistics = Statistics::new(&Moments::of(&values, channels));
        let affine = statistics.affine(&weight, &bias, EPS);
        let like = |values: Vec<f32>| Tensor::from_vec(values, (len, channels), &Device::Cpu);
        let ys = values.iter().enumerate().map(|(i, y)| {
            let c = i % channels;
            affine.scale[c] * (y - affine.centre[c]) + affine.shift[c]
        });
        assert_relative(&format!("{what}: y"), &like(ys.collect())?, &wanted, 1e-5);

        let mut sums = GradientSums::zeros(channels);
        for (i, (g, y)) in grads.iter().zip(&values).enumerate() {
            let c = i % channels;
            sums.grad[c] += f64::from(*g);
            sums.grad_current[c] += f64::from(*g) * f64::from(*y - affine.centre[c]);
        }
        let gradient = |i: usize| store.get(&vars[i]).expect("a gradient");
        let got = Tensor::from_vec(statistics.weight_gradient(&sums, EPS), channels, &Device::Cpu)?;
        assert_relative(&format!("{what}: gradient of the weight"), &got, gradient(1), 1e-6);
        let mut got = grads.clone();
        statistics.gradient(&weight, &sums, EPS).apply_in_place(&mut got, &values);
        assert_relative(&format!("{what}: gradient of the input"), &like(got)?, gradient(0), 1e-5);
        // Batch norm takes away what moves all elements alike.
        let total = flat(&gradient(0).sum(0)?)?.iter().fold(0f64, |a, g| a.max(g.abs()));
        assert!(total < 1e-9, "{what}: {total}");
    }
    Ok(())
}
