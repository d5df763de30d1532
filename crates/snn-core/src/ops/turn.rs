//! Rows that are written as columns.
#![allow(unsafe_code)]

/// Writes four rows, of one length, as the columns from `first` on of `rows: [their length, width]`.
pub(crate) fn write_columns(lanes: [&[f32]; 4], rows: &mut [f32], (width, first): (usize, usize)) {
    let ([a, b, c, d], rests) =
        (lanes.map(|lane| lane.as_chunks().0), lanes.map(|lane| lane.as_chunks::<4>().1));
    let blocks = a.iter().zip(b).zip(c).zip(d).map(|(((&a, &b), &c), &d)| [a, b, c, d]);
    let (whole, rest) = rows.split_at_mut(4 * width * a.len());
    for (rows, block) in whole.chunks_exact_mut(4 * width).zip(blocks) {
        for (row, columns) in rows.chunks_exact_mut(width).zip(transposed(block)) {
            row[first..first + 4].copy_from_slice(&columns);
        }
    }
    for (row, i) in rest.chunks_exact_mut(width).zip(0..rests[0].len()) {
        row[first..first + 4].copy_from_slice(&rests.map(|lane| lane[i]));
    }
}

/// A block of four rows, turned round.
#[inline(always)]
fn transposed(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
        let mut turned = [[0f32; 4]; 4];
        // SAFETY: every x86-64 has these instructions, and each row is four floats.
        unsafe {
            let [mut a, mut b, mut c, mut d] = block.map(|row| _mm_loadu_ps(row.as_ptr()));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            for (row, turned) in [a, b, c, d].into_iter().zip(&mut turned) {
                _mm_storeu_ps(turned.as_mut_ptr(), row);
            }
        }
        turned
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|i| std::array::from_fn(|j| block[j][i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_rows_and_the_rest_stays() {
        for length in [0, 1, 3, 4, 7, 8, 13] {
            let lanes: Vec<Vec<f32>> =
                (0..4).map(|lane| (0..length).map(|i| (100 * lane + i) as f32).collect()).collect();
            let (width, first) = (7, 2);
            let mut rows = vec![-1.; width * length];
            write_columns([0, 1, 2, 3].map(|lane| lanes[lane].as_slice()), &mut rows, (width, first));
            for (place, &x) in rows.iter().enumerate() {
                let (i, column) = (place / width, place % width);
                let wanted = match column.checked_sub(first) {
                    Some(lane @ 0..4) => lanes[lane][i],
                    _ => -1.,
                };
                assert_eq!(x, wanted, "{length}: row {i}, column {column}");
            }
        }
    }
}
