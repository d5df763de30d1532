//! The nearest of some vectors, for every position of a map (vector quantisation).
//!
//! Differences are squared, in f64 wherever f32 leaves a doubt. The expansion `|z|^2 - 2 z e + |e|^2` would be one matrix product,
//! but what it leaves of two vectors far from the origin and close to each other is rounding.

mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};

use super::backend::Backend;
use super::{by_dtype, operand, same_type};

/// Quantises vectors: the index of the nearest code, `argmin_k |z - codes[k]|`, the first of equals; without gradient
/// (paper Eq. 7).
///
/// The code is that of differences squared and added in f64, whatever the element type and the scale. A code with an infinite
/// element is never the nearest.
///
/// # Shapes
/// `z: [N, C, H, W]`, `codes: [K, C]` -> u32 `[N, H, W]`. The choice for one item does not depend on the others.
/// # Errors
/// Returns an error if shapes or element types do not fit, if the elements are neither f32 nor f64, if `z` is empty, if there
/// is no finite code, if a code is NaN, or if an element of `z` is infinite or NaN (the error names the first).
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
    let (z, codes) = (z.detach(), codes.detach());
    check_shapes(&z, &codes)?;
    #[cfg(feature = "cuda")]
    if let Some(found) = on_cuda(&z, &codes)? {
        return Ok(found);
    }
    if Backend::of(&z) != Backend::Cpu || z.elem_count() == 0 {
        return nearest_reference(&z, &codes);
    }
    check_codes(&codes)?;
    z.contiguous()?.apply_op2_no_bwd(&codes.contiguous()?, &Nearest)
}

/// The twin that [`nearest`] is tested against, made of Candle's own operations. It runs on any device, slowly, and in f64
/// except on Metal, which has none.
///
/// # Shapes
/// The shapes are those of [`nearest`].
/// # Errors
/// Returns the errors of [`nearest`].
pub fn nearest_reference(z: &Tensor, codes: &Tensor) -> Result<Tensor> {
    check_shapes(z, codes)?;
    let dtype = if z.device().is_metal() { z.dtype() } else { DType::F64 };
    let (z, codes) = (z.detach().to_dtype(dtype)?, codes.detach().to_dtype(dtype)?);
    check_codes(&codes)?;
    let (n, c, h, w) = z.dims4()?;
    let values = z.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if let Some(i) = values.iter().position(|x| !x.is_finite()) {
        return Err(refuse(values[i], i, (c, h, w)));
    }
    let mut distances = Tensor::zeros((n, h, w, codes.dim(0)?), dtype, z.device())?;
    for i in 0..c {
        let z = z.get_on_dim(1, i)?.unsqueeze(D::Minus1)?;
        let difference = z.broadcast_sub(&codes.get_on_dim(1, i)?.reshape((1, 1, 1, ()))?)?;
        distances = (distances + difference.sqr()?)?;
    }
    distances.argmin(D::Minus1)
}

/// None where the twin must settle it, or say what is wrong. Reads one number back.
#[cfg(feature = "cuda")]
fn on_cuda(z: &Tensor, codes: &Tensor) -> Result<Option<Tensor>> {
    let (n, c, h, w) = z.dims4()?;
    // The vectors of 32 threads must lie in shared memory.
    let fits = c * z.dtype().size_in_bytes() <= (48 << 10) / 32;
    if Backend::of(z) != Backend::Cuda || z.elem_count() == 0 || !fits {
        return Ok(None);
    }
    let all = cuda::run::nearest(&z.contiguous()?, &codes.contiguous()?)?;
    let odd = all.get(n * h * w)?.to_scalar::<u32>()?;
    (odd == 0).then(|| all.narrow(0, 0, n * h * w)?.reshape((n, h, w))).transpose()
}

/// The least square that is no rounding: of single precision squares stay in the range of double precision.
fn least(dtype: DType) -> f64 {
    if dtype == DType::F32 { 0. } else { 1e-280 }
}

fn check_shapes(z: &Tensor, codes: &Tensor) -> Result<()> {
    let ((_, c, _, _), (k, width)) = (z.dims4()?, codes.dims2()?);
    same_type("nearest", &[("z", z), ("codes", codes)])?;
    if width != c || k == 0 {
        bail!("nearest: z {:?} and codes {:?} do not fit", z.dims(), codes.dims())
    }
    Ok(())
}

fn check_codes(codes: &Tensor) -> Result<()> {
    let rows = codes.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    if let Some(k) = rows.iter().position(|code| code.iter().any(|x| x.is_nan())) {
        bail!("nearest: code {k} is NaN")
    }
    if !rows.iter().any(|code| code.iter().all(|x| x.is_finite())) {
        bail!("nearest: each of the {} codes is infinite", rows.len())
    }
    Ok(())
}

/// The error of an element of `z: [N, c, h, w]` that is not finite.
fn refuse(value: f64, index: usize, (c, h, w): (usize, usize, usize)) -> candle_core::Error {
    let (plane, position) = (index / (h * w), index % (h * w));
    let (item, channel) = (plane / c, plane % c);
    let (y, x) = (position / w, position % w);
    candle_core::Error::Msg(format!(
        "nearest: item {item} has {value} in channel {channel} at row {y}, column {x}: no code is nearest to that"
    ))
    .bt()
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
        let (n, c, h, w) = l1.shape().dims4()?;
        let found = by_dtype!(s1, "nearest", F => {
            let z = operand::<F>(s1, l1)?;
            match cpu::find::<F>(z, operand(s2, l2)?, (n, c, h * w)) {
                Some(found) => found,
                None => {
                    let bad = z.iter().position(|x| !x.to_f64().is_finite()).unwrap_or_default();
                    return Err(refuse(z[bad].to_f64(), bad, (c, h, w)));
                }
            }
        });
        Ok((CpuStorage::U32(found), (n, h, w).into()))
    }
}

#[cfg(test)]
mod tests;
