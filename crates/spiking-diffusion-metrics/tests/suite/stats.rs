use candle_core::Tensor;
use proptest::prelude::*;
use spiking_diffusion_metrics::{FeatureStats, FeatureStatsBuilder, Pixels};

use crate::{assert_close, message, normal, with_value};

#[track_caller]
fn assert_same(a: &FeatureStats, b: &FeatureStats, tolerance: f64) {
    assert_eq!((a.dims(), a.count()), (b.dims(), b.count()));
    a.mean().iter().zip(b.mean()).for_each(|(a, b)| assert_close(*a, *b, tolerance));
    a.covariance().iter().zip(b.covariance()).for_each(|(a, b)| assert_close(*a, *b, tolerance));
}

/// The definition, element by element.
fn naive(features: &Tensor) -> FeatureStats {
    let rows = features.to_vec2::<f64>().unwrap();
    let (n, d) = (rows.len() as f64, rows[0].len());
    let mean: Vec<f64> = (0..d).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / n).collect();
    let element = |i: usize| {
        let (i, j) = (i / d, i % d);
        rows.iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j])).sum::<f64>() / (n - 1.0)
    };
    FeatureStats::new(mean.clone(), (0..d * d).map(element).collect(), Some(rows.len() as u64)).unwrap()
}

fn builder(features: &Tensor) -> FeatureStatsBuilder {
    let mut builder = FeatureStatsBuilder::new(features.dims()[1]).unwrap();
    builder.update(features).unwrap();
    builder
}

#[test]
fn equals_the_definition() {
    let x = normal(&[40, 9], 0);
    assert_same(&FeatureStats::from_features(&x).unwrap(), &naive(&x), 1e-13);
}

#[test]
fn covariance_is_exactly_symmetric() {
    let x = FeatureStats::from_features(&normal(&[40, 33], 0)).unwrap();
    for (i, j) in (0..33).flat_map(|i| (0..i).map(move |j| (i, j))) {
        assert_eq!(x.covariance()[i * 33 + j], x.covariance()[j * 33 + i]);
    }
}

#[test]
fn independent_of_the_batch_size() {
    let images = normal(&[23, 2, 2, 3], 0);
    let pixels = Pixels::new(2, 2, 3);
    let whole = FeatureStats::from_images(&pixels, &images, 23).unwrap();
    for batch_size in [1, 2, 5, 22, 1000] {
        assert_same(&FeatureStats::from_images(&pixels, &images, batch_size).unwrap(), &whole, 1e-13);
    }
}

#[test]
fn a_large_mean_costs_no_precision() {
    let x = normal(&[50, 4], 0);
    let far = (&x + 1e7).unwrap();
    let near = (&far - 1e7).unwrap(); // what is left of `x` in double precision
    let mut batched = FeatureStatsBuilder::new(4).unwrap();
    (0..5).for_each(|i| batched.update(&far.narrow(0, 10 * i, 10).unwrap()).unwrap());
    let want = naive(&near);
    for (got, want) in batched.finish().unwrap().covariance().iter().zip(want.covariance()) {
        assert_close(*got, *want, 1e-7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn merging_in_any_order_gives_the_whole(
        seed in any::<u64>(),
        sizes in proptest::collection::vec(0usize..6, 1..8),
        order in any::<u64>(),
    ) {
        let total: usize = sizes.iter().sum::<usize>() + 2;
        let x = (normal(&[total, 5], seed) + 3.0).unwrap();
        let mut starts = vec![(0, 2)];
        sizes.iter().for_each(|size| starts.push((starts.last().map_or(0, |(s, n)| s + n), *size)));
        let mut parts: Vec<_> = starts.iter().map(|(s, n)| builder(&x.narrow(0, *s, *n).unwrap())).collect();
        let shift = order as usize % parts.len();
        parts.rotate_left(shift);
        if order % 2 == 1 {
            parts.reverse();
        }
        // Fold two by two: a tree, not a chain.
        while parts.len() > 1 {
            let right = parts.pop().unwrap();
            let at = (order >> 8) as usize % parts.len();
            parts[at].merge(&right).unwrap();
        }
        assert_same(&parts[0].finish().unwrap(), &naive(&x), 1e-12);
    }
}

#[test]
fn empty_batches_and_builders_change_nothing() {
    let x = normal(&[6, 3], 0);
    let mut whole = builder(&x);
    whole.update(&x.narrow(0, 0, 0).unwrap()).unwrap();
    whole.merge(&FeatureStatsBuilder::new(3).unwrap()).unwrap();
    assert_eq!(whole.finish().unwrap(), builder(&x).finish().unwrap());
    let mut empty = FeatureStatsBuilder::new(3).unwrap();
    empty.merge(&builder(&x)).unwrap();
    assert_eq!(empty.finish().unwrap(), builder(&x).finish().unwrap());
}

#[test]
fn rejects_fewer_than_two_samples() {
    assert_eq!(message(FeatureStats::from_features(&normal(&[1, 3], 0))), "samples: got 1, need at least 2");
    assert_eq!(message(FeatureStats::from_features(&normal(&[0, 3], 0))), "samples: got 0, need at least 2");
    assert!(FeatureStats::new(vec![0.0], vec![0.0], Some(1)).is_err());
}

#[test]
fn rejects_other_dims() {
    let mut three = builder(&normal(&[4, 3], 0));
    assert_eq!(message(three.update(&normal(&[4, 2], 0))), "feature dimensions differ: [3] and [2]");
    let two = builder(&normal(&[4, 2], 0));
    assert_eq!(message(three.merge(&two)), "feature dimensions differ: [3] and [2]");
    assert_eq!(message(FeatureStatsBuilder::new(0)), "features: got 0, need at least 1");
    let text = message(FeatureStats::from_features(&normal(&[4, 3, 1], 0)));
    assert_eq!(text, "features: expected [N, D] with D >= 1, got [4, 3, 1]");
    assert!(FeatureStats::from_features(&normal(&[4], 0)).is_err());
    assert!(FeatureStats::from_features(&normal(&[4, 0], 0)).is_err());
}

#[test]
fn rejects_nan_by_its_place_and_stays_usable() {
    let x = normal(&[6, 3], 0);
    let mut builder = builder(&x);
    let text = message(builder.update(&with_value(&x, 7, f64::NAN)));
    assert_eq!(text, "features: row 8, column 1 is NaN"); // six rows before, then the third
    assert_eq!(builder.finish().unwrap(), FeatureStats::from_features(&x).unwrap());
}

#[test]
fn rejects_what_is_no_covariance() {
    let new = |mean: &[f64], covariance: &[f64]| {
        message(FeatureStats::new(mean.to_vec(), covariance.to_vec(), None))
    };
    assert_eq!(new(&[], &[]), "features: got 0, need at least 1");
    assert_eq!(new(&[f64::NAN], &[1.0]), "mean: row 0, column 0 is NaN");
    assert_eq!(new(&[0.0; 2], &[1.0; 3]), "covariance: expected [2, 2], got [3]");
    assert_eq!(new(&[0.0; 2], &[1.0, 0.0, f64::NAN, 1.0]), "covariance: row 1, column 0 is NaN");
    assert_eq!(new(&[0.0], &[-1.0]), "covariance: negative variance -1 of feature 0");
    assert_eq!(new(&[0.0; 2], &[1.0, 0.5, 0.0, 1.0]), "covariance: not symmetric at (1, 0): 0 and 0.5");
}

#[test]
fn more_features_than_memory_holds_are_an_error() {
    for dims in [usize::MAX, 1 << 33, 1 << 30] {
        let text = message(FeatureStatsBuilder::new(dims));
        assert_eq!(text, format!("`dims` = {dims}: needs more memory than there is"));
    }
    let pixels = Pixels::new(usize::MAX, 2, 2);
    let text = message(FeatureStats::from_images(&pixels, &normal(&[3, 1, 2, 2], 0), 2));
    assert!(text.starts_with("`dims` = 18446744073709551615: "), "{text}");
}
