//! Against pytorch-fid, torchvision and others (`scripts/golden/inception.py`), at weights made by a formula.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use spiking_diffusion_metrics::{
    FeatureExtractor, ImageSource, Inception, InceptionConfig, InceptionLayer, InceptionWeights,
    PixelScaling, Result, extract_batches,
};

use crate::{assert_close, message};

pub(crate) struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub(crate) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inception.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    #[track_caller]
    pub(crate) fn assert_close(&self, name: &str, got: &Tensor, tolerance: f64) {
        let want = &self.0[name];
        assert_eq!(got.dims(), want.dims(), "{name}");
        let values =
            |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        values(got).iter().zip(values(want)).for_each(|(got, want)| assert_close(*got, want, tolerance));
    }
}

/// `count` numbers in [-1, 1) from the name and the position, as `hashed` in `scripts/golden/inception_nets.py`.
fn hashed(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let mix = |seed: u32, byte: u8| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let seed = name.bytes().fold(0x811c_9dc5, mix);
    (0..count as u32).map(move |i| {
        let x = i.wrapping_mul(0x9e37_79b9).wrapping_add(seed);
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        f64::from(x ^ (x >> 16)) / 2f64.powi(31) - 1.0
    })
}

pub(crate) fn hashed_images(name: &str, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = hashed(name, shape.iter().product()).map(|u| ((u + 1.0) / 2.0) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn hashed_weight(name: &str, shape: &[usize]) -> Tensor {
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let (centre, width) = match name {
        name if name.ends_with("conv.weight") => (0.0, (6.0 / fan_in).sqrt()),
        "fc.weight" => (0.0, (3.0 / fan_in).sqrt()),
        name if name.ends_with("bn.weight") || name.ends_with("running_var") => (1.0, 0.25),
        _ => (0.0, 0.1),
    };
    let values = hashed(name, shape.iter().product()).map(|u| (centre + width * u) as f32);
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

pub(crate) fn hashed_tensors(config: &InceptionConfig) -> HashMap<String, Tensor> {
    let needed = Inception::parameters(config).into_iter();
    needed.map(|(name, shape)| (name.clone(), hashed_weight(&name, &shape))).collect()
}

pub(crate) fn hashed_network(config: InceptionConfig) -> Inception {
    let weights = InceptionWeights::from_tensors("hashed", hashed_tensors(&config));
    Inception::new(config, &weights).unwrap()
}

/// Every layer of both networks; the weights of the deepest serve all.
fn compare_layers(variant: &str, deepest: InceptionConfig) {
    let (golden, images) = (Golden::load(), hashed_images("images", &[2, 3, 40, 36]));
    let weights = InceptionWeights::from_tensors("hashed", hashed_tensors(&deepest));
    for (layer, name) in [
        (InceptionLayer::Pool64, "64"),
        (InceptionLayer::Pool192, "192"),
        (InceptionLayer::Mixed768, "768"),
        (InceptionLayer::Pool2048, "2048"),
        (InceptionLayer::Logits, "logits"),
    ] {
        let inception = Inception::new(InceptionConfig { layer, ..deepest }, &weights).unwrap();
        golden.assert_close(&format!("{variant}.{name}"), &inception.extract(&images).unwrap(), 1e-4);
    }
}

#[test]
fn the_fid_network_agrees_with_pytorch_fid() {
    compare_layers("fid", InceptionConfig::pytorch_fid(InceptionLayer::Logits));
}

#[test]
fn the_imagenet_network_agrees_with_torchvision() {
    compare_layers("imagenet", InceptionConfig::torchvision(InceptionLayer::Logits));
}

#[test]
fn one_channel_is_repeated_and_the_range_is_mapped() {
    let config = InceptionConfig::pytorch_fid(InceptionLayer::Mixed768);
    let gray = hashed_images("gray", &[1, 1, 28, 28]);
    let golden = Golden::load();
    golden.assert_close("gray.fid.768", &hashed_network(config).extract(&gray).unwrap(), 1e-4);
    let shifted = InceptionConfig { range: [-0.5, 0.5], ..config };
    golden.assert_close(
        "gray.fid.768",
        &hashed_network(shifted).extract(&(gray - 0.5).unwrap()).unwrap(),
        1e-4,
    );
}

#[test]
fn images_of_another_range_are_refused() {
    let config = InceptionConfig { resize: None, ..InceptionConfig::pytorch_fid(InceptionLayer::Pool64) };
    let shifted = (hashed_images("range", &[1, 1, 75, 75]) - 0.5).unwrap();
    let error = hashed_network(config).extract(&shifted).unwrap_err().to_string();
    assert!(error.contains("range") && error.contains("[0.0, 1.0]") && error.contains("-0.49"), "{error}");
    hashed_network(InceptionConfig { range: [-0.5, 0.5], ..config }).extract(&shifted).unwrap();
    // Whoever asks for bytes has what lies a little beyond them clamped, but neither bytes themselves nor pixels of [-0.5, 0.5] are of this range.
    let clamps = hashed_network(InceptionConfig { quantize: true, ..config });
    clamps.extract(&(&shifted + 0.2).unwrap()).unwrap();
    for (images, reach) in [(&shifted, "-0.49"), (&(&shifted * 255.).unwrap(), "127.")] {
        let error = clamps.extract(images).unwrap_err().to_string();
        assert!(error.contains("range") && error.contains(reach), "{error}");
    }
}

/// In whichever batch, and among images of whichever size.
#[test]
fn the_image_that_is_no_number_is_named() {
    let inception = hashed_network(InceptionConfig::pytorch_fid(InceptionLayer::Pool64));
    let images = hashed_images("nan", &[5, 1, 20, 20]);
    let spoilt = |images: &Tensor| (images * f64::NAN).unwrap();
    let third =
        Tensor::cat(&[&images.narrow(0, 0, 3).unwrap(), &spoilt(&images.narrow(0, 3, 1).unwrap())], 0);
    let error = extract_batches(&inception, &third.unwrap(), 2).unwrap_err().to_string();
    assert_eq!(error, "images: row 3, column 0 is NaN");

    struct Sizes(Vec<Tensor>);
    impl ImageSource for Sizes {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn read(&self, start: usize, count: usize) -> Result<Tensor> {
            Ok(Tensor::cat(&self.0[start..start + count], 0)?)
        }

        fn read_sizes(&self, start: usize, count: usize) -> Result<Vec<Tensor>> {
            Ok(self.0[start..start + count].to_vec())
        }
    }
    let large = hashed_images("nan", &[1, 1, 24, 24]);
    let small = |i: usize| images.narrow(0, i, 1).unwrap();
    let mixed = Sizes(vec![small(0), large.clone(), small(1), spoilt(&large), small(2)]);
    let error = extract_batches(&inception, &mixed, 5).unwrap_err().to_string();
    assert_eq!(error, "images: row 3, column 0 is NaN");
}

#[test]
fn features_depend_on_neither_the_batch_nor_the_threads() {
    let inception = hashed_network(InceptionConfig::pytorch_fid(InceptionLayer::Pool192));
    let images = hashed_images("batch", &[3, 1, 28, 28]);
    let with = |threads: usize, batch: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| extract_batches(&inception, &images, batch).unwrap().to_vec2::<f32>().unwrap())
    };
    let want = with(1, 1);
    for (threads, batch) in [(1, 3), (3, 3), (2, 2)] {
        assert_eq!(with(threads, batch), want, "{threads} threads, batches of {batch}");
    }
}

#[test]
fn scalings_are_those_of_the_tools() {
    let config = InceptionConfig { resize: None, ..InceptionConfig::pytorch_fid(InceptionLayer::Pool64) };
    let images = (hashed_images("scaling", &[1, 3, 75, 80]) * 0.99).unwrap(); // room for what follows
    let want = hashed_network(config).extract(&images).unwrap().to_vec2::<f32>().unwrap();
    let with = |scaling, images: &Tensor| {
        let features = hashed_network(InceptionConfig { scaling, ..config }).extract(images).unwrap();
        features.to_vec2::<f32>().unwrap().concat()
    };
    // 2 u - 1 by another way each time.
    let bytes = with(PixelScaling::Bytes, &(&images * (256.0 / 255.0)).unwrap());
    let affine = with(PixelScaling::Affine { scale: [2.0; 3], offset: [-1.0; 3] }, &images);
    let twice = with(PixelScaling::ImageNet { transform_input: true }, &images);
    for got in [bytes, affine, twice] {
        got.iter().zip(&want[0]).for_each(|(a, b)| assert_close(f64::from(*a), f64::from(*b), 1e-5));
    }
}

#[test]
fn quantized_pixels_are_those_of_a_file() {
    let config = InceptionConfig::clean_fid(InceptionLayer::Pool64);
    let bytes =
        ((hashed_images("bytes", &[1, 1, 20, 20]) * 255.0).unwrap().round().unwrap() / 255.0).unwrap();
    let noisy = (&bytes + 0.3 / 255.0).unwrap();
    let inception = hashed_network(config);
    let features = |images: &Tensor| inception.extract(images).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(features(&bytes), features(&noisy));
}

#[test]
fn rejects_images_that_it_cannot_take() {
    let config = InceptionConfig::pytorch_fid(InceptionLayer::Pool64);
    let inception = hashed_network(config);
    let text = message(inception.extract(&hashed_images("x", &[1, 2, 8, 8])));
    assert_eq!(text, "images: expected [N, 1 or 3, H, W], got [1, 2, 8, 8]");
    let unsized_network = hashed_network(InceptionConfig { resize: None, ..config });
    let text = message(unsized_network.extract(&hashed_images("x", &[1, 3, 74, 80])));
    assert_eq!(text, "images: expected [N, 1 or 3, H, W], at least 75 x 75 pixels, got [1, 3, 74, 80]");
    let infinite = (hashed_images("x", &[1, 1, 2, 2]) / 0.0).unwrap();
    assert_eq!(message(inception.extract(&infinite)), "images: row 0, column 0 is inf");
}

/// The folder `inception` of `SPIKING_DATA_DIR`.
#[test]
fn the_published_weights_load_as_far_as_they_go() {
    let Some(folder) = std::env::var_os("SPIKING_DATA_DIR").map(|dir| PathBuf::from(dir).join("inception"))
    else {
        eprintln!("skipped: SPIKING_DATA_DIR is not set");
        return;
    };
    let path = folder.join("fid-inception-2015-12-05-768.safetensors");
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return;
    }
    let weights = InceptionWeights::open(&path).unwrap();
    let inception = Inception::new(InceptionConfig::pytorch_fid(InceptionLayer::Mixed768), &weights).unwrap();
    let features =
        inception.extract(&hashed_images("gray", &[1, 1, 28, 28])).unwrap().to_vec2::<f32>().unwrap();
    assert!(features[0].iter().all(|x| (0.0..10.0).contains(x)) && features[0].iter().any(|x| *x > 0.1));
    let deeper = Inception::new(InceptionConfig::pytorch_fid(InceptionLayer::Pool2048), &weights);
    let text = message(deeper);
    assert!(text.contains("768.safetensors: `Mixed_7a.branch3x3_1.conv.weight`: missing"), "{text}");
}

#[test]
fn a_range_or_a_scaling_of_nothing_is_refused() {
    let config = InceptionConfig::pytorch_fid(InceptionLayer::Pool64);
    let weights = InceptionWeights::from_tensors("hashed", hashed_tensors(&config));
    let refused = |config: InceptionConfig| message(Inception::new(config, &weights));
    for range in [[0.5, 0.5], [f32::NAN, 1.0], [0.0, f32::INFINITY], [f32::MIN, f32::MAX], [0.0, 1e-45]] {
        let text = refused(InceptionConfig { range, ..config });
        assert!(text.starts_with(&format!("`range` = {range:?}: ")), "{text}");
    }
    for scaling in [
        PixelScaling::Affine { scale: [1.0, f32::NAN, 1.0], offset: [0.0; 3] },
        PixelScaling::Affine { scale: [1.0; 3], offset: [0.0, 0.0, f32::INFINITY] },
        PixelScaling::TransformOnly { of: [f32::MIN, f32::MAX] },
    ] {
        let text = refused(InceptionConfig { scaling, ..config });
        assert!(text.starts_with(&format!("`scaling` = {scaling:?}: must be finite")), "{text}");
    }
}
