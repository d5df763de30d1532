//! From a kernel's source to PTX, by NVRTC. No GPU is asked.
#![allow(unsafe_code)] // NVRTC is a C library.

use std::path::Path;

use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts, sys};
use candle_core::{Error, Result};

use super::source::expanded;
use super::store::kept;

/// The options that every kernel is compiled with, one a line.
const OPTIONS: &str = include_str!("nvrtc.txt");

/// The PTX of a file for devices of this compute capability, such as `(9, 0)`; kept in `folder`.
pub(crate) fn ptx(file: &str, (major, minor): (i32, i32), folder: Option<&Path>) -> Result<String> {
    let source = expanded(file)?;
    let architecture = format!("--gpu-architecture=compute_{major}{minor}");
    kept(folder, &[&source, OPTIONS, &architecture, &version()?], || compile(file, &source, &architecture))
}

fn compile(file: &str, source: &str, architecture: &str) -> Result<String> {
    let options = OPTIONS.lines().chain([architecture]).map(str::to_owned).collect();
    let options = CompileOptions { options, name: Some(file.into()), ..CompileOptions::default() };
    compile_ptx_with_opts(source, options).map(|ptx| ptx.to_src()).map_err(|error| {
        let log = match &error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            other => other.to_string(),
        };
        Error::Msg(format!("NVRTC cannot compile {file} with {architecture}: {}", log.trim())).bt()
    })
}

/// NVRTC's own: another one makes other code.
fn version() -> Result<String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two places for two numbers.
    let status = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    status.result().map_err(|error| Error::Msg(format!("NVRTC does not tell its version: {error}")).bt())?;
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cuda::source::programs;

    #[test]
    fn every_file_compiles_for_every_architecture() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        for file in programs() {
            for capability in [(8, 0), (9, 0), (10, 0)] {
                let first = ptx(file, capability, Some(folder.path()))?;
                assert!(first.contains(&format!(".target sm_{}{}", capability.0, capability.1)), "{file}");
                assert!(first.contains(".entry "), "{file}");
                assert_eq!(ptx(file, capability, Some(folder.path()))?, first);
            }
        }
        Ok(())
    }

    #[test]
    fn errors_name_file_and_line() {
        let error =
            compile("ops/wrong.cu", "#line 7 \"ops/wrong.cu\"\nint x = ;\n", "--gpu-architecture=compute_90");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ops/wrong.cu(7)"), "{error}");
    }
}
