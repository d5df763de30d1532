//! Vector instructions chosen at run time.
//!
//! Kernels are plain loops over slices. [`vectorised!`] compiles each for several instruction sets and calls the best that
//! this machine has: AVX-512, AVX2, or what the target always has (NEON on ARM, SSE2 on x86-64). No instruction set adds
//! in another order than the next or fuses a multiplication with an addition, so all of them give the same bytes.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best level of this machine, or the one that the environment variable `SNN_CORE_SIMD` names (`portable`, `avx2`,
/// `avx512`), if the machine has it.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let wanted = std::env::var("SNN_CORE_SIMD").unwrap_or_default();
        available().into_iter().find(|level| level.name() == wanted).unwrap_or_else(best)
    })
}

fn best() -> Level {
    available().into_iter().max().unwrap_or(Level::Portable)
}

/// The levels that this machine has.
fn available() -> Vec<Level> {
    let mut levels = vec![Level::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("lzcnt");
        if has_avx2 {
            levels.push(Level::Avx2);
        }
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if has_avx2 && has_avx512 {
            levels.push(Level::Avx512);
        }
    }
    levels
}

/// Begins to fetch values that will be read soon, where they lie too short in a row for the machine to see them coming.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// Floats that all its vector registers hold.
    pub(crate) fn floats(self) -> usize {
        match self {
            Self::Portable => 16 * 4,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 16 * 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 32 * 16,
        }
    }
}

/// Defines a function that is compiled for every [`Level`] and runs as the one that [`level`] names.
///
/// Whatever the body calls in its loops must be `#[inline(always)]`, or it is compiled for the portable level only.
macro_rules! vectorised {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$(const $G:ident: $GT:ty),+>)? ($($arg:ident: $T:ty),* $(,)?) $(-> $R:ty)?
        $body:block
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name $(<$(const $G: $GT),+>)? ($($arg: $T),*) $(-> $R)? {
            #[inline(always)]
            fn portable $(<$(const $G: $GT),+>)? ($($arg: $T),*) $(-> $R)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use crate::ops::simd::{Level, level};
                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
                fn avx2 $(<$(const $G: $GT),+>)? ($($arg: $T),*) $(-> $R)? {
                    portable $(::<$($G),+>)? ($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,popcnt,lzcnt")]
                fn avx512 $(<$(const $G: $GT),+>)? ($($arg: $T),*) $(-> $R)? {
                    portable $(::<$($G),+>)? ($($arg),*)
                }
                match level() {
                    // SAFETY: `level` only names what this machine has been found to have.
                    Level::Avx512 => return unsafe { avx512 $(::<$($G),+>)? ($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2 $(::<$($G),+>)? ($($arg),*) },
                    Level::Portable => {}
                }
            }
            portable $(::<$($G),+>)? ($($arg),*)
        }
    };
}
pub(crate) use vectorised;
