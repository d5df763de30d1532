//! A bounds-checked door to the `gemm` crate.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// A matrix in a slice: `data[row * row_stride + col * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, F> {
    pub(crate) data: &'a [F],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, F> Matrix<'a, F> {
    /// Rows one after the other.
    pub(crate) fn row_major(data: &'a [F], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same rows, further apart.
    pub(crate) fn with_row_stride(self, row_stride: usize) -> Self {
        Self { row_stride, ..self }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn check(&self) {
        let last = (self.rows.max(1) - 1) * self.row_stride + (self.cols.max(1) - 1) * self.col_stride;
        assert!(self.rows * self.cols == 0 || last < self.data.len(), "matrix view beyond its slice");
    }
}

/// `out = a b`, or `out += a b`, on this thread; `out` is row-major `[a.rows, b.cols]`.
pub(crate) fn matmul<F: super::Real>(out: &mut [F], a: Matrix<'_, F>, b: Matrix<'_, F>, accumulate: bool) {
    a.check();
    b.check();
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert!(out.len() >= a.rows * b.cols, "output too short");
    let one = F::from_f64(1.);
    // SAFETY: the checks above keep every index `i*rs + j*cs` of the three views inside their slices, `out` is
    // borrowed mutably and so aliases neither operand, and all strides fit in isize because slices do.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            b.cols as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            one,
            one,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
