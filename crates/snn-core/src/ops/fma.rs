//! Vectors that multiply and add with one rounding, for dense products, as the `gemm` crate has them.
//!
//! A lane's result does not depend on how many lanes there are, so all widths give the same bytes.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::simd::{Level, level};

/// The [`level`], if its vectors can be had and this machine fuses.
pub(crate) fn fused_level() -> Option<Level> {
    (level() != Level::Portable && is_x86_feature_detected!("fma")).then(level)
}

/// A vector of floats. Whoever calls its functions has made sure that the machine has its instructions.
pub(crate) trait Vector: Copy {
    /// Its lanes.
    const LANES: usize;
    /// The same number in each lane.
    unsafe fn splat(x: f32) -> Self;
    /// From [`LANES`](Self::LANES) floats, and to them.
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    /// `a self + sum`, rounded once.
    unsafe fn mul_add(self, a: Self, sum: Self) -> Self;
}

macro_rules! vector {
    ($T:ty, $lanes:expr, $splat:ident, $load:ident, $store:ident, $add:ident, $mul_add:ident) => {
        impl Vector for $T {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: the caller has these instructions.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above, and there are so many floats.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller has these instructions.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, a: Self, sum: Self) -> Self {
                // SAFETY: the caller has these instructions.
                unsafe { $mul_add(self, a, sum) }
            }
        }
    };
}
vector!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps);
vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps);
