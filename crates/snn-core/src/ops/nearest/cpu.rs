//! The search on the CPU, over tiles of vectors: in f32 where that settles which code is nearest, else in f64.

use candle_core::DType;
use rayon::prelude::*;

use crate::ops::Real;
use crate::ops::simd::vectorised;

/// Vectors that the kernel works on at once in f64, and in f32.
const TILE: usize = 32;
const WIDE: usize = 2 * TILE;

/// `z: [n, c, positions]`, `codes: [k, c]` -> `[n, positions]`; nothing if an element of `z` is not finite.
pub(super) fn find<F: Real>(
    z: &[F],
    codes: &[F],
    (n, c, positions): (usize, usize, usize),
) -> Option<Vec<u32>> {
    let exact: Vec<f64> = codes.iter().map(|e| e.to_f64()).collect();
    let single: Option<Vec<f32>> =
        (F::DTYPE == DType::F32).then(|| exact.iter().map(|&e| e as f32).collect());
    let least = super::least(F::DTYPE);
    let mut found = vec![0u32; n * positions];
    let tiles = found.par_chunks_mut(WIDE).enumerate();
    tiles.try_for_each_init(
        || (vec![0f32; c * WIDE], vec![0f64; c * TILE]),
        |(wide, tile), (i, found)| {
            let vectors = |from: usize, n: usize| {
                let start = |p: usize| p / positions * c * positions + p % positions;
                (from..from + n).map(move |p| z[start(p)..].iter().step_by(positions).map(|x| x.to_f64()))
            };
            if let Some(single) = &single {
                lay_out(wide, WIDE, vectors(i * WIDE, found.len()), |x| x as f32);
                if sift(wide, single, found) {
                    return Some(());
                }
            }
            for (half, found) in found.chunks_mut(TILE).enumerate() {
                lay_out(tile, TILE, vectors(i * WIDE + half * TILE, found.len()), |x| x);
                let (mut best, mut nearest) = ([f64::INFINITY; TILE], [0u32; TILE]);
                search(tile, &exact, &mut best, &mut nearest);
                for (j, (found, best)) in found.iter_mut().zip(best).enumerate() {
                    let in_range = best >= least && best < f64::INFINITY;
                    let vector = tile[j..].iter().step_by(TILE).copied();
                    *found = if in_range { nearest[j] } else { settle(vector, &exact, c, best)? };
                }
            }
            Some(())
        },
    )?;
    Some(found)
}

/// Vectors as the first columns of a tile.
fn lay_out<W>(
    tile: &mut [W],
    width: usize,
    vectors: impl Iterator<Item = impl Iterator<Item = f64>>,
    number: impl Fn(f64) -> W,
) {
    for (column, vector) in vectors.enumerate() {
        tile[column..].iter_mut().step_by(width).zip(vector).for_each(|(to, x)| *to = number(x));
    }
}

/// The nearest codes of the first columns of `z: [c, WIDE]`, if f32 tells for all of them: if each least squared distance is so
/// much less than the next that rounding cannot have changed their order.
///
/// A difference, its square and each of the `c` sums are rounded once, to within `2^-24` of what they are, while squares are far from
/// the ends of the range; so distances are right to within `(c + 3) 2^-24` of themselves.
fn sift(z: &[f32], codes: &[f32], found: &mut [u32]) -> bool {
    let (mut least, mut next, mut nearest) = ([f32::INFINITY; WIDE], [f32::INFINITY; WIDE], [0u32; WIDE]);
    compare(z, codes, &mut least, &mut next, &mut nearest);
    // Of both distances, and half as much again.
    let margin = 1. + 3. * ((z.len() / WIDE) as f32 + 3.) * (f32::EPSILON / 2.);
    found.copy_from_slice(&nearest[..found.len()]);
    let tells = |(least, next): (&f32, f32)| (1e-25..1e25).contains(least) && next > margin * least;
    margin < 1.1 && least[..found.len()].iter().zip(next).all(tells)
}

/// The squared distance of each column of `z: [c, N]` to a code.
#[inline(always)]
fn distances<F: Real, const N: usize>(z: &[F], code: &[F]) -> [F; N] {
    let mut sums = [F::from_f64(0.); N];
    for (z, &e) in z.chunks_exact(N).zip(code) {
        for i in 0..N {
            let d = z[i] - e;
            sums[i] += d * d;
        }
    }
    sums
}

vectorised! {
    /// Of each column of `z: [c, WIDE]` the least squared distance, the least of all others, and the code of the first.
    fn compare(
        z: &[f32],
        codes: &[f32],
        least: &mut [f32; WIDE],
        next: &mut [f32; WIDE],
        nearest: &mut [u32; WIDE],
    ) {
        for (k, code) in codes.chunks_exact(z.len() / WIDE).enumerate() {
            let sums = distances::<f32, WIDE>(z, code);
            for i in 0..WIDE {
                let nearer = sums[i] < least[i];
                let other = if nearer { least[i] } else { sums[i] };
                next[i] = if other < next[i] { other } else { next[i] };
                least[i] = if nearer { sums[i] } else { least[i] };
                nearest[i] = if nearer { k as u32 } else { nearest[i] };
            }
        }
    }
}

vectorised! {
    /// The first of the smallest squared distances of each column of `z: [c, TILE]`, and its code; what is there must be larger.
    fn search(z: &[f64], codes: &[f64], best: &mut [f64; TILE], nearest: &mut [u32; TILE]) {
        for (k, code) in codes.chunks_exact(z.len() / TILE).enumerate() {
            let sums = distances::<f64, TILE>(z, code);
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
