//! Spiking-Diffusion on MNIST: `cargo run --release --example mnist -- --help`.

use std::process::ExitCode;

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spiking_diffusion::cli::main(spiking_diffusion::data::KnownSet::Mnist)
}
