//! What a classifier of the data set makes of generated images: `cargo run --release --example classify -- --help`.

use std::process::ExitCode;

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spiking_diffusion::cli::classify()
}
