use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use spiking_diffusion_metrics::{
    Ball, FeatureStats, Resize, SsimConfig, frechet_distance, frechet_distance_of_features, inception_score,
    kernel_distance, mse, prdc, psnr, random_subsets, resize, ssim,
};

use crate::normal;

/// Everything that runs in parallel, as bits.
fn results() -> Vec<u64> {
    let (a, b) = (normal(&[9, 1, 16, 16], 0), normal(&[9, 1, 16, 16], 1));
    let mut values = ssim(&a, &b, &SsimConfig::paper()).unwrap();
    values.extend(mse(&a, &b).unwrap());
    values.extend(psnr(&a, &b, 1.0).unwrap());
    let resized = resize(&a, (20, 30), Resize::Bicubic).unwrap().flatten_all().unwrap();
    values.extend(resized.to_vec1::<f32>().unwrap().into_iter().map(f64::from));
    let (a, b) = (normal(&[600, 40], 5), normal(&[300, 40], 6));
    let (found, score) = (prdc(&a, &b, 3, Ball::Open).unwrap(), inception_score(&a, 10).unwrap());
    values.extend([found.precision, found.recall, found.density, found.coverage, score.mean, score.std]);
    let (a, b) = (normal(&[70, 40], 2), normal(&[80, 40], 3));
    let subsets = random_subsets(70, 80, 7, 50, &mut ChaCha8Rng::seed_from_u64(4)).unwrap();
    let kid = kernel_distance(&a, &b, &subsets).unwrap();
    values.push(frechet_distance_of_features(&a, &b).unwrap());
    let (a, b) = (FeatureStats::from_features(&a).unwrap(), FeatureStats::from_features(&b).unwrap());
    values.extend([kid.mean, kid.std, frechet_distance(&a, &b).unwrap()]);
    values.into_iter().map(f64::to_bits).collect()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(results);
    assert_eq!(with(1), with(5));
}
