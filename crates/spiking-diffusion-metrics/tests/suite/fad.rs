//! FAD against PyTorch and Pillow, and against the published statistics.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, safetensors};
use spiking_diffusion_metrics::{FAD_BATCH, Fad, FeatureStats, frechet_distance};

use crate::assert_close;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fad.safetensors");

#[test]
fn features_are_pytorchs() {
    let golden = safetensors::load(GOLDEN, &Device::Cpu).unwrap();
    let named =
        |(name, value): (&String, &Tensor)| Some((name.strip_prefix("network.")?.to_owned(), value.clone()));
    let network: HashMap<String, Tensor> = golden.iter().filter_map(named).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.safetensors");
    safetensors::save(&network, &file).unwrap();
    let images = (golden["images"].unsqueeze(1).unwrap().to_dtype(DType::F32).unwrap() / 255.).unwrap();
    let got = Fad::open(&file).unwrap().features(&images, 7).unwrap().to_dtype(DType::F64).unwrap();
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let want = values(&golden["features"]);
    let scale = want.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (got, want) in values(&got).into_iter().zip(want) {
        assert_close(got, want, 1e-5 * scale);
    }
    // Bytes that nobody has divided would all be white.
    let fad = Fad::open(&file).unwrap();
    let error = |fad: &Fad, images: &Tensor| fad.features(images, 7).unwrap_err().to_string();
    let bytes = (&images * 255.).unwrap();
    assert!(error(&fad, &bytes).contains("`range` = [0.0, 1.0]"), "{}", error(&fad, &bytes));
    assert!(error(&fad.with_range([0.5, 0.5]), &images).contains("`range` = [0.5, 0.5]"));
}

/// The statistics of the official test images are the published ones: a distance of 0.
#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn test_images_have_the_published_statistics() {
    let Some(data) =
        std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from).filter(|d| d.join("fad").exists())
    else {
        eprintln!("skipped: SPIKING_DATA_DIR is not set, or has no folder `fad`");
        return;
    };
    for (set, name) in [("mnist", "mnist"), ("fashion-mnist", "fashion")] {
        let file = data.join("fad").join(format!("{name}_64.pth"));
        let published = FeatureStats::read_npz(data.join("fad").join(format!("{name}_test_64.npz"))).unwrap();
        let images = data.join(set).join("t10k-images-idx3-ubyte.gz");
        let mut bytes = Vec::new();
        let reader = std::fs::File::open(images).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(reader), &mut bytes).unwrap();
        let images = Tensor::from_slice(&bytes[16..], (10_000, 1, 28, 28), &Device::Cpu).unwrap();
        let images = (images.to_dtype(DType::F32).unwrap() / 255.).unwrap();
        let ours = Fad::open(file).unwrap().statistics(&images, FAD_BATCH).unwrap();
        let distance = frechet_distance(&published, &ours).unwrap();
        assert!(distance.abs() < 1e-4, "{set}: {distance}");
    }
}
