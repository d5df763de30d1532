use candle_core::{DType, Device, Tensor};
use spiking_diffusion_metrics::inception_score;

use crate::{assert_close, message, normal};

#[test]
fn one_prediction_for_all_scores_one() {
    let logits = normal(&[1, 10], 0).repeat((40, 1)).unwrap();
    let score = inception_score(&logits, 4).unwrap();
    assert_close(score.mean, 1.0, 1e-12);
    assert_close(score.std, 0.0, 1e-12);
}

#[test]
fn certain_and_even_predictions_score_the_number_of_classes() {
    let logits = (Tensor::eye(7, DType::F64, &Device::Cpu).unwrap() * 1e4).unwrap();
    assert_close(inception_score(&logits, 1).unwrap().mean, 7.0, 1e-12);
}

#[test]
fn a_constant_added_to_the_logits_changes_nothing() {
    let logits = normal(&[50, 6], 1);
    let moved = (&logits + 700.0).unwrap();
    assert_close(inception_score(&moved, 3).unwrap().mean, inception_score(&logits, 3).unwrap().mean, 1e-10);
}

#[test]
fn rejects_bad_splits() {
    let logits = normal(&[3, 2], 0);
    assert_eq!(message(inception_score(&logits, 0)), "`splits` = 0: must be at least 1");
    let most = usize::MAX;
    let text = message(inception_score(&logits, most));
    assert_eq!(text, format!("rows of logits: got 3, need at least {most}"));
    assert_eq!(message(inception_score(&logits, 4)), "rows of logits: got 3, need at least 4");
}
