//! The sum of squares of a tensor: what the norm of a gradient is made of.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};
use rayon::prelude::*;

/// Numbers that are summed by themselves, whatever the number of threads.
const PIECE: usize = 1 << 14;
/// Sums that go side by side within a piece.
const LANES: usize = 8;

/// Sums the squares of all elements of all these tensors in f64, in one pass over those that are f32 and lie in a row on the CPU. What is
/// elsewhere is summed there, and read in one go.
///
/// # Errors
/// Returns an error if the tensors that are not on the CPU are on several devices, or if a tensor operation fails.
pub(crate) fn sum_of_squares<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let (mut sum, mut others) = (0., Vec::new());
    for xs in tensors {
        match in_one_pass(xs) {
            Some(squares) => sum += squares,
            None => others.push(sum_of_squares_reference(xs)?),
        }
    }
    if !others.is_empty() {
        let squares: Vec<f64> =
            Tensor::stack(&others, 0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?;
        sum += squares.iter().sum::<f64>();
    }
    Ok(sum)
}

fn in_one_pass(xs: &Tensor) -> Option<f64> {
    let (storage, layout) = xs.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(all)), Some((from, to))) = (&*storage, layout.contiguous_offsets())
    else {
        return None;
    };
    let pieces: Vec<f64> = all[from..to].par_chunks(PIECE).map(of_piece).collect();
    Some(pieces.iter().sum())
}

/// The twin of [`sum_of_squares`] for one tensor, made of Candle's own operations, on its device.
fn sum_of_squares_reference(xs: &Tensor) -> Result<Tensor> {
    // Metal has no f64.
    let dtype = if xs.device().is_metal() { DType::F32 } else { DType::F64 };
    let squares = xs.to_dtype(dtype)?.sqr()?;
    // Row by row, and then the rows: on a GPU Candle sums all numbers of a row, and of a whole tensor, in one block of threads.
    if squares.rank() < 2 || squares.elem_count() == 0 {
        squares.sum_all()
    } else {
        squares.flatten_from(1)?.sum(1)?.sum_all()
    }
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
    use super::*;
    use crate::Seed;

    fn twin(xs: &Tensor) -> Result<f64> {
        sum_of_squares_reference(xs)?.to_scalar()
    }

    #[test]
    fn agrees_with_its_twin() -> Result<()> {
        for count in [0, 1, LANES, 1000, PIECE, 3 * PIECE + 17] {
            let xs = Seed(1).normal("xs", count, (0.5, 2.), DType::F32, &Device::Cpu)?;
            let (got, wanted) = (sum_of_squares([&xs])?, twin(&xs)?);
            assert!((got - wanted).abs() <= 1e-12 * wanted, "{count}: {got} {wanted}");
        }
        // Views, and other types.
        let xs = Seed(2).normal("xs", (30, 40), (0., 1.), DType::F32, &Device::Cpu)?;
        let wanted = twin(&xs)?;
        for same in [xs.t()?, xs.narrow(0, 0, 30)?, xs.to_dtype(DType::F64)?] {
            assert!((sum_of_squares([&same])? - wanted).abs() <= 1e-12 * wanted);
        }
        let (first, rest) = (xs.narrow(0, 0, 15)?, xs.narrow(0, 15, 15)?.to_dtype(DType::F64)?);
        for parts in [[&first, &rest], [&rest, &first]] {
            assert!((sum_of_squares(parts)? - wanted).abs() <= 1e-12 * wanted);
        }
        assert_eq!(sum_of_squares([])?, 0.);
        Ok(())
    }

    /// The squares leave the range of their own type, the sum does not.
    #[test]
    fn large_and_small_numbers_have_squares() -> Result<()> {
        for (x, dtype) in [(1e20, DType::F32), (1e-30, DType::F32), (300., DType::F16), (1e-4, DType::F16)] {
            let xs = Tensor::full(x, 4, &Device::Cpu)?.to_dtype(dtype)?;
            let x: f64 = xs.to_dtype(DType::F64)?.get(0)?.to_scalar()?;
            assert!((sum_of_squares([&xs])? / (4. * x * x) - 1.).abs() < 1e-12, "{x}");
        }
        assert!(sum_of_squares([&Tensor::new(&[1., f32::NAN], &Device::Cpu)?])?.is_nan());
        Ok(())
    }
}
