use candle_core::Tensor;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use spiking_diffusion_metrics::{SubsetPair, kernel_distance, random_subsets};

use crate::{assert_close, message, normal, with_value};

/// The definition, pair by pair.
fn naive(a: &[Vec<f64>], b: &[Vec<f64>], (of_a, of_b): &SubsetPair) -> f64 {
    let kernel = |x: &[f64], y: &[f64]| {
        let dot: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
        (dot / x.len() as f64 + 1.0).powi(3)
    };
    let average =
        |left: &[Vec<f64>], of_left: &[usize], right: &[Vec<f64>], of_right: &[usize], same: bool| {
            let (mut sum, mut pairs) = (0.0, 0.0);
            for (i, x) in of_left.iter().enumerate() {
                for (j, y) in of_right.iter().enumerate() {
                    if !(same && i == j) {
                        sum += kernel(&left[*x], &right[*y]);
                        pairs += 1.0;
                    }
                }
            }
            sum / pairs
        };
    average(a, of_a, a, of_a, true) + average(b, of_b, b, of_b, true) - 2.0 * average(a, of_a, b, of_b, false)
}

fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    x.to_vec2().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn equals_the_naive_twin(seed in any::<u64>(), d in 1usize..20, n in 2usize..12, m in 2usize..12) {
        let (a, b) = (normal(&[20, d], seed), normal(&[15, d], seed ^ 1));
        let pairs = [((0..n).collect(), (3..3 + m).collect()), ((20 - n..20).collect(), (0..m).collect())];
        let each: Vec<f64> = pairs.iter().map(|pair| naive(&rows(&a), &rows(&b), pair)).collect();
        let (mean, std) = ((each[0] + each[1]) / 2.0, (each[0] - each[1]).abs() / 2.0);
        let got = kernel_distance(&a, &b, &pairs).unwrap();
        let tolerance = 1e-12 * (1.0 + each[0].abs() + each[1].abs() + 1e3);
        prop_assert!((got.mean - mean).abs() < tolerance, "{} {mean}", got.mean);
        prop_assert!((got.std - std).abs() < tolerance, "{} {std}", got.std);
    }
}

/// Subsets that overlap take the kernel of all pairs from a table; the number is the same.
#[test]
fn many_subsets_of_few_rows_equal_the_naive_twin() {
    let (a, b) = (normal(&[300, 7], 3), (normal(&[280, 7], 4) * 1.5).unwrap());
    let subsets = random_subsets(300, 280, 40, 90, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
    let each: Vec<f64> = subsets.iter().map(|pair| naive(&rows(&a), &rows(&b), pair)).collect();
    let got = kernel_distance(&a, &b, &subsets).unwrap();
    assert_close(got.mean, each.iter().sum::<f64>() / 40.0, 1e-12);
    // One at a time, none overlaps with another.
    let alone: Vec<f64> = subsets
        .iter()
        .map(|pair| kernel_distance(&a, &b, std::slice::from_ref(pair)).unwrap().mean)
        .collect();
    assert!(alone.iter().zip(&each).all(|(alone, each)| (alone - each).abs() < 1e-12), "{alone:?}");
}

#[test]
fn unbiased_around_zero_for_one_distribution() {
    let (a, b) = (normal(&[400, 16], 0), normal(&[400, 16], 1));
    let subsets = random_subsets(400, 400, 50, 100, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
    let same = kernel_distance(&a, &b, &subsets).unwrap();
    assert!(same.mean.abs() < 0.02, "{same:?}");
    let other = kernel_distance(&a, &(b + 1.0).unwrap(), &subsets).unwrap();
    assert!(other.mean > 1.0 && other.std > 0.0, "{other:?}");
}

#[test]
fn negative_distances_are_not_clipped() {
    let x = normal(&[20, 4], 0);
    let all = (0..20).collect::<Vec<_>>();
    let kid = kernel_distance(&x, &x, &[(all.clone(), all)]).unwrap();
    assert!(kid.mean < 0.0, "{kid:?}");
}

#[test]
fn symmetric() {
    let (a, b) = (normal(&[20, 4], 0), normal(&[30, 4], 1));
    let pair = ((0..20).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    let there = kernel_distance(&a, &b, std::slice::from_ref(&pair)).unwrap();
    let back = kernel_distance(&b, &a, &[(pair.1, pair.0)]).unwrap();
    assert_close(there.mean, back.mean, 1e-12);
}

#[test]
fn random_subsets_are_distinct_in_range_and_seeded() {
    let draw = |seed| random_subsets(9, 7, 20, 7, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    for (a, mut b) in draw(1) {
        assert!(a.iter().all(|i| *i < 9));
        b.sort_unstable();
        assert_eq!(b, (0..7).collect::<Vec<_>>());
    }
}

#[test]
fn rejects_impossible_subsets() {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    assert_eq!(message(random_subsets(9, 9, 0, 2, &mut rng)), "`subsets` = 0: must be at least 1");
    assert_eq!(message(random_subsets(9, 9, 1, 1, &mut rng)), "`size` = 1: a subset needs at least 2 rows");
    let text = message(random_subsets(9, 5, 1, 6, &mut rng));
    assert_eq!(text, "`size` = 6: more than the 9 or the 5 rows there are");
    let many = usize::MAX;
    let text = message(random_subsets(9, 9, many, 2, &mut rng));
    assert_eq!(text, format!("`subsets` = {many}: needs more memory than there is"));
    assert!(message(random_subsets(9, many, 1, many, &mut rng)).contains("`size` = 18446744073709551615"));
}

#[test]
fn rejects_unusable_indices() {
    let x = normal(&[4, 2], 0);
    let with =
        |a: Vec<usize>, b: Vec<usize>| message(kernel_distance(&x, &x, &[(vec![0, 1], vec![0, 1]), (a, b)]));
    assert_eq!(with(vec![0, 4], vec![0, 1]), "subset 1 of `a`: row 4 of 4");
    assert_eq!(with(vec![0, 1], vec![2, 2]), "subset 1 of `b`: row 2 twice");
    assert_eq!(with(vec![0], vec![0, 1]), "subset 1 of `a`: 1 rows, need at least 2");
    assert_eq!(message(kernel_distance(&x, &x, &[])), "subsets: got 0, need at least 1");
}

#[test]
fn a_distance_that_is_no_number_is_an_error() {
    let (x, pair) = ((normal(&[4, 2], 0) * 1e120).unwrap(), [(vec![0, 1], vec![2, 3])]);
    let text = message(kernel_distance(&x, &x, &pair));
    assert!(text.starts_with("subset 0 of `a and b`: the distance is "), "{text}");
}

#[test]
fn rejects_unusable_features() {
    let (x, pair) = (normal(&[4, 2], 0), [(vec![0, 1], vec![0, 1])]);
    let text = message(kernel_distance(&x, &normal(&[4, 3], 0), &pair));
    assert_eq!(text, "feature dimensions differ: [2] and [3]");
    let text = message(kernel_distance(&x, &with_value(&x, 5, f64::NAN), &pair));
    assert_eq!(text, "second features: row 2, column 1 is NaN");
    let text = message(kernel_distance(&normal(&[4], 0), &x, &pair));
    assert_eq!(text, "first features: expected [N, D] with D >= 1, got [4]");
}
