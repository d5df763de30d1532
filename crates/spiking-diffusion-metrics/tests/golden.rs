//! Against the values of PyTorch, scikit-image, numpy and scipy (`scripts/golden/metrics.py`).
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::panic, reason = "helpers of tests are tests")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use spiking_diffusion_metrics::{
    FeatureStats, SsimConfig, SubsetPair, frechet_distance, kernel_distance, mean, mse, ssim,
};

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}` in the golden file"))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).flatten_all().unwrap().to_vec1().unwrap()
    }

    fn images(&self, set: &str) -> (&Tensor, &Tensor) {
        (self.tensor(&format!("images.{set}.x")), self.tensor(&format!("images.{set}.y")))
    }

    fn frechet(&self, case: &str) -> f64 {
        let stats = |x| FeatureStats::from_features(self.tensor(&format!("fid.{case}.{x}"))).unwrap();
        frechet_distance(&stats("x"), &stats("y")).unwrap()
    }

    fn subsets(&self) -> Vec<SubsetPair> {
        let rows = |name| self.tensor(name).to_vec2::<i64>().unwrap().into_iter().map(indices);
        rows("kid.idx_a").zip(rows("kid.idx_b")).collect()
    }
}

fn indices(row: Vec<i64>) -> Vec<usize> {
    row.into_iter().map(|index| index as usize).collect()
}

#[track_caller]
fn assert_relative(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        let off = (got - want).abs() / want.abs();
        assert!(off <= tolerance, "got {got}, want {want}, relative error {off:e}");
    }
}

#[test]
fn mean_squared_error() {
    let golden = Golden::load();
    for set in ["gray", "color"] {
        let (x, y) = golden.images(set);
        let got = mean(&mse(x, y).unwrap()).unwrap();
        assert_relative(&[got], &golden.values(&format!("mse.{set}")), 1e-12);
    }
}

#[test]
fn ssim_of_the_paper() {
    let golden = Golden::load();
    for set in ["gray", "color"] {
        let (x, y) = golden.images(set);
        let got = ssim(x, y, &SsimConfig::paper()).unwrap();
        assert_relative(&got, &golden.values(&format!("ssim.{set}.zero_padded.each")), 1e-12);
        let whole = golden.values(&format!("ssim.{set}.zero_padded"));
        assert_relative(&[mean(&got).unwrap()], &whole, 1e-12);
    }
}

#[test]
fn ssim_of_scikit_image() {
    let golden = Golden::load();
    for set in ["gray", "color"] {
        let (x, y) = golden.images(set);
        let got = ssim(x, y, &SsimConfig::standard()).unwrap();
        assert_relative(&got, &golden.values(&format!("ssim.{set}.valid")), 1e-12);
    }
}

#[test]
fn frechet_distances() {
    let golden = Golden::load();
    for case in ["a", "b"] {
        assert_relative(&[golden.frechet(case)], &golden.values(&format!("fid.{case}.value")), 1e-12);
    }
    assert_relative(&[golden.frechet("a")], &golden.values("fid.a.sqrtm"), 1e-12);
    // 20 samples of 32 features: scipy's square root of a singular product is good to 8 digits here.
    assert_relative(&[golden.frechet("b")], &golden.values("fid.b.sqrtm"), 1e-7);
}

#[test]
fn kernel_distances() {
    let golden = Golden::load();
    let (x, y, subsets) = (golden.tensor("kid.x"), golden.tensor("kid.y"), golden.subsets());
    let each: Vec<f64> =
        subsets.iter().map(|pair| kernel_distance(x, y, std::slice::from_ref(pair)).unwrap().mean).collect();
    assert_relative(&each, &golden.values("kid.values"), 1e-12);
    let all = kernel_distance(x, y, &subsets).unwrap();
    let want = [golden.values("kid.mean"), golden.values("kid.std")].concat();
    assert_relative(&[all.mean, all.std], &want, 1e-12);
}
