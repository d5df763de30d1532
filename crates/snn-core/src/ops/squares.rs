//! The sum of squares of a tensor: what the norm of a gradient is made of.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use rayon::prelude::*;

/// Numbers that are summed by themselves, whatever the number of threads.
const PIECE: usize = 1 << 14;
/// Sums that go side by side within a piece.
const LANES: usize = 8;

/// Sums the squares of all elements in f64, in one pass where they are f32 that lie in a row on the CPU.
///
/// # Errors
/// Returns an error only if a tensor operation fails.
pub(crate) fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    let (storage, layout) = xs.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(all)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        let pieces: Vec<f64> = all[from..to].par_chunks(PIECE).map(of_piece).collect();
        return Ok(pieces.iter().sum());
    }
    drop(storage);
    sum_of_squares_reference(xs)
}

/// The twin of [`sum_of_squares`], made of Candle's own operations. It runs on any device.
fn sum_of_squares_reference(xs: &Tensor) -> Result<f64> {
    // Metal has no f64.
    let dtype = if xs.device().is_metal() { DType::F32 } else { DType::F64 };
    xs.to_dtype(dtype)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()
}

fn of_piece(xs: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let rows = xs.chunks_exact(LANES);
    let rest: f64 = rows.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for row in rows {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::Seed;

    #[test]
    fn agrees_with_its_twin() -> Result<()> {
        for count in [0, 1, LANES, 1000, PIECE, 3 * PIECE + 17] {
            let xs = Seed(1).normal("xs", count, (0.5, 2.), DType::F32, &Device::Cpu)?;
            let (got, wanted) = (sum_of_squares(&xs)?, sum_of_squares_reference(&xs)?);
            assert!((got - wanted).abs() <= 1e-12 * wanted, "{count}: {got} {wanted}");
        }
        // Views, and other types.
        let xs = Seed(2).normal("xs", (30, 40), (0., 1.), DType::F32, &Device::Cpu)?;
        let wanted = sum_of_squares_reference(&xs)?;
        for same in [xs.t()?, xs.narrow(0, 0, 30)?, xs.to_dtype(DType::F64)?] {
            assert!((sum_of_squares(&same)? - wanted).abs() <= 1e-12 * wanted);
        }
        let (half, rest) = (sum_of_squares(&xs.narrow(0, 0, 15)?)?, sum_of_squares(&xs.narrow(0, 15, 15)?)?);
        assert!((half + rest - wanted).abs() <= 1e-12 * wanted);
        Ok(())
    }

    /// The squares leave the range of their own type, the sum does not.
    #[test]
    fn large_and_small_numbers_have_squares() -> Result<()> {
        for (x, dtype) in [(1e20, DType::F32), (1e-30, DType::F32), (300., DType::F16), (1e-4, DType::F16)] {
            let xs = Tensor::full(x, 4, &Device::Cpu)?.to_dtype(dtype)?;
            let x: f64 = xs.to_dtype(DType::F64)?.get(0)?.to_scalar()?;
            assert!((sum_of_squares(&xs)? / (4. * x * x) - 1.).abs() < 1e-12, "{x}");
        }
        assert!(sum_of_squares(&Tensor::new(&[1., f32::NAN], &Device::Cpu)?)?.is_nan());
        Ok(())
    }
}
