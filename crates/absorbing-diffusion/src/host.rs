//! Tensors read back and checked, element by element. All are a few bytes a token: the forward process runs on the
//! host, in f64, so that every device sees the same masks.

use std::ops::RangeInclusive;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// Reads codes `u32 [N, H', W']`, each of which must be in `0..codes`.
pub(crate) fn codes(h: &Tensor, codes: usize) -> Result<(Vec<u32>, (usize, usize, usize))> {
    let dims = h.dims3()?;
    let values: Vec<u32> = h.flatten_all()?.to_vec1()?;
    match values.iter().position(|&code| code as usize >= codes) {
        Some(i) => Err(Error::value("code", place(i, dims), values[i], format!("a value in 0..{codes}"))),
        None => Ok((values, dims)),
    }
}

/// Reads diffusion times `u32 [N]`, each of which must be in `range`.
pub(crate) fn times(t: &Tensor, n: usize, range: RangeInclusive<usize>) -> Result<Vec<u32>> {
    Error::check_shape("diffusion time", t.dims(), &[n])?;
    let values: Vec<u32> = t.to_vec1()?;
    match values.iter().position(|&t| !range.contains(&(t as usize))) {
        Some(i) => {
            Err(Error::value("diffusion time", format!("[{i}]"), values[i], format!("a value in {range:?}")))
        }
        None => Ok(values),
    }
}

/// Reads uniform noise `[N, H', W']`, each number of which must be in `[0, 1]`.
pub(crate) fn noise(u: &Tensor, dims: (usize, usize, usize)) -> Result<Vec<f64>> {
    Error::check_shape("noise", u.dims(), &[dims.0, dims.1, dims.2])?;
    let values = floats(u)?;
    match values.iter().position(|u| !(0. ..=1.).contains(u)) {
        Some(i) => Err(Error::value("noise", place(i, dims), values[i], "a value in [0, 1]")),
        None => Ok(values),
    }
}

/// Reads every element as f64, which is made on the host because not every device has f64.
pub(crate) fn floats(xs: &Tensor) -> Result<Vec<f64>> {
    Ok(xs.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn place(i: usize, (_, h, w): (usize, usize, usize)) -> String {
    format!("[{}, {}, {}]", i / (h * w), i / w % h, i % w)
}
