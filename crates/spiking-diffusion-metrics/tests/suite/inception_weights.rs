//! Weight files: whole, partial, misshapen, garbage.

use std::fs;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use spiking_diffusion_metrics::{
    FeatureExtractor, Inception, InceptionConfig, InceptionLayer, InceptionWeights,
};

use crate::inception::{hashed_images, hashed_tensors};
use crate::message;

const CONFIG: InceptionConfig = InceptionConfig::pytorch_fid(InceptionLayer::Pool64);

/// A folder with the weights of the first layer in it.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    candle_core::safetensors::save(&hashed_tensors(&CONFIG), &path).unwrap();
    (folder, path)
}

#[test]
fn a_file_gives_the_features_of_its_tensors() {
    let (_folder, path) = saved();
    let images = hashed_images("x", &[1, 1, 8, 8]);
    let features = |weights| {
        let inception = Inception::new(CONFIG, &weights).unwrap();
        inception.extract(&images).unwrap().to_vec2::<f32>().unwrap()
    };
    let memory = InceptionWeights::from_tensors("memory", hashed_tensors(&CONFIG));
    assert_eq!(features(InceptionWeights::open(path).unwrap()), features(memory));
}

#[test]
fn a_partial_file_fails_only_where_a_layer_needs_more() {
    let (_folder, path) = saved();
    let weights = InceptionWeights::open(&path).unwrap();
    let deeper = InceptionConfig { layer: InceptionLayer::Pool192, ..CONFIG };
    let text = message(Inception::new(deeper, &weights));
    let want = "`Conv2d_3b_1x1.conv.weight`: missing, and the chosen layer needs it";
    assert_eq!(text, format!("{}: {want}", path.display()));
}

#[test]
fn a_misshapen_tensor_is_named() {
    let mut tensors = hashed_tensors(&CONFIG);
    let wrong = Tensor::zeros((32, 32, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    tensors.insert("Conv2d_2a_3x3.conv.weight".into(), wrong);
    let text = message(Inception::new(CONFIG, &InceptionWeights::from_tensors("memory", tensors)));
    let want = "memory: `Conv2d_2a_3x3.conv.weight`: expected shape [32, 32, 3, 3], got [32, 32, 1, 1]";
    assert_eq!(text, want);
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let mut tensors = hashed_tensors(&CONFIG);
    let name = "Conv2d_1a_3x3.bn.bias";
    tensors.insert(name.into(), Tensor::full(f32::NAN, 32, &Device::Cpu).unwrap());
    let text = message(Inception::new(CONFIG, &InceptionWeights::from_tensors("memory", tensors)));
    assert_eq!(text, format!("memory: `{name}`: holds NaN"));
}

#[test]
fn garbage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let zip = b"PK\x03\x04 and then nothing of the kind";
    let legacy = [0x80, 0x02, 0x8a, 0x0a, 0x6c];
    for garbage in [&b""[..], b"no weights", zip, &legacy, &[0xff; 64]] {
        fs::write(&path, garbage).unwrap();
        assert!(message(InceptionWeights::open(&path)).starts_with(&format!("{}: ", path.display())));
    }
    assert!(message(InceptionWeights::open(folder.path().join("none"))).contains("none: "));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_damaged_file_never_panics(at in 0usize..2000, byte: u8, cut in 0usize..4000) {
        let (_folder, path) = saved();
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] = byte;
        fs::write(&path, &bytes).unwrap();
        let _ = InceptionWeights::open(&path).and_then(|weights| Inception::new(CONFIG, &weights));
        bytes.truncate(cut);
        fs::write(&path, &bytes).unwrap();
        prop_assert!(InceptionWeights::open(&path).is_err());
    }
}

/// Written by `scripts/golden/inception.py`; it holds the first tensor and no other.
#[test]
fn a_file_from_before_pytorch_1_6_is_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/legacy.pth");
    let text = message(Inception::new(CONFIG, &InceptionWeights::open(&path).unwrap()));
    assert!(
        text.ends_with("legacy.pth: `Conv2d_1a_3x3.bn.weight`: missing, and the chosen layer needs it"),
        "{text}"
    );

    let bytes = fs::read(&path).unwrap();
    let cut = tempfile::NamedTempFile::new().unwrap();
    for len in (0..bytes.len()).step_by(37) {
        fs::write(cut.path(), &bytes[..len]).unwrap();
        assert!(InceptionWeights::open(cut.path()).is_err());
    }
}
