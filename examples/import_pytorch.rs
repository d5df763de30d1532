//! Networks of the released PyTorch code become a run: `cargo run --release --example import_pytorch -- --help`.

use std::process::ExitCode;

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spiking_diffusion::cli::import_pytorch()
}
