//! Against numpy and scipy (`scripts/golden/metrics.py`), and the field's tools (`scripts/golden/metric_tools.py`).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use spiking_diffusion_metrics::{
    Ball, FeatureStats, SsimConfig, SubsetPair, frechet_distance, inception_score, kernel_distance, mean,
    mse, prdc, psnr, ssim,
};

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load() -> Self {
        Self::open("metrics")
    }

    fn tools() -> Self {
        Self::open("metric_tools")
    }

    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
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

#[test]
fn inception_score_of_torch_fidelity() {
    let golden = Golden::tools();
    for splits in [1, 10] {
        let got = inception_score(golden.tensor("is.logits"), splits).unwrap();
        let want = golden.values(&format!("is.{splits}"));
        assert_relative(&[got.mean], &want[..1], 1e-12);
        assert!((got.std - want[1]).abs() <= 1e-12, "{} and {}", got.std, want[1]);
    }
}

#[test]
fn kernel_distance_of_torch_fidelity() {
    let golden = Golden::tools();
    let (x, y) = (golden.tensor("kid.x"), golden.tensor("kid.y"));
    let got = kernel_distance(x, y, &golden.subsets()).unwrap();
    assert_relative(&[got.mean, got.std], &golden.values("kid.value"), 1e-11);
}

#[test]
fn open_balls_are_prdc_s_and_closed_ones_torch_fidelity_s() {
    let golden = Golden::tools();
    let (real, fake) = (golden.tensor("manifold.real"), golden.tensor("manifold.fake"));
    for k in [1, 3] {
        let counts = |ball| {
            let found = prdc(real, fake, k, ball).unwrap();
            [found.precision, found.recall, found.density * k as f64, found.coverage].map(|x| x * 64.0)
        };
        assert_eq!(counts(Ball::Open)[..], golden.values(&format!("manifold.open.{k}")));
        assert_eq!(counts(Ball::Closed)[..2], golden.values(&format!("manifold.closed.{k}")));
    }
}

#[test]
fn pixels_of_scikit_image_and_torchmetrics() {
    let golden = Golden::tools();
    let (x, y) = (golden.tensor("pixel.x"), golden.tensor("pixel.y"));
    assert_relative(&psnr(x, y, 1.0).unwrap(), &golden.values("pixel.psnr"), 1e-12);
    let similar = |config| ssim(x, y, &config).unwrap();
    assert_relative(&similar(SsimConfig::uniform()), &golden.values("pixel.ssim"), 1e-12);
    assert_relative(&similar(SsimConfig::torchmetrics()), &golden.values("pixel.ssim_mirrored"), 1e-12);
}
