//! The command `pack`: a finished run as one file.

use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::DType;
use clap::Parser;

use super::{failed, say};

/// Pack the config and the networks of a finished run into one file, which every --run but that of `export_pytorch` takes instead of the folder.
#[derive(Debug, Parser)]
#[command(
    name = "pack",
    after_help = "The file carries a SHA-256 of its content, by which damage is noticed."
)]
pub(super) struct Arguments {
    /// Folder of a finished run
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// File to write, which must not be there yet
    #[arg(value_name = "FILE")]
    out: PathBuf,
    /// Keep f32 numbers: twice as large, and images exactly as the run's
    #[arg(long)]
    f32: bool,
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    let dtype = if arguments.f32 { DType::F32 } else { DType::F16 };
    match crate::pack(&arguments.run, &arguments.out, dtype) {
        Ok(()) => {
            let bytes = std::fs::metadata(&arguments.out).map_or(0, |file| file.len());
            say(&format!("{}: {:.1} MB", arguments.out.display(), bytes as f64 / 1e6));
            ExitCode::SUCCESS
        }
        Err(e) => failed(&e),
    }
}
