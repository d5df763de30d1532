//! From words on the command line to a config.

use super::*;

fn parse(words: &[&str]) -> std::result::Result<Arguments, clap::Error> {
    Arguments::try_parse_from([&["mnist"], words].concat())
}

/// The config that these words ask for, on the built-in digits.
fn config_of(words: &[&str]) -> Result<ExperimentConfig> {
    config(&parse(words).unwrap(), &crate::data::synthetic_digits()?, 1)
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn the_command_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_flag_reaches_its_field() {
    let cfg = config_of(&[
        "--preset",
        "released-code",
        "--seed",
        "7",
        "--epochs-vqsvae",
        "3",
        "--epochs-sdid",
        "4",
        "--batch-size",
        "16",
        "--samples",
        "9",
        "--set",
        "vqsvae.lif.tau=2.5",
        "--set",
        "weighting=uniform",
    ])
    .unwrap();
    assert_eq!((cfg.preset, cfg.seed, cfg.samples), (Preset::ReleasedCode, Seed(7), 9));
    assert_eq!((cfg.vqsvae_training.epochs, cfg.sdid_training.epochs), (3, 4));
    assert_eq!((cfg.vqsvae_training.batch_size, cfg.sdid_training.batch_size), (16, 16));
    assert_eq!((cfg.vqsvae.lif.tau, cfg.weighting.factor(3, 4)), (Some(2.5), 1.));
    for (name, preset) in [("quick", Preset::Quick), ("cpu", Preset::Cpu), ("paper", Preset::Paper)] {
        assert_eq!(config_of(&["--preset", name]).unwrap().preset, preset);
    }
    let arguments =
        parse(&["--data-dir", "d", "--out", "o", "--download", "--resume", "--limit", "5"]).unwrap();
    assert_eq!((arguments.input.data_dir, arguments.out), (Some("d".into()), Some("o".into())));
    assert!(arguments.input.download);
    assert_eq!((arguments.resume, arguments.limit), (true, Some(5)));
}

#[test]
fn nonsense_is_named() {
    assert!(message(config_of(&["--set", "samples"])).contains("dotted.key=value"));
    assert!(message(config_of(&["--set", "colour=red"])).contains("`colour` = red"));
    assert!(message(config_of(&["--set", "data.synthetic=false"])).contains("data.synthetic"));
    assert!(message(config_of(&["--epochs-sdid", "0"])).contains("sdid_training.epochs"));
    assert!(message(config_of(&["--batch-size", "1"])).contains("batch_size"));
    for words in [&["--preset", "slow"], &["--seed", "-1"], &["--limit", "x"]] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn numbers_that_are_refused_are_named_with_their_flag_and_a_reason() {
    let counts =
        ["--limit", "--epochs-vqsvae", "--epochs-sdid", "--batch-size", "--samples", "--distance-images"];
    for flag in counts.into_iter().chain(["--seed"]) {
        for value in ["-1", "-inf", "nan", "inf", "0.5", "99999999999999999999", "x"] {
            let text = parse(&[flag, value]).unwrap_err().to_string();
            let parts =
                [&format!("invalid value '{value}' for '{flag} <"), "must be a whole number from 0 to"];
            assert!(parts.iter().all(|part| text.contains(part)), "{flag} {value}: {text}");
        }
    }
}

#[test]
fn devices() {
    let open = |flags: &[&str]| parse(flags).unwrap().device.open(|| 0);
    assert!(open(&[]).unwrap().is_cpu());
    for name in ["gpu", "cuda:x", "cuda:", "cpu:0", ""] {
        let text = message(open(&["--device", name]));
        assert!(text.contains("--device") && text.contains(name), "{text}");
    }
    assert!(
        message(open(&["--precision", "bf16"])).contains("`--precision` = bf16: products are f32 on a CPU")
    );
    assert!(parse(&["--precision", "f16"]).unwrap_err().to_string().contains("must be f32, tf32 or bf16"));
}

#[test]
#[cfg(not(feature = "download"))]
fn a_program_without_downloads_says_so() {
    let input = input::Input { data_dir: None, download: true };
    let text = message(input.load(KnownSet::Kmnist, Partial::Reject, &mut crate::Silent));
    assert!(text.contains("--download") && text.contains("--features download"), "{text}");
}
