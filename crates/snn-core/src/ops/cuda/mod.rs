//! CUDA kernels: what they share, how they are launched, and the tests that run them on the host.
//!
//! Each op keeps its kernels in `cuda/*.cu`, and beside them, in `cuda/mod.rs`, their launches: grid, block, shared memory and the
//! order of arguments, as data. A launcher only has to supply the operands. So far that is the host runner (`host`), which
//! compiles the unchanged kernels with the system's C++ compiler: hence the tests alone build this. On a GPU tensors still run as
//! the ops' twins. `nvrtc.txt` holds the options that the kernels are compiled with; products and sums are not contracted, so that
//! they round as on the CPU.

pub(crate) mod launch;
#[cfg(test)]
mod tests;
