//! The nearest code, the same as the CPU's, and what is left to the twin.

use candle_core::{Device, Result, Tensor};

use super::host::{self, bytes};
use crate::nearest;
use crate::ops::Real;
use crate::ops::cuda::launch::Launch;
use crate::ops::nearest::cuda::nearest as launch;
use crate::ops::testing::random;

/// Codes, and how many threads met what is odd.
fn found<F: Real>(z: &Tensor, codes: &Tensor, grid: u32) -> Result<Option<(Vec<u32>, u32)>> {
    let launch = launch::<F>(z.layout(), codes.layout())?;
    let (vectors, grid) = (z.elem_count() / z.dim(1)?, launch.grid.min(grid));
    let operands = vec![bytes::<F>(z), bytes::<F>(codes), vec![0xff; 4 * vectors], vec![0; 4]];
    let left = host::run(&[(Launch { grid, ..launch }, operands)]);
    Ok(left.map(|left| {
        let numbers =
            |bytes: &[u8]| bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        let (found, odd): (Vec<_>, Vec<_>) = (numbers(&left[0][2]), numbers(&left[0][3]));
        (found, odd[0])
    }))
}

fn check<F: Real>() -> Result<()> {
    for (i, (shape, number)) in
        [([1, 1, 1, 1], 1), ([3, 16, 7, 7], 128), ([2, 5, 3, 9], 33), ([5, 128, 4, 4], 20)]
            .into_iter()
            .enumerate()
    {
        let z = random(&format!("z {i}"), &shape, F::DTYPE)?;
        // Some codes twice: the first one counts.
        let codes = random(&format!("codes {i}"), &[number, shape[1]], F::DTYPE)?;
        let codes = Tensor::cat(&[&codes, &codes], 0)?;
        let wanted: Vec<u32> = nearest(&z, &codes)?.flatten_all()?.to_vec1()?;
        for grid in [u32::MAX, 1] {
            let Some((got, odd)) = found::<F>(&z, &codes, grid)? else { return Ok(()) };
            assert!(odd == 0 && got == wanted, "{shape:?}, grid {grid}");
        }
    }
    Ok(())
}

#[test]
fn codes_are_the_cpus_in_both_precisions() -> Result<()> {
    check::<f32>()?;
    check::<f64>()
}

#[test]
fn what_is_not_finite_is_left_to_the_twin() -> Result<()> {
    let z = |x: f64| Tensor::new(&[[[[0.5f64, x, 1.25]]]], &Device::Cpu);
    let codes = |x: f64| Tensor::new(&[[1f64], [x]], &Device::Cpu);
    let huge = 1e200;
    for (z, codes, strange) in [
        (z(2.)?, codes(3.)?, false),
        (z(2.)?, codes(f64::INFINITY)?, false),
        (z(f64::NAN)?, codes(3.)?, true),
        (z(f64::INFINITY)?, codes(3.)?, true),
        (z(2.)?, codes(f64::NAN)?, true),
        (z(huge)?, codes(3.)?, true),
        // Exactly a code: the square is less than any that is no rounding.
        (z(3.)?, codes(3.)?, true),
    ] {
        let Some((_, odd)) = found::<f64>(&z, &codes, u32::MAX)? else { return Ok(()) };
        assert_eq!(odd != 0, strange, "{z} {codes}");
    }
    Ok(())
}
