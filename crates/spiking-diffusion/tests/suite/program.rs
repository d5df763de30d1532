//! The program, started as a person starts it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use candle_core::{DType, Device, safetensors};
use snn_core::Seed;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spiking-diffusion");

fn program(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_remove("SPIKING_DATA_DIR").env_remove("SPIKING_INCEPTION");
    command.args(words.split_whitespace()).current_dir(folder);
    command
}

#[track_caller]
fn output(folder: &Path, words: &str) -> Output {
    let output = program(folder, words).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn refused(folder: &Path, words: &str, parts: &[&str]) {
    let output = program(folder, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{words}: {said}");
}

#[test]
fn a_run_is_trained_sampled_swept_and_tabled() {
    let folder = tempfile::tempdir().unwrap();
    let small = "--limit 32 --epochs-vqsvae 1 --epochs-sdid 1 --batch-size 16 --samples 4 --distance-images 0 \
        --set vqsvae.time_steps=2 --set sdid.time_steps=2 --set evaluation.bound_images=8";
    output(folder.path(), &format!("train mnist --out run {small}"));
    let report = std::fs::read(folder.path().join("run/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let again = report["command"].as_str().unwrap();
    assert!(again.starts_with("spiking-diffusion train mnist --limit 32 --preset quick "), "{again}");

    output(folder.path(), "generate --run run --out images --n 3");
    assert!(folder.path().join("images/png/0000002.png").exists());
    output(folder.path(), "sweep --run run --out sweep --n 2 --temperatures 0.5,1");
    output(folder.path(), "sweep --run run --out sweep --n 2 --temperatures 1,2 --resume");
    let page = std::fs::read_to_string(folder.path().join("sweep/sweep.md")).unwrap();
    assert_eq!(page.matches("| gibbs").count(), 3, "{page}");
    let table = output(folder.path(), "table1 run").stdout;
    assert!(String::from_utf8(table).unwrap().contains("| synthetic-digits | `run` |"));
    // Before the network is looked at, which is not there.
    let again = |more: &str| format!("sweep --run run --n 2 --temperatures 1 --classifier none {more}");
    refused(folder.path(), &again("--out sweep"), &["sweep.json", "is there already"]);
    refused(
        folder.path(),
        "sweep --run run --n 3 --temperatures 1 --out sweep --resume",
        &["`sweep.images`"],
    );
    refused(folder.path(), &again("--out new --set colour=red"), &["`sampling.colour`", "no such field"]);
    refused(folder.path(), &again("--out new --set top_k=0"), &["`sampling.top_k`"]);
    refused(folder.path(), "classify --run run --samples 0", &["--samples", "at least 1"]);
    assert!(!folder.path().join("new").exists());
}

#[test]
fn another_model_is_trained_drawn_from_and_tabled_by_the_same_commands() {
    let folder = tempfile::tempdir().unwrap();
    let small = "--held-out 40 --limit 32 --epochs-vqsvae 1 --batch-size 16 --samples 4 --distance-images 0 --set vae.network.fsvae.body.time_steps=2";
    output(folder.path(), &format!("train mnist --model fsvae --out run {small}"));
    let report = std::fs::read(folder.path().join("run/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let again = report["command"].as_str().unwrap();
    assert!(again.contains(" --held-out 40 --limit 32 --model fsvae --preset quick "), "{again}");
    assert_eq!(report["test_images"], 40);
    output(folder.path(), &format!("train mnist --model fsvae --out run --resume {small}"));

    output(folder.path(), "generate --run run --out images --n 3");
    assert!(folder.path().join("images/png/0000002.png").exists());
    let table = output(folder.path(), "table1 run").stdout;
    let table = String::from_utf8(table).unwrap();
    let held_out = "Held out: the last 40 training images stand in the place of the test images";
    assert!(table.contains("| synthetic-digits | fsvae `run` |") && table.contains(held_out), "{table}");
    for (words, parts) in [
        ("generate --run run --class 3", ["--class", "`fsvae`"]),
        ("generate --run run --temperature 0.5", ["--temperature", "`fsvae`"]),
        ("generate --run run --set steps=3", ["--set", "`fsvae`"]),
        ("sweep --run run --out s --n 2 --temperatures 0.5,1", ["`fsvae`", "no codes"]),
        ("classify --run run", ["`fsvae`", "no codes"]),
        ("train mnist --model esvae --epochs-sdid 3", ["--epochs-sdid", "`esvae`"]),
        ("train mnist --model fsvae --set sdid.classes=10", ["sdid.classes", "`fsvae`"]),
        ("train mnist --held-out 100000", ["held_out", "leave some of the"]),
    ] {
        refused(folder.path(), words, &parts);
    }
}

#[test]
fn images_of_clusters_are_asked_for_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for (run, classes) in
        [("run", "sdid.classes=4"), ("plain", "sdid.classes=null --set classes_from=labels")]
    {
        let words = format!(
            "train mnist --out {run} --limit 32 --epochs-vqsvae 1 --epochs-sdid 1 --batch-size 16 --samples 4 --distance-images 0 \
             --set vqsvae.time_steps=2 --set evaluation.bound_images=8 --set {classes}"
        );
        output(folder.path(), &words);
    }
    for words in ["", "--cluster 2,0", "--cluster 3 --guidance 0.5", "--guidance 0.5"] {
        let out = words.replace(' ', "");
        output(folder.path(), &format!("generate --run run --out images{out} --n 2 {words}"));
    }
    for (words, parts) in [
        ("generate --run run --class 3", ["--class", "clusters.png", "--cluster"]),
        ("generate --run run --cluster 4", ["--cluster", "4 classes", "from 0"]),
        ("generate --run plain --class 3", ["--class", "without classes", "sdid.classes"]),
        ("generate --run plain --guidance 1", ["--guidance", "without classes", "sdid.classes"]),
        ("generate --class 3", ["--class", "are clusters", "--cluster"]),
        ("classify --run run --guidance 0.5", ["--guidance", "without labels", "classes_from=labels"]),
    ] {
        refused(folder.path(), words, &parts);
    }
}

#[test]
fn fid_into_a_closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let features = Seed(0).normal("features", (9, 3), (0., 1.), DType::F32, &Device::Cpu).unwrap();
    safetensors::save(&[("x", features)].into(), folder.path().join("a.safetensors")).unwrap();
    let words = "fid a.safetensors a.safetensors --all";
    assert!(String::from_utf8(output(folder.path(), words).stdout).unwrap().contains("coverage"));
    let mut child = program(folder.path(), words);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("panicked"), "{}: {said}", output.status);
}
