use candle_core::DType;
use spiking_diffusion_metrics::{mean, mse, psnr};

use crate::{assert_close, message, normal, with_value};

#[test]
fn mse_is_the_mean_of_squares_of_each_image() {
    let (a, b) = (normal(&[3, 2, 4, 5], 0), normal(&[3, 2, 4, 5], 1));
    let squares = (&a - &b).unwrap().sqr().unwrap();
    let want = squares.flatten_from(1).unwrap().mean(1).unwrap().to_vec1::<f64>().unwrap();
    let got = mse(&a, &b).unwrap();
    got.iter().zip(&want).for_each(|(got, want)| assert_close(*got, *want, 1e-14));
    assert_close(mean(&got).unwrap(), squares.mean_all().unwrap().to_scalar().unwrap(), 1e-14);
    assert_eq!(mse(&a, &a).unwrap(), [0.0; 3]);
}

#[test]
fn single_precision_images_are_compared_in_double() {
    let a = normal(&[2, 1, 3, 3], 0).to_dtype(DType::F32).unwrap();
    let b = (&a + 0.5).unwrap();
    let (wide_a, wide_b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    assert_eq!(mse(&a, &b).unwrap(), mse(&wide_a, &wide_b).unwrap());
}

#[test]
fn rejects_different_shapes() {
    let text = message(mse(&normal(&[2, 1, 3, 3], 0), &normal(&[2, 1, 3, 4], 0)));
    assert_eq!(text, "image shapes differ: [2, 1, 3, 3] and [2, 1, 3, 4]");
}

#[test]
fn rejects_tensors_that_are_not_images() {
    let flat = normal(&[2, 9], 0);
    let text = message(mse(&flat, &flat));
    assert_eq!(text, "first images: expected [N, C, H, W] without an empty axis, got [2, 9]");
    let none = normal(&[0, 1, 3, 3], 0);
    assert!(message(mse(&none, &none)).contains("[0, 1, 3, 3]"));
}

#[test]
fn rejects_integers() {
    let bytes = normal(&[1, 1, 2, 2], 0).to_dtype(DType::U8).unwrap();
    assert_eq!(message(mse(&bytes, &bytes)), "first images: expected a floating-point tensor, got U8");
}

#[test]
fn rejects_nan() {
    let a = normal(&[2, 1, 3, 3], 0);
    let text = message(mse(&a, &with_value(&a, 9 + 4, f64::NAN)));
    assert_eq!(text, "second images: row 1, column 4 is NaN");
}

#[test]
fn rejects_the_mean_of_nothing() {
    assert_eq!(message(mean(&[])), "values to average: got 0, need at least 1");
}

#[test]
fn rejects_data_ranges_whose_square_is_no_number() {
    let a = normal(&[2, 1, 3, 3], 0);
    for (range, value) in [(1e-300, "1e-300"), (1e300, "1e300"), (f64::NAN, "NaN"), (0.0, "0"), (-1.0, "-1")]
    {
        let text = message(psnr(&a, &(&a + 1.0).unwrap(), range));
        assert!(text.starts_with(&format!("`data_range` = {value}: ")), "{text}");
    }
}
