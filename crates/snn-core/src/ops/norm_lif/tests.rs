//! The twin, and what it refuses. The kernels are held to it in `ops/cuda/tests/norm_lif.rs`.

use candle_core::{DType, Result, Tensor};

use super::{Sequence, map_lif, norm_lif};
use crate::ops::testing::{assert_identical, random};
use crate::{LifConfig, batch_norm, direct_encode, lif};

fn sequence(steps: usize, constant: bool) -> Sequence {
    Sequence { lif: LifConfig::default(), steps, constant }
}

#[test]
fn norm_and_neurons_run_one_after_the_other() -> Result<()> {
    let (weight, bias) = (random("weight", &[3], DType::F32)?, random("bias", &[3], DType::F32)?);
    let xs = random("xs", &[8, 3, 2, 2], DType::F32)?;
    let normed = batch_norm(&xs, &weight, &bias, 1e-5)?;
    let (got, count) = norm_lif(&xs, [&weight, &bias], 1e-5, &sequence(4, false), None)?;
    let wanted = lif(&normed.ys.reshape((4, 2, 3, 2, 2))?, &LifConfig::default())?;
    assert_identical("spikes", &got.ys, &wanted);
    assert_identical("mean", &got.mean, &normed.mean);
    assert_identical("variance", &got.variance, &normed.variance);
    assert_eq!(count, 32);

    let (got, count) = norm_lif(&xs, [&weight, &bias], 1e-5, &sequence(4, true), None)?;
    let wanted = lif(&direct_encode(&normed.ys, 4)?.contiguous()?, &LifConfig::default())?;
    assert_identical("spikes under currents that stay", &got.ys, &wanted);
    assert_eq!(count, 32);
    Ok(())
}

#[test]
fn a_fixed_map_scales_and_shifts_channels() -> Result<()> {
    let xs = Tensor::new(&[[1f32, 4.], [1., -4.]], &candle_core::Device::Cpu)?; // [T N, C]
    let by = |values: [f32; 2]| Tensor::new(&values, xs.device());
    // Currents of 1.5, then 1.5, and of 3, then -1.
    let spikes = map_lif(&xs, [&by([1., 0.5])?, &by([0.5, 1.])?], &sequence(2, false))?;
    assert_eq!(spikes.to_vec3::<f32>()?, [[[0., 1.]], [[1., 0.]]]);
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() -> Result<()> {
    let (xs, by) = (random("xs", &[7, 3], DType::F32)?, random("by", &[3], DType::F32)?);
    let says = |made: Result<Tensor>, parts: &[&str]| {
        let error = made.expect_err("refused").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let norm = |sequence| Ok(norm_lif(&xs, [&by, &by], 1e-5, &sequence, None)?.0.ys);
    says(norm(sequence(2, false)), &["norm_lif", "[7, 3]", "2 time steps"]);
    says(norm(sequence(0, false)), &["norm_lif", "[7, 3]", "0 time steps"]);
    says(map_lif(&xs, [&by, &by], &sequence(2, false)), &["norm_lif", "[7, 3]", "2 time steps"]);
    let other = random("by", &[4], DType::F32)?;
    says(map_lif(&xs, [&by, &other], &sequence(7, false)), &["map_lif", "[7, 3]", "[4]"]);
    let double = by.to_dtype(DType::F64)?;
    says(map_lif(&xs, [&double, &by], &sequence(7, false)), &["map_lif", "weight is F64"]);
    let one = random("xs", &[1, 3], DType::F32)?;
    says(
        norm_lif(&one, [&by, &by], 1e-5, &sequence(1, false), None).map(|made| made.0.ys),
        &["batch_norm", "[1, 3]"],
    );
    Ok(())
}
