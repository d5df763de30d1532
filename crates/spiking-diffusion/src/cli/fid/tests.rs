//! On features and statistics, which need no network.

use candle_core::{DType, Device, Tensor, safetensors};
use snn_core::Seed;

use super::*;

fn run_with(words: &[&str]) -> Result<Option<String>> {
    measured(&Arguments::try_parse_from([&["fid"], words].concat()).unwrap())
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
