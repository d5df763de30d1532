//! CUDA kernels: what they share, how they are launched, and the tests that run them on the host.
//!
//! Each op keeps its kernels in `cuda/*.cu`, and beside them, in `cuda/mod.rs`, their launches: grid, block, shared memory and the
//! order of arguments, as data. A launcher only has to supply the operands. There are two: the host runner (`host`), which
//! compiles the unchanged kernels with the system's C++ compiler and lets tests compare them with the CPU ops, and, with the feature `cuda`,
//! `gpu`, to which an op's `cuda/run.rs` hands its operands. `compile` makes PTX of the sources (`source`) at run time, which `store` keeps.
//! `nvrtc.txt` holds the options that the kernels are compiled with; products and sums are not contracted, so that they round as
//! on the CPU.

#[cfg(feature = "cuda")]
pub(crate) mod apply;
#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
pub(crate) mod gpu;
pub(crate) mod launch;
mod source;
mod store;
#[cfg(test)]
mod tests;
