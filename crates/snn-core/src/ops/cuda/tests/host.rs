//! Runs launches on the host, through `host/runner.cpp`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use candle_core::{Device, Result, Tensor};

use crate::ops::Real;
use crate::ops::cuda::launch::{Argument, Launch, bytes_of};
use crate::ops::testing::flat;

/// The bytes of a tensor of this type.
pub(super) fn bytes<F: Real>(xs: &Tensor) -> Vec<u8> {
    assert_eq!(xs.dtype(), F::DTYPE);
    flat(xs).unwrap().into_iter().flat_map(|x| bytes_of(F::from_f64(x))).collect()
}

/// The tensor that these bytes are.
pub(super) fn tensor<F: Real>(bytes: &[u8], dims: &[usize]) -> Result<Tensor> {
    let values: Vec<f64> = match F::DTYPE {
        candle_core::DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        _ => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
    };
    Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(F::DTYPE)
}

/// Which sanitizer the runner is built with: `thread`, `address` or none.
pub(super) fn sanitizer() -> Option<String> {
    std::env::var("SNN_CORE_CUDA_SANITIZER").ok()
}

struct Host {
    folder: tempfile::TempDir,
    runner: PathBuf,
}

/// The compiled runner, or none where there is no C++ compiler.
fn host() -> Option<&'static Host> {
    static HOST: OnceLock<Option<Host>> = OnceLock::new();
    HOST.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            eprintln!("skipped: no C++ compiler runs as {compiler}");
            return None;
        }
        let (folder, source) =
            (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let runner = folder.path().join("runner");
        let mut command = Command::new(compiler);
        command.args("-std=c++17 -O1 -g -Wall -Wextra -Werror -Wno-unknown-pragmas -pthread".split(' '));
        // Products and sums are not contracted, here and on a GPU (nvrtc.txt).
        command.args(["-ffp-contract=off", "-DSNN_HOST", "-I"]).arg(&source);
        command.args(sanitizer().map(|name| format!("-fsanitize={name}")));
        command.args(["-x", "c++"]).arg(source.join("ops/cuda/host/runner.cpp")).arg("-o").arg(&runner);
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(Host { folder, runner })
    })
    .as_ref()
}

impl Host {
    /// What the process says, and the file of its results.
    fn start(&self, launches: &[(Launch, Vec<Vec<u8>>)]) -> (Output, Vec<u8>) {
        let dir = tempfile::tempdir_in(self.folder.path()).unwrap();
        let [input, output] = ["launches", "results"].map(|name| dir.path().join(name));
        let mut file = Vec::new();
        let int = |file: &mut Vec<u8>, value: usize| file.extend(u32::try_from(value).unwrap().to_le_bytes());
        int(&mut file, launches.len());
        for (launch, operands) in launches {
            let mut operands = operands.iter();
            int(&mut file, launch.kernel.len());
            file.extend(launch.kernel.as_bytes());
            for value in [launch.grid, launch.block, launch.shared] {
                int(&mut file, value as usize);
            }
            int(&mut file, launch.arguments.len());
            for argument in &launch.arguments {
                let mut operand = |name: &str, length: usize| {
                    let operand: &Vec<u8> = operands.next().unwrap();
                    assert_eq!(operand.len(), length, "{}: {name}", launch.kernel);
                    operand
                };
                let all = match argument {
                    Argument::Value(bytes) => {
                        int(&mut file, 0);
                        vec![bytes]
                    }
                    Argument::Operand { name, bytes } => {
                        int(&mut file, 1);
                        vec![operand(name, *bytes)]
                    }
                    Argument::Table { name, bytes, slots } => {
                        for value in [2, *slots, bytes.len()] {
                            int(&mut file, value);
                        }
                        bytes.iter().map(|&length| operand(name, length)).collect()
                    }
                };
                for bytes in all {
                    file.extend((bytes.len() as u64).to_le_bytes());
                    file.extend(bytes);
                }
            }
            assert!(operands.next().is_none(), "{}: an operand too many", launch.kernel);
        }
        std::fs::write(&input, file).unwrap();
        let done = Command::new(&self.runner).args([&input, &output]).output().unwrap();
        (done, std::fs::read(output).unwrap())
    }
}

/// All operands of each launch as it leaves them; none where nothing can be compiled.
pub(super) fn run(launches: &[(Launch, Vec<Vec<u8>>)]) -> Option<Vec<Vec<Vec<u8>>>> {
    let (done, results) = host()?.start(launches);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut results = results.as_slice();
    let mut take = |operand: &Vec<u8>| {
        let (these, others) = results.split_at(operand.len());
        results = others;
        these.to_vec()
    };
    let left = launches.iter().map(|(_, operands)| operands.iter().map(&mut take).collect()).collect();
    assert!(results.is_empty());
    Some(left)
}

/// What the runner complains about a launch that must fail; none where nothing can be compiled.
pub(super) fn complaint(launch: Launch, operands: Vec<Vec<u8>>) -> Option<String> {
    let (done, _) = host()?.start(&[(launch, operands)]);
    assert!(!done.status.success(), "nothing was found");
    Some(String::from_utf8_lossy(&done.stderr).into_owned())
}
