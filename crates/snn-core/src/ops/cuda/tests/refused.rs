//! What a launch refuses, by name.

use candle_core::{DType, Result, Tensor};

use crate::LifConfig;
use crate::ops::adamw::{self, Step};
use crate::ops::cuda::launch::Launch;
use crate::ops::lif::cuda::{Current, backward, forward};
use crate::ops::norm_lif::Sequence;
use crate::ops::norm_lif::cuda::Currents;
use crate::ops::testing::random;
use crate::ops::time::cuda::weighted_sums;

fn current(xs: &Tensor) -> Current<'_> {
    Current { layout: xs.layout(), constant: None, learned: false }
}

#[track_caller]
fn says(launch: Result<Launch>, parts: &[&str]) {
    let error = launch.map(|launch| launch.kernel).expect_err("refused").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn operands_that_do_not_lie_in_a_row() -> Result<()> {
    let (cfg, xs) = (LifConfig::default(), random("xs", &[5, 3], DType::F32)?);
    let (turned, by) =
        (xs.t()?, Step { beta1: 0.9, beta2: 0.9, eps: 1e-8, step_size: 0.1, root: 1., keep: 1. });
    says(forward::<f32>(&cfg, current(&turned)), &["lif_forward: xs", "[3, 5]", "not contiguous"]);
    says(backward::<f32>(&cfg, current(&turned), xs.layout()), &["lif_backward: xs", "not contiguous"]);
    let grad = random("grad", &[3, 5], DType::F32)?.t()?;
    says(
        backward::<f32>(&cfg, current(&xs), grad.layout()),
        &["lif_backward: grad_spikes", "not contiguous"],
    );
    says(weighted_sums::<f32>(turned.layout(), 1), &["weighted_sums: xs", "not contiguous"]);
    let moments = random("moments", &[2, 3, 5], DType::F32)?;
    let adamw = |of: [&Tensor; 3]| adamw::cuda::launch::<f32>(&[of.map(Tensor::layout)], by);
    says(adamw([&turned, &moments, &turned]), &["adamw: param"]);
    let row = turned.contiguous()?;
    says(adamw([&row, &moments, &turned]), &["adamw: grad"]);
    says(adamw([&row, &row, &row]), &["adamw: moments"]);
    says(
        adamw::cuda::launch::<f32>(&vec![[row.layout(), moments.layout(), row.layout()]; 33], by),
        &["33 parameters"],
    );
    Ok(())
}

#[test]
fn shapes_and_types_that_no_kernel_takes() -> Result<()> {
    let (cfg, xs) = (LifConfig::default(), random("xs", &[5, 3], DType::F32)?);
    let other = random("grad", &[5, 4], DType::F32)?;
    says(backward::<f32>(&cfg, current(&xs), other.layout()), &["grad_spikes", "[5, 4]", "[5, 3]"]);
    says(forward::<f32>(&cfg, current(&random("x", &[], DType::F32)?)), &["lif_forward", "scalar"]);
    says(Launch::new("lif.cu", "lif_forward", DType::BF16, 1, |_| 0), &["lif_forward", "BF16"]);
    Ok(())
}

#[test]
fn currents_that_no_batch_norm_with_neurons_takes() -> Result<()> {
    let sequence = |steps, constant| Sequence { lif: LifConfig::default(), steps, constant };
    let (two, long) = (sequence(2, false), sequence(193, true));
    let forward =
        |xs: &Tensor, sequence| Currents::new("norm_lif_forward", xs.layout(), sequence)?.forward::<f32>();
    let (xs, flat) = (random("xs", &[5, 3], DType::F32)?, random("xs", &[4], DType::F32)?);
    says(forward(&xs.t()?, &two), &["norm_lif_forward: xs", "[3, 5]", "not contiguous"]);
    says(forward(&flat, &two), &["norm_lif_forward: xs", "[4]", "no channels"]);
    says(forward(&xs, &two), &["norm_lif", "[5, 3]", "2 time steps"]);
    let xs = random("xs", &[4, 3], DType::F32)?;
    let backward = |sequence, grad: &Tensor| {
        Currents::new("norm_lif_backward", xs.layout(), sequence)?.backward::<f32>(false, grad.layout())
    };
    says(backward(&two, &xs), &["norm_lif_backward: grad_spikes", "[4, 3]", "[2, 2, 3]"]);
    let turned = random("grad", &[2, 3, 2], DType::F32)?.transpose(1, 2)?;
    says(backward(&two, &turned), &["norm_lif_backward: grad_spikes", "[2, 2, 3]", "not contiguous"]);
    let grad = random("grad", &[193, 4, 3], DType::F32)?;
    says(backward(&long, &grad), &["norm_lif_backward", "49440", "49152"]);
    Ok(())
}

/// Blocks shrink while time steps grow, until no block is small enough.
#[test]
fn more_time_steps_than_shared_memory_holds() -> Result<()> {
    let cfg = LifConfig::default();
    for (steps, block) in [(48, 128), (49, 64), (96, 64), (192, 32)] {
        let xs = random("xs", &[steps, 200], DType::F32)?;
        let launch = backward::<f32>(&cfg, current(&xs), xs.layout())?;
        assert_eq!((launch.block, launch.grid), (block, 200u32.div_ceil(block)));
        assert!(launch.shared <= 48 << 10);
    }
    let xs = random("xs", &[193, 1], DType::F32)?;
    says(backward::<f32>(&cfg, current(&xs), xs.layout()), &["lif_backward", "49408", "49152"]);
    Ok(())
}
