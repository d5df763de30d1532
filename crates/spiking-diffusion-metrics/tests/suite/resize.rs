use candle_core::{DType, Device, Tensor};
use spiking_diffusion_metrics::{Resize, resize};

use crate::inception::{Golden, hashed_images};
use crate::message;

const METHODS: [(Resize, &str); 3] = [
    (Resize::Bilinear, "bilinear"),
    (Resize::BilinearCorner, "bilinear_corner"),
    (Resize::Bicubic, "bicubic"),
];

#[test]
fn resizes_as_pytorch_torch_fidelity_and_pillow_do() {
    let (golden, images) = (Golden::load(), hashed_images("resize", &[2, 3, 9, 12]));
    for (method, name) in METHODS {
        for (size_name, size) in [("up", (17, 23)), ("down", (5, 4)), ("wide", (6, 31))] {
            let got = resize(&images, size, method).unwrap();
            assert_eq!(got.dims(), [2, 3, size.0, size.1]);
            golden.assert_close(&format!("resize.{name}.{size_name}"), &got, 1e-5);
        }
    }
}

#[test]
fn the_same_size_changes_nothing() {
    let images = hashed_images("same", &[1, 2, 7, 5]);
    for (method, name) in METHODS {
        let got = resize(&images, (7, 5), method).unwrap();
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&got), values(&images), "{name}");
    }
}

#[test]
fn a_constant_stays_constant() {
    let images = Tensor::full(0.25f32, (1, 1, 3, 4), &Device::Cpu).unwrap();
    for (method, name) in METHODS {
        let got = resize(&images, (5, 2), method).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(got.iter().all(|x| (x - 0.25).abs() < 1e-6), "{name}: {got:?}");
    }
}

#[test]
fn rejects_what_is_no_image_and_sides_of_zero() {
    let (flat, images) = (hashed_images("x", &[2, 3]), hashed_images("x", &[1, 1, 2, 2]));
    let text = message(resize(&flat, (2, 2), Resize::Bilinear));
    assert_eq!(text, "images: expected [N, C, H, W] without an empty image, got [2, 3]");
    let text = message(resize(&images, (0, 2), Resize::Bilinear));
    assert_eq!(text, "`size` = (0, 2): a side must be at least 1");
    let most = usize::MAX;
    for size in [(most, 2), (2, most), (1 << 33, 1 << 33)] {
        let text = message(resize(&images, size, Resize::Bilinear));
        assert_eq!(text, format!("`size` = {}: needs more memory than there is", size.0.max(size.1)));
    }
    let bytes = images.to_dtype(DType::U8).unwrap();
    assert_eq!(
        message(resize(&bytes, (2, 2), Resize::Bicubic)),
        "images: expected a floating-point tensor, got U8"
    );
}
