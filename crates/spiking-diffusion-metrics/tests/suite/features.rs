use candle_core::{DType, Tensor};
use spiking_diffusion_metrics::{FeatureExtractor, FeatureStats, Pixels, Result, extract_batches};

use crate::{message, normal};

/// Claims three features and returns two.
struct Liar;

impl FeatureExtractor for Liar {
    fn name(&self) -> String {
        "liar".into()
    }
    fn dims(&self) -> usize {
        3
    }
    fn extract(&self, images: &Tensor) -> Result<Tensor> {
        Ok(Tensor::zeros((images.dim(0)?, 2), DType::F32, images.device())?)
    }
}

#[test]
fn batch_size_does_not_change_features() {
    let (images, pixels) = (normal(&[7, 2, 3, 4], 0), Pixels::new(2, 3, 4));
    let whole = pixels.extract(&images).unwrap().to_vec2::<f64>().unwrap();
    for batch_size in [1, 2, 3, 7, 100] {
        let batched = extract_batches(&pixels, &images, batch_size).unwrap();
        assert_eq!(batched.to_vec2::<f64>().unwrap(), whole);
    }
}

#[test]
fn pixels_are_in_row_major_order() {
    let images = normal(&[2, 3, 4, 5], 0);
    let features = Pixels::new(3, 4, 5).extract(&images).unwrap().to_vec2::<f64>().unwrap();
    let pixel = images.get(1).unwrap().get(2).unwrap().get(3).unwrap().get(4).unwrap();
    assert_eq!(features[1][(2 * 4 + 3) * 5 + 4], pixel.to_scalar::<f64>().unwrap());
}

#[test]
fn rejects_images_of_another_shape() {
    let result = Pixels::new(1, 2, 2).extract(&normal(&[3, 1, 2, 3], 0));
    assert_eq!(message(result), "images: expected [N, 1, 2, 2], got [3, 1, 2, 3]");
}

#[test]
fn rejects_features_of_another_shape() {
    let text = message(extract_batches(&Liar, &normal(&[3, 1, 2, 2], 0), 2));
    assert_eq!(text, "features of a batch: expected [2, 3], got [2, 2]");
    assert!(FeatureStats::from_images(&Liar, &normal(&[3, 1, 2, 2], 0), 2).is_err());
}

#[test]
fn rejects_batches_of_zero() {
    let text = message(extract_batches(&Pixels::new(1, 2, 2), &normal(&[3, 1, 2, 2], 0), 0));
    assert_eq!(text, "`batch_size` = 0: must be at least 1");
}

#[test]
fn rejects_no_images() {
    let text = message(extract_batches(&Pixels::new(1, 2, 2), &normal(&[0, 1, 2, 2], 0), 4));
    assert_eq!(text, "images: got 0, need at least 1");
}
