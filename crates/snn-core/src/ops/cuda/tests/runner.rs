//! The host runner itself: what it computes, and that the sanitizers see through it.

use candle_core::{DType, Result};

use super::host::{self, bytes, sanitizer, tensor};
use crate::ops::cuda::launch::{Argument, Launch, warp_scratch};
use crate::ops::testing::{assert_relative, random};

fn launch(kernel: &str, grid: u32, block: u32, shared: usize, out: usize) -> Launch {
    let arguments = vec![Argument::Operand { name: "out", bytes: 8 * out }];
    Launch {
        file: "ops/cuda/host/self_test.cu",
        kernel: kernel.into(),
        grid,
        block,
        shared: shared as u32,
        arguments,
    }
}

#[test]
fn barriers_shuffles_and_atomics_sum() -> Result<()> {
    for (elements, grid, block) in [(1, 1, 32), (1000, 3, 64), (777, 5, 128)] {
        let xs = random("xs", &[elements], DType::F64)?;
        let mut sum = launch("self_sum", grid, block, warp_scratch(block as usize), elements);
        sum = sum.operand("sum", 1, DType::F64).count(elements);
        let Some(left) = host::run(&[(sum, vec![bytes::<f64>(&xs), vec![0; 8]])]) else { return Ok(()) };
        assert_relative("sum", &tensor::<f64>(&left[0][1], &[])?, &xs.sum_all()?, 1e-13);
    }
    Ok(())
}

#[test]
fn launches_that_do_not_fit_their_kernel_are_named() {
    let wrong = [launch("no_such_kernel", 1, 32, 0, 1), launch("self_sum", 1, 32, 0, 1)];
    for (launch, part) in wrong.into_iter().zip(["no such kernel", "another number of arguments"]) {
        let Some(complaint) = host::complaint(launch, vec![vec![0; 8]]) else { return };
        assert!(complaint.contains(part), "{complaint}");
    }
}

/// A missing barrier, two blocks at one number, and writes behind the end must not pass.
#[test]
fn sanitizers_find_what_is_wrong() {
    let (launches, what) = match sanitizer().as_deref() {
        Some("thread") => (
            [launch("self_race", 1, 64, 64 * 8, 64), launch("self_race_of_blocks", 2, 32, 0, 32)],
            "ThreadSanitizer: data race",
        ),
        Some("address") => (
            [launch("self_overrun", 1, 64, 64 * 8, 64), launch("self_overrun_of_operand", 1, 32, 0, 32)],
            "AddressSanitizer: heap-buffer-overflow",
        ),
        _ => return eprintln!("skipped: no sanitizer in SNN_CORE_CUDA_SANITIZER"),
    };
    for launch in launches {
        let Argument::Operand { bytes, .. } = launch.arguments[0] else { unreachable!() };
        let Some(complaint) = host::complaint(launch, vec![vec![0; bytes]]) else { return };
        assert!(complaint.contains(what), "{complaint}");
    }
}
