//! The cells of a map in the order in which a Halton sequence visits them.

/// The first `count` cells of an `h x w` map, counted row by row, that are `free`, in the order in which the two-dimensional
/// Halton sequence of bases 2 and 3 comes to them; all free ones if there are fewer.
///
/// Every box of `1 / 2^a` by `1 / 3^b` is visited once in `2^a 3^b` points, and each cell holds one of at most `4 h` by `9 w`
/// boxes: so no cell waits for more than `36 h w` points.
pub(crate) fn visit((h, w): (usize, usize), free: impl Fn(usize) -> bool, count: usize) -> Vec<usize> {
    let mut fresh: Vec<bool> = (0..h * w).map(free).collect();
    let count = count.min(fresh.iter().filter(|fresh| **fresh).count());
    let mut cells = Vec::with_capacity(count);
    let mut point = 0;
    while cells.len() < count {
        point += 1;
        let cell = scaled::<2>(point, h) * w + scaled::<3>(point, w);
        if std::mem::take(&mut fresh[cell]) {
            cells.push(cell);
        }
    }
    cells
}

/// `floor(size * x)`, where `x` in `(0, 1)` has the digits of `point` in this base, mirrored at the point.
fn scaled<const BASE: u64>(mut point: u64, size: usize) -> usize {
    let (mut mirrored, mut scale) = (0, 1);
    while point > 0 {
        mirrored = mirrored * BASE + point % BASE;
        scale *= BASE;
        point /= BASE;
    }
    (mirrored * size as u64 / scale) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_haltons() {
        // 1/2, 1/4, 3/4, 1/8, 5/8 and 1/3, 2/3, 1/9, 4/9, 7/9, in 72nds.
        assert_eq!([1, 2, 3, 4, 5].map(|i| scaled::<2>(i, 72)), [36, 18, 54, 9, 45]);
        assert_eq!([1, 2, 3, 4, 5].map(|i| scaled::<3>(i, 72)), [24, 48, 8, 32, 56]);
        assert_eq!(visit((2, 2), |_| true, 4), [2, 1, 0, 3]);
    }

    #[test]
    fn every_cell_is_visited_once_and_soon() {
        for (h, w) in [(1, 1), (1, 5), (7, 7), (14, 14), (3, 40), (31, 2)] {
            let mut cells = visit((h, w), |_| true, usize::MAX);
            let even: Vec<usize> = visit((h, w), |cell| cell % 2 == 0, usize::MAX);
            assert!(even.iter().eq(cells.iter().filter(|cell| **cell % 2 == 0)));
            assert_eq!(visit((h, w), |_| true, 3), cells[..cells.len().min(3)]);
            cells.sort_unstable();
            assert!(cells.into_iter().eq(0..h * w));
        }
    }

    /// Early cells lie apart: of the first nine of 7x7 no two touch at a side.
    #[test]
    fn neighbours_come_late() {
        let cells = visit((7, 7), |_| true, 9);
        for (i, a) in cells.iter().enumerate() {
            let apart = |b: &usize| (a / 7).abs_diff(b / 7) + (a % 7).abs_diff(b % 7) > 1;
            assert!(cells[i + 1..].iter().all(apart), "{cells:?}");
        }
    }
}
