//! What holds for any features.

use candle_core::Tensor;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use spiking_diffusion_metrics::{
    Ball, FeatureStats, FeatureStatsBuilder, Padding, SsimConfig, extract_batches, frechet_distance,
    frechet_distance_of_features, inception_score, kernel_distance, mse, prdc, random_subsets, ssim,
};

use crate::{assert_close, normal};

/// Two sets of `(N, M)` samples of `D` features.
fn sets() -> impl Strategy<Value = (Tensor, Tensor)> {
    (4usize..40, 4usize..40, 1usize..12, any::<u64>())
        .prop_map(|(n, m, d, seed)| (normal(&[n, d], seed), (normal(&[m, d], seed ^ 1) * 1.5).unwrap()))
}

fn stats(x: &Tensor) -> FeatureStats {
    FeatureStats::from_features(x).unwrap()
}

fn reversed(x: &Tensor) -> Tensor {
    let rows: Vec<u32> = (0..x.dims()[0] as u32).rev().collect();
    x.index_select(&Tensor::new(rows, x.device()).unwrap(), 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frechet_is_symmetric_and_ignores_a_common_shift((a, b) in sets(), shift in -50.0..50.0) {
        let d = frechet_distance(&stats(&a), &stats(&b)).unwrap();
        let close = 1e-8 * (1.0 + d);
        assert_close(frechet_distance(&stats(&b), &stats(&a)).unwrap(), d, close);
        assert_close(frechet_distance_of_features(&a, &b).unwrap(), d, close);
        let moved = [&a, &b].map(|x| stats(&x.affine(1.0, shift).unwrap()));
        assert_close(frechet_distance(&moved[0], &moved[1]).unwrap(), d, close);
        // A shift of one set alone adds its square, once a feature.
        let alone = stats(&a.affine(1.0, shift).unwrap());
        let itself = frechet_distance(&alone, &stats(&a)).unwrap();
        assert_close(itself, shift * shift * a.dims()[1] as f64, 1e-8 * (1.0 + itself));
    }

    #[test]
    fn statistics_of_parts_merge((a, _) in sets(), cut in 0.0..1.0, shift in -1e3..1e3) {
        let a = a.affine(1.0, shift).unwrap();
        let at = (cut * a.dims()[0] as f64) as usize;
        let part = |start, len| {
            let mut builder = FeatureStatsBuilder::new(a.dims()[1]).unwrap();
            builder.update(&a.narrow(0, start, len).unwrap()).unwrap();
            builder
        };
        let (mut left, right) = (part(0, at), part(at, a.dims()[0] - at));
        left.merge(&right).unwrap();
        let (merged, whole) = (left.finish().unwrap(), stats(&a));
        prop_assert_eq!(merged.count(), whole.count());
        let pairs = merged.mean().iter().zip(whole.mean()).chain(merged.covariance().iter().zip(whole.covariance()));
        pairs.for_each(|(got, want)| assert_close(*got, *want, 1e-9 * (1.0 + want.abs())));
    }

    #[test]
    fn kernel_distance_is_symmetric_and_ignores_the_order((a, b) in sets(), seed: u64) {
        let (n, m) = (a.dims()[0], b.dims()[0]);
        let subsets = random_subsets(n, m, 3, n.min(m), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let swapped: Vec<_> = subsets.iter().cloned().map(|(a, b)| (b, a)).collect();
        let kid = kernel_distance(&a, &b, &subsets).unwrap();
        let other = kernel_distance(&b, &a, &swapped).unwrap();
        let close = 1e-9 * (1.0 + kid.mean.abs() + kid.std);
        assert_close(other.mean, kid.mean, close);
        let backwards: Vec<_> = subsets.iter().map(|(a, b)| {
            (a.iter().map(|i| n - 1 - i).collect(), b.iter().map(|i| m - 1 - i).collect())
        }).collect();
        let turned = kernel_distance(&reversed(&a), &reversed(&b), &backwards).unwrap();
        assert_close(turned.mean, kid.mean, close);
        assert_close(turned.std, kid.std, close);
    }

    #[test]
    fn manifolds_ignore_the_order_and_swap_precision_with_recall((a, b) in sets(), k in 1usize..4) {
        let found = prdc(&a, &b, k, Ball::Open).unwrap();
        prop_assert_eq!(prdc(&reversed(&a), &reversed(&b), k, Ball::Open).unwrap(), found);
        let swapped = prdc(&b, &a, k, Ball::Open).unwrap();
        prop_assert_eq!((swapped.precision, swapped.recall), (found.recall, found.precision));
        let closed = prdc(&a, &b, k, Ball::Closed).unwrap();
        prop_assert!(closed.precision >= found.precision && closed.density >= found.density);
    }

    #[test]
    fn scores_lie_between_one_and_the_classes(n in 1usize..30, classes in 1usize..9, splits in 1usize..4, seed: u64) {
        let logits = (normal(&[n.max(splits), classes], seed) * 20.0).unwrap();
        let score = inception_score(&logits, splits).unwrap();
        prop_assert!(score.mean >= 1.0 - 1e-9 && score.mean <= classes as f64 + 1e-9, "{score:?}");
        let whole = inception_score(&logits, 1).unwrap();
        assert_close(inception_score(&reversed(&logits), 1).unwrap().mean, whole.mean, 1e-9);
    }

    #[test]
    fn pixel_metrics_take_images_one_by_one(n in 1usize..5, channels in 1usize..4, side in 11usize..16, seed: u64) {
        let (a, b) = (normal(&[n, channels, side, side], seed), normal(&[n, channels, side, side], seed ^ 1));
        for padding in [Padding::Zero, Padding::Reflect, Padding::Valid] {
            let config = SsimConfig { padding, ..SsimConfig::paper() };
            let all = ssim(&a, &b, &config).unwrap();
            prop_assert_eq!(&ssim(&b, &a, &config).unwrap(), &all);
            prop_assert!(all.iter().all(|v| (-1.0..=1.0).contains(v)));
            for (i, value) in all.iter().enumerate() {
                let one = |x: &Tensor| x.narrow(0, i, 1).unwrap();
                prop_assert_eq!(ssim(&one(&a), &one(&b), &config).unwrap()[0], *value);
                prop_assert_eq!(mse(&one(&a), &one(&b)).unwrap()[0], mse(&a, &b).unwrap()[i]);
            }
        }
    }

    #[test]
    fn batches_change_nothing(n in 2usize..20, batch in 1usize..25, seed: u64) {
        let images = normal(&[n, 1, 2, 3], seed);
        let pixels = spiking_diffusion_metrics::Pixels::new(1, 2, 3);
        let features = extract_batches(&pixels, &images, batch).unwrap();
        prop_assert_eq!(features.to_vec2::<f64>().unwrap(), images.flatten_from(1).unwrap().to_vec2::<f64>().unwrap());
        let (parts, whole) = (FeatureStats::from_images(&pixels, &images, batch).unwrap(), stats(&features));
        let pairs = parts.covariance().iter().zip(whole.covariance());
        pairs.for_each(|(got, want)| assert_close(*got, *want, 1e-12 * (1.0 + want.abs())));
    }
}
