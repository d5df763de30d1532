//! On digits that a program draws.

use clap::CommandFactory;

use super::*;

fn run_with(words: &[&str]) -> Result<String> {
    let arguments = Arguments::try_parse_from([&["classify"], words].concat()).unwrap();
    // Whatever the environment names.
    judge(&Arguments { input: Input::default(), ..arguments }, &mut crate::Silent)
}

#[test]
fn the_command_is_sound() {
    Arguments::command().debug_assert();
    for words in [
        &["--run", "a", "--images", "b"][..],
        &["--samples", "x"],
        &["--seed", "-1"],
        &["--data-set", "x"],
        &["--threshold", "2"],
        &["--allow-partial"],
        &["--samples", "3"],
        &["--sample-seed", "3"],
    ] {
        assert!(Arguments::try_parse_from([&["classify"], words].concat()).is_err(), "{words:?}");
    }
    for (flag, reason) in [
        ("--samples", "whole number"),
        ("--epochs", "whole number"),
        ("--seed", "whole number"),
        ("--sample-seed", "whole number"),
        ("--threshold", "[0, 1]"),
    ] {
        let text = Arguments::try_parse_from(["classify", flag, "-1"]).unwrap_err().to_string();
        assert!(text.contains(&format!("invalid value '-1' for '{flag} <")), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn trains_once_then_loads_and_scores_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // In a folder that is not there yet.
    let (classifier, images) = (path("new/c.safetensors"), path("images.safetensors"));
    let table = run_with(&["--classifier", &classifier, "--epochs", "1"]).unwrap();
    assert!(table.contains("test accuracy") && table.contains("test images"), "{table}");

    let digits = crate::data::synthetic_digits().unwrap().test.range(0..7, &Device::Cpu).unwrap();
    let tensors =
        std::collections::HashMap::from([("images", (digits.narrow(0, 0, 7).unwrap() + 0.5).unwrap())]);
    candle_core::safetensors::save(&tensors, &images).unwrap();
    let before = std::fs::read(&classifier).unwrap();
    let words = ["--classifier", &classifier, "--images", &images, "--epochs", "1", "--seed", "0", "--json"];
    let json: serde_json::Value = serde_json::from_str(&run_with(&words).unwrap()).unwrap();
    assert_eq!((&json["samples"]["images"], &json["classifier"]["config"]["epochs"]), (&7.into(), &1.into()));
    assert_eq!(std::fs::read(&classifier).unwrap(), before);
    for (flag, other) in [("--epochs", "2"), ("--seed", "3")] {
        let error = run_with(&["--classifier", &classifier, flag, other]).unwrap_err().to_string();
        let named = error.contains(&format!("`{flag}` = {other}"));
        assert!(named && error.contains("was trained with"), "{error}");
    }

    // A judge that has seen what is held out is none.
    let held_out = crate::data::synthetic_digits().unwrap().hold_out(100).unwrap();
    let arguments = Arguments::try_parse_from(["classify"]).unwrap();
    let (file, judge) = (Path::new(&classifier), Classifier::load(&classifier).unwrap());
    let error = fitting(&arguments, &held_out, file, judge).unwrap_err().to_string();
    assert!(error.contains("are held out") && error.contains("c.safetensors"), "{error}");

    // The same images as files.
    let pngs = path("pngs");
    std::fs::create_dir(&pngs).unwrap();
    let file = |i: usize| Path::new(&pngs).join(format!("{i}.png"));
    for i in 0..7 {
        let pixels = (digits.narrow(0, i, 1).unwrap().affine(255., 127.5)).unwrap().flatten_all().unwrap();
        let bytes = pixels.to_vec1::<f32>().unwrap().into_iter().map(|x| x.round() as u8).collect();
        image::GrayImage::from_raw(28, 28, bytes).unwrap().save(file(i)).unwrap();
    }
    let words = ["--classifier", &classifier, "--images", &pngs, "--json"];
    let of_files: serde_json::Value = serde_json::from_str(&run_with(&words).unwrap()).unwrap();
    for field in ["images", "confident_share", "predicted"] {
        assert_eq!(of_files["samples"][field], json["samples"][field], "{field}");
    }
    image::RgbImage::from_pixel(28, 28, image::Rgb([9, 8, 7])).save(file(7)).unwrap();
    let error = run_with(&words).unwrap_err().to_string();
    assert!(error.contains("pngs") && error.contains("colours"), "{error}");

    let error = run_with(&["--classifier", &classifier, "--images", &path("none")]).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    let error = run_with(&["--classifier", &images]).unwrap_err().to_string();
    assert!(error.contains("images.safetensors"), "{error}");
}

#[test]
fn images_that_do_not_fit_are_refused_before_a_classifier_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let classifier = path("c.safetensors");
    let refused = |name: &str, parts: &[&str]| {
        let images = path(name);
        let error = run_with(&["--classifier", &classifier, "--images", &images]).unwrap_err().to_string();
        assert!(error.contains(name) && parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!Path::new(&classifier).exists());
    };
    for (name, shape) in [("small.safetensors", &[2usize, 1, 8, 8][..]), ("flat.safetensors", &[2, 784])] {
        let zeros = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tensors = std::collections::HashMap::from([("images", zeros)]);
        candle_core::safetensors::save(&tensors, path(name)).unwrap();
    }
    refused("small.safetensors", &["[1, 8, 8]", "[1, 28, 28]"]);
    refused("flat.safetensors", &["[N, C, H, W]", "[2, 784]"]);
    let header = br#"{"images":{"dtype":"F32","shape":[0,1,28,28],"data_offsets":[0,0]}}"#;
    let empty = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    std::fs::write(path("empty.safetensors"), empty).unwrap();
    refused("empty.safetensors", &["an image at least", "[0, 1, 28, 28]"]);
}
