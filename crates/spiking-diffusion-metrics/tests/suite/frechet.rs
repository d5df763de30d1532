use candle_core::Tensor;
use spiking_diffusion_metrics::{FeatureStats, frechet_distance};

use crate::{assert_close, message, normal};

fn stats(features: &Tensor) -> FeatureStats {
    FeatureStats::from_features(features).unwrap()
}

fn diagonal(mean: &[f64], variances: &[f64]) -> FeatureStats {
    let d = mean.len();
    let element = |i: usize| if i.is_multiple_of(d + 1) { variances[i / d] } else { 0.0 };
    FeatureStats::new(mean.to_vec(), (0..d * d).map(element).collect(), None).unwrap()
}

fn distance(a: &FeatureStats, b: &FeatureStats) -> f64 {
    frechet_distance(a, b).unwrap()
}

#[test]
fn gaussians_with_diagonal_covariances() {
    let a = diagonal(&[1.0, 2.0, 3.0], &[4.0, 0.25, 9.0]);
    let b = diagonal(&[1.0, 0.0, 2.5], &[1.0, 1.0, 0.0]);
    let want = (4.0 + 0.25) + (1.0 + 0.25 + 9.0);
    assert_close(distance(&a, &b), want, 1e-12);
}

#[test]
fn gaussians_with_covariances_that_do_not_commute() {
    // 2x2: tr((A B)^(1/2)) = sqrt(tr(A B) + 2 sqrt(det A det B)).
    let a = FeatureStats::new(vec![0.0; 2], vec![2.0, 1.0, 1.0, 3.0], None).unwrap();
    let b = FeatureStats::new(vec![0.0; 2], vec![5.0, -2.0, -2.0, 1.0], None).unwrap();
    let product_trace = (2.0 * 5.0 - 2.0) + (-2.0 + 3.0);
    let root = (product_trace + 2.0 * (5.0f64 * 1.0).sqrt()).sqrt();
    assert_close(distance(&a, &b), 5.0 + 6.0 - 2.0 * root, 1e-12);
}

#[test]
fn scaling_an_isotropic_gaussian() {
    let (d, a, b) = (16, 2.0f64, 5.0f64);
    let (narrow, wide) = (diagonal(&[0.0; 16], &[a * a; 16]), diagonal(&[0.0; 16], &[b * b; 16]));
    assert_close(distance(&narrow, &wide), d as f64 * (a - b) * (a - b), 1e-11);
}

#[test]
fn translation_adds_its_squared_length() {
    let (a, b) = (normal(&[50, 8], 0), normal(&[60, 8], 1));
    let v = normal(&[1, 8], 2);
    let shift = v.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    assert_close(distance(&stats(&a), &stats(&a.broadcast_add(&v).unwrap())), shift, 1e-10);
    // Of different sets, it adds the change of the distance between the means.
    let centred = b.broadcast_sub(&b.mean_keepdim(0).unwrap()).unwrap();
    let (a, b) = (stats(&a.broadcast_sub(&a.mean_keepdim(0).unwrap()).unwrap()), stats(&centred));
    let moved = stats(&centred.broadcast_add(&v).unwrap());
    assert_close(distance(&a, &moved), distance(&a, &b) + shift, 1e-10);
}

#[test]
fn symmetric_and_zero_for_identical_sets() {
    for rows in [5, 40, 200] {
        let (a, b) = (stats(&normal(&[rows, 30], 0)), stats(&normal(&[rows + 3, 30], 1)));
        assert_close(distance(&a, &a), 0.0, 1e-11);
        assert_close(distance(&a, &b), distance(&b, &a), 1e-11);
        assert!(distance(&a, &b) > 1.0);
    }
}

#[test]
fn fewer_samples_than_features() {
    // Features in the first three of 40 directions, rotated: the distance is that of the three.
    let (a, b) = (normal(&[30, 3], 0), normal(&[30, 3], 1));
    let axes = normal(&[40, 40], 2).to_vec2::<f64>().unwrap();
    let rotation = orthonormal(axes, 3);
    let embed = |x: &Tensor| stats(&x.matmul(&rotation).unwrap());
    assert_close(distance(&embed(&a), &embed(&b)), distance(&stats(&a), &stats(&b)), 1e-12);
    // Orthogonal subspaces share nothing.
    let (first, second) = (normal(&[20, 5], 3), normal(&[20, 5], 4));
    let zeros = first.zeros_like().unwrap();
    let left = stats(&Tensor::cat(&[&first, &zeros], 1).unwrap());
    let right = stats(&Tensor::cat(&[&zeros, &second], 1).unwrap());
    let trace = |s: &FeatureStats| s.covariance().iter().step_by(11).sum::<f64>();
    let gap: f64 = left.mean().iter().zip(right.mean()).map(|(a, b)| (a - b) * (a - b)).sum();
    assert_close(distance(&left, &right), gap + trace(&left) + trace(&right), 1e-10);
}

/// The first `count` rows after Gram-Schmidt.
fn orthonormal(mut rows: Vec<Vec<f64>>, count: usize) -> Tensor {
    for i in 0..count {
        let (done, rest) = rows.split_at_mut(i);
        for other in done.iter() {
            let dot: f64 = other.iter().zip(&rest[0]).map(|(a, b)| a * b).sum();
            rest[0].iter_mut().zip(other).for_each(|(x, o)| *x -= dot * o);
        }
        let norm = rest[0].iter().map(|x| x * x).sum::<f64>().sqrt();
        rest[0].iter_mut().for_each(|x| *x /= norm);
    }
    let dims = rows[0].len();
    Tensor::from_vec(rows[..count].concat(), (count, dims), &candle_core::Device::Cpu).unwrap()
}

#[test]
fn constant_features_have_the_distance_of_their_means() {
    let (a, b) = (diagonal(&[1.0, 2.0], &[0.0; 2]), diagonal(&[4.0, 6.0], &[0.0; 2]));
    assert_close(distance(&a, &b), 25.0, 1e-12);
}

#[test]
fn rejects_different_dims() {
    let text = message(frechet_distance(&diagonal(&[0.0], &[1.0]), &diagonal(&[0.0; 2], &[1.0; 2])));
    assert_eq!(text, "feature dimensions differ: [1] and [2]");
}

#[test]
fn rejects_an_indefinite_covariance() {
    let bad = FeatureStats::new(vec![0.0; 2], vec![1.0, 2.0, 2.0, 1.0], None).unwrap();
    let text = message(frechet_distance(&bad, &bad));
    assert!(text.starts_with("covariance: eigenvalue -"), "{text}");
}
