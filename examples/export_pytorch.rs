//! Networks of a run become state dicts for PyTorch: `cargo run --release --example export_pytorch -- --help`.

use std::process::ExitCode;

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spiking_diffusion::cli::export_pytorch()
}
