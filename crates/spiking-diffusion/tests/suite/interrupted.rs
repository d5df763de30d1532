//! Runs in a process of their own: killed in the middle, resumed, on one thread and on two.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::snn_core::Seed;
use spiking_diffusion::{Experiment, ExperimentConfig, Progress, RunDir};

use crate::{assert_same_bytes, tiny, with_clusters};

const OUT: &str = "SPIKING_TEST_OUT";

/// Not a test: what the child processes of the tests below run.
#[test]
#[ignore = "the body of a child process"]
fn child() {
    let Some(out) = std::env::var_os(OUT) else { return };
    let data = noise();
    Experiment::new(&config(&data), &data).out(out).resume(true).run(&mut Announce).unwrap();
}

/// With every stage that the presets have.
fn config(data: &Dataset) -> ExperimentConfig {
    with_clusters(&tiny(data))
}

/// Images that are there at once: most of a child's time would go into drawing digits.
fn noise() -> Dataset {
    let mut rng = Seed(0).rng("images");
    let mut split =
        |n: usize| Split::new((0..n * 784).map(|_| rng.random()).collect(), vec![0; n], (1, 28, 28)).unwrap();
    Dataset::new("noise", split(160), split(24)).unwrap()
}

/// Tells the parent process which stage begins. (Not by `println`, which the test harness keeps.)
struct Announce;

impl Progress for Announce {
    fn begin(&mut self, stage: &str, _total: usize, _done: usize) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "begin {stage}").unwrap();
    }
}

fn start(out: &Path, threads: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "interrupted::child", "--ignored", "--quiet"])
        .env(OUT, out)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(out: &Path, threads: usize) {
    assert!(start(out, threads).wait_with_output().unwrap().status.success());
}

/// When each stage of a whole run begins, and the end.
fn timeline(out: &Path) -> Vec<(String, Instant)> {
    let mut child = start(out, 2);
    let mut begins: Vec<_> = begins(&mut child).map(|stage| (stage, Instant::now())).collect();
    assert!(child.wait().unwrap().success());
    begins.push((String::new(), Instant::now()));
    begins
}

/// The stages as they begin.
fn begins(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::<ChildStdout>::new(child.stdout.take().unwrap()).lines();
    lines.filter_map(|line| Some(line.ok()?.split_once("begin ")?.1.to_owned()))
}

/// Starts a run and kills it so long after this stage's beginning; false if it was already past that stage.
fn kill_in(out: &Path, stage: &str, delay: Duration) -> bool {
    let mut child = start(out, 2);
    let mut begins = begins(&mut child); // as long as the child, which else writes to nobody
    let reached = begins.any(|begun| begun == stage);
    std::thread::sleep(if reached { delay } else { Duration::ZERO });
    child.kill().unwrap();
    child.wait().unwrap();
    reached
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    finish(&one, 1);
    finish(&two, 2);
    assert!(one.join("clusters.safetensors").exists() && one.join("clusters.png").exists());
    assert_same_bytes(&one, &two);
}

/// Ten kills in each of both trainings, at random moments of it; a run that got past a stage in spite of them makes room
/// for another.
#[test]
fn runs_killed_twenty_times_end_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let times = timeline(&whole);
    let mut rng = Seed(0).rng("moments");
    let mut out = folder.path().join("killed");
    for stage in ["vqsvae", "sdid"] {
        let at = times.iter().position(|(name, _)| name == stage).unwrap();
        let length = times[at + 1].1 - times[at].1;
        let mut kills = 0;
        while kills < 10 {
            if kill_in(&out, stage, length.mul_f64(rng.random_range(0. ..1.))) {
                kills += 1;
                continue;
            }
            finish(&out, 1);
            assert_same_bytes(&whole, &out);
            out = folder.path().join(format!("killed after {stage} {kills}"));
        }
    }
    finish(&out, 1);
    assert_same_bytes(&whole, &out);
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let held = RunDir::open(folder.path(), &config(&noise()), false).unwrap();
    assert!(!start(folder.path(), 1).wait_with_output().unwrap().status.success());
    assert!(!folder.path().join("vqsvae.csv").exists());
    drop(held);
    finish(folder.path(), 1);
}
