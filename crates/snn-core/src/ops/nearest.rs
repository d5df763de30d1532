//! The nearest of some vectors, for every position of a map (vector quantisation).

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Matrix, matmul};
use super::{Real, by_dtype, operand};

/// `argmin_k |z - codes[k]|`, the first of equals; without gradient (paper Eq. 7).
///
/// # Shapes
/// `z: [N, C, H, W]`, `codes: [K, C]` -> u32 `[N, H, W]`. The choice for one item does not depend on the others.
/// # Errors
/// Shapes or element types that do not fit, no codes.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let z = Tensor::new(&[0.9f32, 0.1], &Device::Cpu)?.reshape((2, 1, 1, 1))?; // two vectors of one channel
/// let codes = Tensor::new(&[[0f32], [1.]], &Device::Cpu)?;
/// assert_eq!(snn_core::nearest(&z, &codes)?.flatten_all()?.to_vec1::<u32>()?, [1, 0]);
/// # Ok(()) }
/// ```
pub fn nearest(z: &Tensor, codes: &Tensor) -> Result<Tensor> {
    let ((_, c, _, _), (k, width)) = (z.dims4()?, codes.dims2()?);
    if width != c || k == 0 || z.dtype() != codes.dtype() {
        bail!("nearest: {:?} of {:?}, {:?} of {:?}", z.dims(), z.dtype(), codes.dims(), codes.dtype())
    }
    if !z.device().is_cpu() || z.elem_count() == 0 {
        return nearest_reference(z, codes);
    }
    z.detach().contiguous()?.apply_op2_no_bwd(&codes.detach().contiguous()?, &Nearest)
}

/// The twin of [`nearest`], with Candle's own operations. Any device.
///
/// # Shapes
/// As [`nearest`].
/// # Errors
/// As [`nearest`].
pub fn nearest_reference(z: &Tensor, codes: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = z.dims4()?;
    let z = z.detach().permute((0, 2, 3, 1))?.reshape((n * h * w, c))?;
    let codes = codes.detach();
    // |z - z_k|^2 without |z|^2, which is the same for every k.
    let squares = codes.sqr()?.sum(1)?;
    let distances = (z.matmul(&codes.t()?)? * -2.)?.broadcast_add(&squares)?;
    distances.argmin(D::Minus1)?.reshape((n, h, w))
}

struct Nearest;

impl CustomOp2 for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ([n, c, h, w], k) = (l1.shape().dims4().map(|(n, c, h, w)| [n, c, h, w])?, l2.dims()[0]);
        let mut found = vec![0u32; n * h * w];
        by_dtype!(s1, "nearest", F => {
            find::<F>(operand(s1, l1)?, operand(s2, l2)?, (c, h * w, k), &mut found)
        });
        Ok((CpuStorage::U32(found), (n, h, w).into()))
    }
}

/// `z: [N, c, positions]`, `codes: [k, c]` -> `found: [N, positions]`.
fn find<F: Real>(z: &[F], codes: &[F], (c, positions, k): (usize, usize, usize), found: &mut [u32]) {
    let zero = F::from_f64(0.);
    let square = |code: &[F]| code.iter().fold(zero, |sum, &x| sum + x * x);
    let squares: Vec<F> = codes.chunks_exact(c).map(square).collect();
    let items = found.par_chunks_mut(positions).zip(z.par_chunks(c * positions));
    items.for_each_init(
        || vec![zero; positions * k],
        |products, (found, z)| {
            // A row a position, which the map holds as columns.
            let rows = Matrix::row_major(z, c, positions).transposed();
            matmul(products, rows, Matrix::row_major(codes, k, c).transposed(), false);
            for (found, products) in found.iter_mut().zip(products.chunks_exact(k)) {
                *found = smallest(&squares, products) as u32;
            }
        },
    );
}

/// The first of the smallest `squares[k] - 2 products[k]`: `|z - z_k|^2` without `|z|^2`.
fn smallest<F: Real>(squares: &[F], products: &[F]) -> usize {
    let two = F::from_f64(2.);
    let mut best = (0, squares[0] - two * products[0]);
    for (k, (&square, &product)) in squares.iter().zip(products).enumerate() {
        let distance = square - two * product;
        if distance < best.1 {
            best = (k, distance);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops::testing::{check_threads, flat, random};

    #[test]
    fn agrees_with_its_twin() -> Result<()> {
        for (n, c, (h, w), k) in [(3, 8, (7, 7), 128), (1, 1, (1, 1), 1), (5, 17, (2, 3), 9)] {
            let (z, codes) = (random("z", &[n, c, h, w], DType::F64)?, random("codes", &[k, c], DType::F64)?);
            let (fast, slow) = (nearest(&z, &codes)?, nearest_reference(&z, &codes)?);
            assert_eq!(fast.dims(), [n, h, w]);
            assert_eq!(flat(&fast)?, flat(&slow)?);
            let single = nearest(&z.to_dtype(DType::F32)?, &codes.to_dtype(DType::F32)?)?;
            assert_eq!(flat(&single)?, flat(&slow)?);
        }
        Ok(())
    }

    #[test]
    fn views_and_single_items_give_the_same() -> Result<()> {
        let (z, codes) =
            (random("z", &[4, 5, 3, 2], DType::F32)?.transpose(2, 3)?, random("k", &[11, 5], DType::F32)?);
        let all = flat(&nearest(&z, &codes)?)?;
        let one = (0..4).map(|n| flat(&nearest(&z.narrow(0, n, 1)?, &codes)?)).collect::<Result<Vec<_>>>()?;
        assert_eq!(all, one.concat());
        check_threads(|| Ok(vec![nearest(&z, &codes)?]))
    }

    #[test]
    fn unfit_operands_are_errors() -> Result<()> {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
        let z = zeros(&[1, 3, 2, 2], DType::F32)?;
        assert!(nearest(&z, &zeros(&[2, 4], DType::F32)?).is_err(), "channels");
        assert!(nearest(&z, &zeros(&[0, 3], DType::F32)?).is_err(), "no codes");
        assert!(nearest(&z, &zeros(&[2, 3], DType::F64)?).is_err(), "element types");
        assert!(nearest(&z.get(0)?, &zeros(&[2, 3], DType::F32)?).is_err(), "rank");
        Ok(())
    }
}
