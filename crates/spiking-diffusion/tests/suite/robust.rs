//! What a run does when it is stopped, when its checkpoints are damaged, when the disk is full.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use spiking_diffusion::data::Dataset;
use spiking_diffusion::{
    Error, Experiment, ExperimentConfig, Features, Progress, Report, Result, RunDir, Silent,
};

use crate::{assert_same_bytes, example, few_digits, rejects, tiny, with_clusters};

/// Stops when a stage is at this step, and keeps what it is told.
struct StopAt {
    at: (&'static str, usize),
    now: (String, usize),
    messages: Vec<String>,
}

impl StopAt {
    fn new(stage: &'static str, step: usize) -> Self {
        Self { at: (stage, step), now: (String::new(), 0), messages: Vec::new() }
    }
}

impl Progress for StopAt {
    fn begin(&mut self, stage: &str, _total: usize, done: usize) {
        self.now = (stage.to_owned(), done);
    }
    fn advance(&mut self, done: usize, _loss: Option<f64>) {
        self.now.1 = done;
    }
    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }
    fn stop_requested(&self) -> bool {
        self.now.0 == self.at.0 && self.now.1 >= self.at.1
    }
}

fn run(cfg: &ExperimentConfig, data: &Dataset, out: &Path, progress: &mut dyn Progress) -> Result<Report> {
    Experiment::new(cfg, data).out(out).resume(true).run(progress)
}

/// A run stopped in the autoencoder's training after so many steps.
fn stopped_at(step: usize) -> (Dataset, ExperimentConfig, tempfile::TempDir) {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = tiny(&data);
    let error = run(&cfg, &data, folder.path(), &mut StopAt::new("vqsvae", step)).unwrap_err();
    assert!(
        matches!(error, Error::Training(snn_train::Error::Stopped { done, .. }) if done == step),
        "{error}"
    );
    (data, cfg, folder)
}

#[test]
fn a_run_stopped_in_every_stage_ends_as_one_that_was_not() {
    let (data, cfg, folder) = stopped_at(4);
    let whole = tempfile::tempdir().unwrap();
    run(&cfg, &data, whole.path(), &mut Silent).unwrap();
    for (stage, step) in
        [("vqsvae", 7), ("encode", 1), ("sdid", 5), ("sample", 1), ("evaluate", 1), ("bound", 1)]
    {
        rejects(run(&cfg, &data, folder.path(), &mut StopAt::new(stage, step)), &[stage, "stopped"]);
    }
    run(&cfg, &data, folder.path(), &mut Silent).unwrap();
    assert_same_bytes(whole.path(), folder.path());
}

/// The stages that not every run has.
#[test]
fn a_run_stopped_while_it_finds_clusters_or_measures_ends_as_one_that_was_not() {
    let (data, folder) = (few_digits(), tempfile::tempdir().unwrap());
    let cfg = with_clusters(&tiny(&data)).with("evaluation.distance_images", "20").unwrap();
    let run = |out: &str, progress: &mut dyn Progress| {
        let experiment = Experiment::new(&cfg, &data).out(folder.path().join(out)).resume(true);
        experiment.features(Features::Classifier).run(progress)
    };
    let report = run("whole", &mut Silent).unwrap();
    for (stage, step) in [("clusters", 1), ("classifier", 3), ("features", 1), ("neighbours", 1)] {
        rejects(run("stopped", &mut StopAt::new(stage, step)), &[&format!("`{stage}`"), "stopped"]);
    }
    assert_eq!(run("stopped", &mut Silent).unwrap().metrics, report.metrics);
    assert_same_bytes(&folder.path().join("whole"), &folder.path().join("stopped"));
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let whole = tempfile::tempdir().unwrap();
    let (data, cfg, _first) = stopped_at(1);
    run(&cfg, &data, whole.path(), &mut Silent).unwrap();
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [Damage; 4] = [
        |bytes| bytes[..bytes.len() / 2].to_vec(),
        |_| Vec::new(),
        |bytes| vec![0; bytes.len()],
        |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        },
    ];
    for damage in damages {
        let (data, cfg, folder) = stopped_at(7);
        let last = folder.path().join("vqsvae.state.safetensors");
        let bytes = std::fs::read(&last).unwrap();
        std::fs::write(&last, damage(bytes)).unwrap();
        let mut told = StopAt::new("never", 0);
        run(&cfg, &data, folder.path(), &mut told).unwrap();
        let [message] = &told.messages[..] else { panic!("{:?}", told.messages) };
        assert!(message.contains("vqsvae.state.safetensors") && message.contains("at step 6"), "{message}");
        assert_same_bytes(whole.path(), folder.path());
    }
}

#[test]
fn damage_without_an_earlier_checkpoint_is_an_error() {
    let (data, cfg, folder) = stopped_at(2);
    let last = folder.path().join("vqsvae.state.safetensors");
    std::fs::write(&last, "not a checkpoint").unwrap();
    rejects(
        run(&cfg, &data, folder.path(), &mut Silent),
        &["vqsvae.state.safetensors", "no earlier checkpoint", "`vqsvae`"],
    );
    let (data, cfg, folder) = stopped_at(7);
    for kind in ["state", "previous-state"] {
        std::fs::write(folder.path().join(format!("vqsvae.{kind}.safetensors")), "no").unwrap();
    }
    rejects(
        run(&cfg, &data, folder.path(), &mut Silent),
        &["vqsvae.state.safetensors", "vqsvae.previous-state.safetensors", "delete both"],
    );
}

/// Notepad and PowerShell put a byte-order mark in front of what they save.
#[test]
fn json_that_a_person_saved_again_is_read() {
    let (cfg, folder) = (tiny(&few_digits()), tempfile::tempdir().unwrap());
    let run = RunDir::open(folder.path(), &cfg, false).unwrap();
    run.record_seconds("vqsvae", 1.5).unwrap();
    drop(run);
    let (config, timing) = (folder.path().join("config.json"), folder.path().join("timing.json"));
    let text = std::fs::read_to_string(&config).unwrap();
    for path in [&config, &timing] {
        std::fs::write(path, [b"\xef\xbb\xbf", &std::fs::read(path).unwrap()[..]].concat()).unwrap();
    }
    let run = RunDir::open(folder.path(), &cfg, true).unwrap();
    assert_eq!(run.seconds().unwrap()["vqsvae"], 1.5);
    drop(run);
    let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
    };
    for wide in [wide(u16::to_le_bytes), wide(u16::to_be_bytes)] {
        std::fs::write(&config, wide).unwrap();
        rejects(RunDir::open(folder.path(), &cfg, true), &["config.json", "UTF-16", "save it as UTF-8"]);
    }
}

#[test]
fn a_config_of_another_version_is_named_as_such() {
    let (data, cfg, folder) = stopped_at(1);
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let older: Vec<&str> = text.lines().filter(|line| !line.contains("sha256")).collect();
    let older = older.join("\n").replace(r#""test_images": 24,"#, r#""test_images": 24"#);
    std::fs::write(&path, older).unwrap();
    let parts = ["config.json", "missing field `sha256`", "another version"];
    rejects(run(&cfg, &data, folder.path(), &mut Silent), &parts);
    rejects(spiking_diffusion::Trained::load(folder.path(), &Device::Cpu), &parts);
    std::fs::write(&path, "{").unwrap();
    rejects(run(&cfg, &data, folder.path(), &mut Silent), &["config.json", "is damaged"]);
}

/// A small disk of its own; none where that is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    #[allow(clippy::print_stderr, reason = "says that it was skipped")]
    fn mount(kib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: mounting a small disk needs root on Linux");
        None
    }

    fn grow(&self, kib: usize) {
        let size = format!("remount,size={kib}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_the_last_good_checkpoint() {
    let (data, cfg, measured) = stopped_at(3);
    let state = std::fs::metadata(measured.path().join("vqsvae.state.safetensors")).unwrap().len();
    // Room for one and a half states and the small files.
    let Some(disk) = SmallDisk::mount(state as usize * 3 / 2 / 1024 + 32) else { return };
    let out = disk.0.path().join("run");
    rejects(run(&cfg, &data, &out, &mut Silent), &["vqsvae.state.safetensors", "No space left"]);
    assert!(out.join("vqsvae.previous-state.safetensors").exists());
    assert!(!out.join("vqsvae.state.safetensors.tmp").exists());
    disk.grow(64 * 1024);
    let mut told = StopAt::new("never", 0);
    run(&cfg, &data, &out, &mut told).unwrap();
    assert!(told.messages[0].contains("at step 3"), "{:?}", told.messages);
    let whole = tempfile::tempdir().unwrap();
    run(&cfg, &data, whole.path(), &mut Silent).unwrap();
    assert_same_bytes(whole.path(), &out);
}

/// A tiny run of the example `mnist`.
fn tiny_mnist(out: &Path) -> Option<Command> {
    let mut command = example("mnist")?;
    command.env_remove("SPIKING_DATA_DIR").args(["--limit", "96", "--samples", "2", "--out"]).arg(out);
    for setting in ["vqsvae.encoder_channels=[4,4]", "vqsvae.decoder_channels=[4,4]", "vqsvae.time_steps=1"] {
        command.args(["--set", setting]);
    }
    for setting in ["sdid.channels=[4,4,4,4,4]", "sdid.time_steps=1", "evaluation.bound_images=4"] {
        command.args(["--set", setting]);
    }
    command.args(["--set", "vqsvae_training.epochs=100", "--epochs-sdid", "1"]).stderr(Stdio::piped());
    Some(command)
}

#[cfg(unix)]
#[test]
fn signals_leave_a_checkpoint_and_say_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let Some(mut command) = tiny_mnist(&out) else { return };
        let child = command.arg("--resume").spawn().unwrap();
        let began = Instant::now();
        // Written as the training begins, so the program listens.
        let csv = || std::fs::metadata(out.join("vqsvae.csv")).ok().and_then(|file| file.modified().ok());
        let before = csv();
        while csv() == before {
            assert!(began.elapsed() < Duration::from_secs(60), "never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("stopped in stage `vqsvae`") && said.trim_end().ends_with("--resume"),
            "{said}"
        );
        assert!(out.join("vqsvae.state.safetensors").exists());
    }
    let finished = tiny_mnist(&out).unwrap().arg("--resume").output().unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    assert!(out.join("report.json").exists());
}
