//! On features and statistics, which need no network, and by a network of a few weights.

use candle_core::{DType, Device, Tensor, safetensors};
use snn_core::Seed;
use spiking_diffusion_metrics::FeatureStats;

use super::*;

fn parse(words: &[&str]) -> Arguments {
    Arguments::try_parse_from([&["fid"], words].concat()).unwrap()
}

fn run_with(words: &[&str]) -> Result<Option<String>> {
    measured(&parse(words), None)
}

#[track_caller]
fn refused(words: &[&str], parts: &[&str]) {
    let error = run_with(words).unwrap_err().to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

/// Two files of features, and the statistics of the first.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["a", "b"] {
            let rows = Seed(0).normal(name, (40, 3), (0., 1.), DType::F32, &Device::Cpu).unwrap();
            files.save(&format!("{name}.safetensors"), rows);
        }
        assert_eq!(
            run_with(&[&files.path("a.safetensors"), "--save-stats", &files.path("a.npz")]).unwrap(),
            None
        );
        files
    }

    fn save(&self, name: &str, tensor: Tensor) {
        safetensors::save(&[("x", tensor)].into(), self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// FAD's network, but for its sizes, and two sets of twelve images.
    fn with_network() -> Self {
        let files = Self::new();
        let widths = [1, 3, 4, 5, 6];
        let mut tensors = std::collections::HashMap::new();
        let mut put = |name: String, shape: &[usize]| {
            let values = Seed(1).normal(&name, shape, (0., 0.3), DType::F32, &Device::Cpu).unwrap();
            tensors.insert(name, values);
        };
        for (i, pair) in widths.windows(2).enumerate() {
            put(format!("encoder.{i}.0.weight"), &[pair[1], pair[0], 3, 3]);
            for name in ["0.bias", "1.weight", "1.bias"] {
                put(format!("encoder.{i}.{name}"), &[pair[1]]);
            }
        }
        put("latent_layer.weight".into(), &[7, 4 * 6]);
        put("latent_layer.bias".into(), &[7]);
        safetensors::save(&tensors, files.path("network.safetensors")).unwrap();
        for name in ["x", "y"] {
            let images = Seed(2).normal(name, (12, 1, 32, 32), (0.5, 0.1), DType::F32, &Device::Cpu).unwrap();
            files.save(&format!("{name}.safetensors"), images);
        }
        files
    }

    fn json(&self, a: &str, words: &[&str]) -> serde_json::Value {
        let (a, b) = (self.path(a), self.path("b.safetensors"));
        let words = [&[&*a, &*b, "--json"], words].concat();
        serde_json::from_str(&run_with(&words).unwrap().unwrap()).unwrap()
    }
}

#[test]
fn features_give_every_metric() {
    let files = Files::new();
    let (a, b) = (files.path("a.safetensors"), files.path("b.safetensors"));
    let one = run_with(&[&a, &b]).unwrap().unwrap();
    assert!(one.starts_with("FID:  ") && one.lines().count() == 1, "{one}");
    let all = run_with(&[&a, &b, "--all"]).unwrap().unwrap();
    assert!(all.starts_with(&one) && all.contains("\nKID:  ") && all.contains("\nprecision "), "{all}");
    let json = files.json("a.safetensors", &[]);
    assert!(json["kid_mean"].is_f64() && json["prdc"].is_null(), "{json}");
    assert!(!json["warnings"].to_string().contains("left out"), "{json}");
}

#[test]
fn what_statistics_cannot_give_is_said() {
    let files = Files::new();
    let (json, all) = (files.json("a.npz", &[]), files.json("a.npz", &["--all"]));
    for (json, missing) in [(&json, "KID is"), (&all, "KID, precision, recall, density and coverage are")] {
        let warnings = json["warnings"].to_string();
        assert!(
            warnings.contains(&format!("{missing} left out")) && warnings.contains("a.npz"),
            "{warnings}"
        );
    }
    // FID is that of the features, and asks for nothing else.
    assert_eq!(json["fid"], files.json("a.safetensors", &[])["fid"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let files = Files::new();
    files.save("vector.safetensors", Tensor::ones(3, DType::F32, &Device::Cpu).unwrap());
    files.save("images.safetensors", Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu).unwrap());
    let other = files.path("b.safetensors");
    for (name, part) in [
        ("none.safetensors", "none.safetensors"),
        ("none", "neither a folder, .npz nor .safetensors"),
        ("vector.safetensors", "expected 2 or 4 axes, got [3]"),
        ("images.safetensors", "`--weights`"),
    ] {
        let error = run_with(&[&files.path(name), &other]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = run_with(&[&other, &other, "--dims", "7"]).unwrap_err().to_string();
    assert!(error.contains('7'), "{error}");
}

#[test]
fn an_error_says_which_side_it_is_of() {
    let files = Files::new();
    files.save("one.safetensors", Tensor::ones((1, 3), DType::F32, &Device::Cpu).unwrap());
    let (good, one) = (files.path("a.safetensors"), files.path("one.safetensors"));
    refused(&[&good, &one], &["one.safetensors: samples: got 1, need at least 2"]);
    // A file that names itself is named once.
    let missing = files.path("none.safetensors");
    let error = run_with(&[&good, &missing]).unwrap_err().to_string();
    assert_eq!(error.matches("none.safetensors").count(), 1, "{error}");
}

#[test]
fn statistics_are_written_once_and_over_nothing() {
    let files = Files::new();
    let (good, new) = (files.path("a.safetensors"), files.path("new.npz"));
    refused(&[&good, "--save-stats", &files.path("a.npz")], &["a.npz", "is there already"]);
    // What is wrong with B is found before A is computed.
    refused(&[&good, &files.path("none.npz"), "--save-stats", &new], &["none.npz"]);
    assert!(!Path::new(&new).exists());
}

#[test]
fn saved_statistics_do_not_depend_on_what_else_is_measured() {
    let files = Files::with_network();
    let [x, y, network] = ["x", "y", "network"].map(|name| files.path(&format!("{name}.safetensors")));
    let fad = ["--protocol", "fad", "--weights", &network, "--batch-size", "5", "--save-stats"];
    let saved = |name: &str, words: &[&str]| {
        let path = files.path(name);
        run_with(&[words, &fad[..], &[&*path]].concat()).unwrap();
        FeatureStats::read_npz(path).unwrap()
    };
    let alone = saved("alone.npz", &[&x]);
    assert_eq!((alone.dims(), alone.count()), (7, Some(12)));
    assert_eq!(alone, saved("beside.npz", &[&x, &y]));
    assert_eq!(alone, saved("all.npz", &[&x, &y, "--all"]));
}

#[test]
fn flags_that_nothing_would_heed_are_refused() {
    let files = Files::new();
    let (a, b) = (files.path("a.safetensors"), files.path("b.safetensors"));
    refused(&[&a, &b, "--kernel-weights", "k.pth"], &["--kernel-weights", "k.pth", "a.safetensors"]);
    for words in [&["--dims", "2048"][..], &["--download"], &["--kernel-weights", "k.pth"]] {
        refused(&[&[&*a, &*b, "--protocol", "fad"], words].concat(), &[words[0], "`fad`"]);
    }
    let alone = ["fid", &a, "--save-stats", "s.npz", "--kernel-weights", "k.pth"];
    assert!(Arguments::try_parse_from(alone).is_err());
}

/// They are of the FID network: another must not get them.
#[test]
fn the_users_own_weights_are_of_the_fid_network_alone() {
    let files = Files::new();
    files.save("images.safetensors", Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu).unwrap());
    let images = files.path("images.safetensors");
    let with = |words: &[&str]| {
        let arguments = parse(&[&[&*images, &*images], words].concat());
        measured(&arguments, Some(Path::new("own.pth"))).unwrap_err().to_string()
    };
    assert!(with(&[]).contains("own.pth") && with(&["--protocol", "clean-fid"]).contains("own.pth"));
    assert!(with(&["--weights", "other.pth"]).contains("other.pth"));
    for protocol in ["paper", "fad"] {
        let error = with(&["--protocol", protocol]);
        assert!(error.contains("`--weights` = none") && !error.contains("own.pth"), "{error}");
    }
}

#[cfg(not(feature = "download"))]
#[test]
fn a_program_without_downloads_says_so() {
    let files = Files::new();
    files.save("images.safetensors", Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu).unwrap());
    let images = files.path("images.safetensors");
    let error = run_with(&[&images, &images, "--download"]).unwrap_err().to_string();
    assert!(error.contains("--features download"), "{error}");
}

#[test]
fn fad_is_called_fad() {
    let files = Files::new();
    let json = files.json("a.safetensors", &["--protocol", "fad"]);
    assert!(json["fad"].is_f64() && json["fid"].is_null() && json["kid_mean"].is_null(), "{json}");
    assert_eq!((json["protocol"].as_str(), json["dims"].as_u64()), (Some("fad"), Some(3)));
    let (a, b) = (files.path("a.safetensors"), files.path("b.safetensors"));
    let text = run_with(&[&a, &b, "--protocol", "fad"]).unwrap().unwrap();
    assert!(text.starts_with("FAD:  "), "{text}");
    files.save("images.safetensors", Tensor::zeros((4, 1, 28, 28), DType::F32, &Device::Cpu).unwrap());
    let error = run_with(&[&files.path("images.safetensors"), &b, "--protocol", "fad"]).unwrap_err();
    assert!(error.to_string().contains("mnist_64.pth"), "{error}");
}
