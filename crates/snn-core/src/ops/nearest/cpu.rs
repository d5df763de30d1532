//! The search on the CPU, over tiles of vectors.

use rayon::prelude::*;

use crate::ops::Real;
use crate::ops::simd::vectorised;

/// Vectors that the kernel works on at once.
const TILE: usize = 32;

/// `z: [n, c, positions]`, `codes: [k, c]` -> `[n, positions]`; nothing if an element of `z` is not finite.
pub(super) fn find<F: Real>(
    z: &[F],
    codes: &[F],
    (n, c, positions): (usize, usize, usize),
) -> Option<Vec<u32>> {
    let codes: Vec<f64> = codes.iter().map(|e| e.to_f64()).collect();
    let least = super::least(F::DTYPE);
    let mut found = vec![0u32; n * positions];
    let tiles = found.par_chunks_mut(TILE).enumerate();
    tiles.try_for_each_init(
        || vec![0f64; c * TILE],
        |tile, (i, found)| {
            for (j, p) in (i * TILE..).take(found.len()).enumerate() {
                let vector = z[p / positions * c * positions + p % positions..].iter().step_by(positions);
                tile[j..].iter_mut().step_by(TILE).zip(vector).for_each(|(to, x)| *to = x.to_f64());
            }
            let (mut best, mut nearest) = ([f64::INFINITY; TILE], [0u32; TILE]);
            search(tile, &codes, &mut best, &mut nearest);
            for (j, (found, best)) in found.iter_mut().zip(best).enumerate() {
                let in_range = best >= least && best < f64::INFINITY;
                let vector = tile[j..].iter().step_by(TILE).copied();
                *found = if in_range { nearest[j] } else { settle(vector, &codes, c, best)? };
            }
            Some(())
        },
    )?;
    Some(found)
}

vectorised! {
    /// The first of the smallest squared distances of each column of `z: [c, TILE]`, and its code; what is there must be larger.
    fn search(z: &[f64], codes: &[f64], best: &mut [f64; TILE], nearest: &mut [u32; TILE]) {
        for (k, code) in codes.chunks_exact(z.len() / TILE).enumerate() {
            let mut sums = [0f64; TILE];
            for (z, &e) in z.chunks_exact(TILE).zip(code) {
                for i in 0..TILE {
                    let d = z[i] - e;
                    sums[i] += d * d;
                }
            }
            for i in 0..TILE {
                if sums[i] < best[i] {
                    (best[i], nearest[i]) = (sums[i], k as u32);
                }
            }
        }
    }
}

/// The nearest code of a vector whose squared distances, the least being `best`, overflow or vanish; nothing if an element of
/// the vector is not finite.
fn settle(z: impl Iterator<Item = f64> + Clone, codes: &[f64], c: usize, best: f64) -> Option<u32> {
    if !z.clone().all(f64::is_finite) {
        return None;
    }
    // Powers of two are exact; what the first drowns is far below the least distance.
    let (down, up) = if best > 1. { (2f64.powi(-600), 1.) } else { (1., 2f64.powi(600)) };
    let square = |(z, &e): (f64, &f64)| ((z * down - e * down) * up).powi(2);
    let distance = |code: &[f64]| z.clone().zip(code).map(square).sum::<f64>();
    let mut first = (f64::INFINITY, 0);
    for (k, code) in (0..).zip(codes.chunks_exact(c)) {
        let distance = distance(code);
        if distance < first.0 {
            first = (distance, k);
        }
    }
    Some(first.1)
}
