//! Our runs beside the paper's Table 1: `cargo run --release --example table1 -- RUN_DIR... [--json]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    spiking_diffusion::cli::table1()
}
