//! Tensors in, checked `f64` slices out.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// How far beyond their range, as a part of it, pixels that are clamped may lie: less than half, by which those of [-0.5, 0.5] and of [0, 1]
/// lie apart.
pub(crate) const SLACK: f64 = 0.4;

/// Row-major `rows x cols` values, all finite.
pub(crate) struct Rows {
    pub(crate) values: Vec<f64>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Rows {
    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.cols..(index + 1) * self.cols]
    }

    /// Mean of each column; of no rows, NaN.
    pub(crate) fn column_means(&self) -> Vec<f64> {
        column_means(&self.values, self.cols)
    }
}

/// Mean of each column of a row-major matrix; of no rows, NaN.
pub(crate) fn column_means(values: &[f64], cols: usize) -> Vec<f64> {
    let mut sums = vec![0.0; cols];
    for row in values.chunks_exact(cols) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let count = (values.len() / cols) as f64;
    sums.iter_mut().for_each(|sum| *sum /= count);
    sums
}

/// Row-major values less one number a column.
pub(crate) fn less(values: &[f64], by: &[f64]) -> Vec<f64> {
    let row = |row: &[f64]| row.iter().zip(by).map(|(v, m)| v - m).collect::<Vec<_>>();
    values.chunks_exact(by.len()).flat_map(row).collect()
}

/// Features `[N, D]` with `D >= 1`; `first_row` is the number that an error gives to row 0.
pub(crate) fn features(xs: &Tensor, what: &'static str, first_row: usize) -> Result<Rows> {
    match *xs.dims() {
        [rows, cols] if cols > 0 => {
            let values = to_f64(xs, what)?;
            check_finite(&values, cols, what, first_row)?;
            Ok(Rows { values, rows, cols })
        }
        _ => Err(Error::Shape { what, expected: "[N, D] with D >= 1".into(), got: xs.dims().to_vec() }),
    }
}

/// Two sets of as many features each.
pub(crate) fn feature_pair(a: &Tensor, b: &Tensor, what: [&'static str; 2]) -> Result<(Rows, Rows)> {
    let (a, b) = (features(a, what[0], 0)?, features(b, what[1], 0)?);
    same_dims(a.cols, b.cols)?;
    Ok((a, b))
}

pub(crate) fn same_dims(left: usize, right: usize) -> Result<()> {
    if left == right {
        return Ok(());
    }
    Err(Error::Mismatch { what: "feature dimensions", left: vec![left], right: vec![right] })
}

/// Images `[N, C, H, W]`, none of them empty, one a row.
pub(crate) fn images(xs: &Tensor, what: &'static str) -> Result<Rows> {
    match *xs.dims() {
        [rows, c, h, w] if rows * c * h * w > 0 => {
            let (values, cols) = (to_f64(xs, what)?, c * h * w);
            check_finite(&values, cols, what, 0)?;
            Ok(Rows { values, rows, cols })
        }
        _ => Err(Error::Shape {
            what,
            expected: "[N, C, H, W] without an empty axis".into(),
            got: xs.dims().to_vec(),
        }),
    }
}

/// Rejects an argument that asks for more `f64` than there is memory for, instead of ending the program.
pub(crate) fn check_memory(field: &'static str, value: usize, elements: Option<usize>) -> Result<()> {
    if elements.is_some_and(|elements| Vec::<f64>::new().try_reserve_exact(elements).is_ok()) {
        return Ok(());
    }
    Err(Error::config(field, value, "needs more memory than there is"))
}

/// Rejects a number that is not positive, or whose square is 0 or infinite in `f64`.
pub(crate) fn check_square(field: &'static str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.0) {
        return Err(Error::config(field, value, "must be a positive number"));
    }
    if (value * value).is_normal() {
        return Ok(());
    }
    Err(Error::config(field, format!("{value:?}"), "its square must be a positive number too"))
}

fn to_f64(xs: &Tensor, what: &'static str) -> Result<Vec<f64>> {
    if !xs.dtype().is_float() {
        return Err(Error::DType { what, got: xs.dtype() });
    }
    Ok(xs.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Rejects the first NaN or infinity of a row-major matrix, by its row (`first_row` for row 0) and column.
pub(crate) fn check_finite<T: Copy + Into<f64>>(
    values: &[T],
    cols: usize,
    what: &'static str,
    first_row: usize,
) -> Result<()> {
    match values.iter().map(|&v| v.into()).enumerate().find(|(_, v): &(usize, f64)| !v.is_finite()) {
        None => Ok(()),
        Some((at, value)) => {
            Err(Error::NonFinite { what, row: first_row + at / cols, column: at % cols, value })
        }
    }
}
