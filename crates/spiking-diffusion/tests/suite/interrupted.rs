//! Runs in a process of their own: killed in the middle, resumed, on one thread and on two.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use spiking_diffusion::{RunDir, Silent, run_experiment};

use crate::{assert_same_bytes, few_digits, tiny};

const OUT: &str = "SPIKING_TEST_OUT";

/// Not a test: what the child processes of the tests below run.
#[test]
#[ignore = "the body of a child process"]
fn child() {
    let Some(out) = std::env::var_os(OUT) else { return };
    let data = few_digits();
    run_experiment(&tiny(&data), &data, Path::new(&out), true, &Device::Cpu, &mut Silent).unwrap();
}

fn start(out: &Path, threads: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "interrupted::child", "--ignored", "--quiet"])
        .env(OUT, out)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn finish(out: &Path, threads: usize) {
    assert!(start(out, threads).wait().unwrap().success());
}

/// Starts a run and kills it as soon as this file is there.
fn kill_at(out: &Path, file: &str) {
    let (mut child, began) = (start(out, 2), Instant::now());
    while !out.join(file).exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before {file} was there");
        assert!(began.elapsed() < Duration::from_secs(120), "{file} never came");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("report.json").exists(), "too late: {file} came after the end");
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    finish(&one, 1);
    finish(&two, 2);
    assert_same_bytes(&one, &two);
}

#[test]
fn a_run_killed_in_both_stages_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    finish(&whole, 2);
    for file in
        ["config.json", "vqsvae.csv", "vqsvae.state.safetensors", "sdid.csv", "sdid.state.safetensors"]
    {
        kill_at(&killed, file);
    }
    finish(&killed, 1);
    assert_same_bytes(&whole, &killed);
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let held = RunDir::open(folder.path(), &tiny(&few_digits()), false).unwrap();
    assert!(!start(folder.path(), 1).wait().unwrap().success());
    assert!(!folder.path().join("vqsvae.csv").exists());
    drop(held);
    finish(folder.path(), 1);
}
