//! The programs from outside: what they print, where that cannot be written, and what they make of the environment.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use spiking_diffusion::{Experiment, Silent};

use crate::{example, few_digits, tiny};

/// The output of a program whose standard output nobody reads.
fn with_closed_pipe(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

/// The output of a program whose standard output is on a full disk.
fn with_full_disk(mut command: Command) -> Output {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    command.stdout(full).output().unwrap()
}

/// A finished run in this folder.
fn finish(run: &Path) {
    let data = few_digits();
    Experiment::new(&tiny(&data), &data).out(run).run(&mut Silent).unwrap();
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, said: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(said) && !text.contains("panicked"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_pipe_is_a_quiet_end_and_a_full_disk_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(&run);
    let programs: [(&str, &[&str]); 6] = [
        ("absorbing_toy", &[]),
        ("lif_neuron", &["--out", "drawn"]),
        ("surrogate_gradient", &["--out", "drawn"]),
        ("table1", &["run"]),
        ("table1", &["--json", "run"]),
        ("mnist", &["--help"]),
    ];
    for (name, arguments) in programs {
        let command = || {
            let mut command = example(name)?;
            command.current_dir(&folder).args(arguments);
            Some(command)
        };
        let Some(closed) = command() else { continue };
        let output = with_closed_pipe(closed);
        assert_ends(&output, 0, "");
        assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_ends(&with_full_disk(command().unwrap()), 1, "standard output: No space left on device");
    }
}

#[test]
fn programs_that_read_their_own_words_say_how_they_are_used() {
    let folder = tempfile::tempdir().unwrap();
    finish(&folder.path().join("run"));
    let output = |name: &str, words: &[&OsStr]| {
        let mut command = example(name)?;
        Some(command.current_dir(&folder).args(words).output().unwrap())
    };
    for (name, few, many) in
        [("inpaint", "", "run out.png more"), ("completions", "run weights.pth", "run w.pth s.npz 9 more")]
    {
        let usage = format!("usage: {name} RUN_DIR");
        let Some(help) = output(name, &["--help".as_ref()]) else { continue };
        assert_ends(&help, 0, "");
        assert!(String::from_utf8_lossy(&help.stdout).starts_with(&usage));
        for words in [few, many] {
            let words: Vec<&OsStr> = words.split_whitespace().map(OsStr::new).collect();
            assert_ends(&output(name, &words).unwrap(), 1, &usage);
        }
    }
    // Other digits are not completed in the place of the run's.
    let Some(other) = output("inpaint", &["run".as_ref()]) else { return };
    assert_ends(&other, 1, "`data.name` = few-digits");
}

#[cfg(unix)]
#[test]
fn a_word_that_is_no_unicode_is_a_path_like_any() {
    use std::os::unix::ffi::OsStrExt;
    let Some(mut command) = example("inpaint") else { return };
    let output = command.arg(OsStr::from_bytes(b"x\xff")).output().unwrap();
    assert_ends(&output, 1, "x\u{fffd}");
}

#[test]
fn empty_variables_are_unset() {
    let Some(mut command) = example("mnist") else { return };
    command.env("SPIKING_DATA_DIR", "").env("SPIKING_INCEPTION", "").args(["--set", "nonsense"]);
    assert_ends(&command.output().unwrap(), 1, "dotted.key=value");
    // The flag itself wants a value.
    command.args(["--data-dir", ""]);
    assert_ends(&command.output().unwrap(), 2, "--data-dir");
}

#[cfg(unix)]
#[test]
fn a_table_holds_the_good_runs_and_names_the_bad_one() {
    use std::os::unix::ffi::OsStrExt;
    let Some(mut command) = example("table1") else { return };
    let folder = tempfile::tempdir().unwrap();
    finish(&folder.path().join("good"));
    let bad = std::ffi::OsStr::from_bytes(b"x\xff");
    let output = command.current_dir(&folder).arg("--json").args([bad, "good".as_ref()]).output().unwrap();
    assert_ends(&output, 1, "x\u{fffd}");
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&table["runs"][0]["run"], &table["runs"][1]["run"]), (&"x\u{fffd}".into(), &"good".into()));
    assert!(table["runs"][0]["error"].is_string() && table["runs"][1]["ours"][0].is_f64(), "{table}");
}

#[test]
fn numbers_with_a_hyphen_are_refused_by_flag_and_value() {
    for (name, arguments, parts) in [
        ("mnist", &["--seed", "-1"][..], ["'-1' for '--seed <N>'", "whole number from 0 to"]),
        ("generate", &["--temperature", "-1"], ["'-1' for '--temperature <T>'", "positive, finite"]),
        ("classify", &["--threshold", "-1"], ["'-1' for '--threshold <P>'", "[0, 1]"]),
    ] {
        let Some(mut command) = example(name) else { continue };
        let output = command.args(arguments).output().unwrap();
        parts.iter().for_each(|part| assert_ends(&output, 2, part));
    }
}
