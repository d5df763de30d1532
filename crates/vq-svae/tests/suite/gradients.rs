//! Which term of Eq. 9 teaches which part: exact zeros where the paper has `sg`, and finite differences.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use vq_svae::{Activation, DenseTerm, Losses, Reconstruction, Reduction, StraightThrough, VqSvaeConfig};

use crate::{Fixture, images, norm, tiny};

const EMBEDDING: StraightThrough = StraightThrough::Embedding;
const SPIKES: StraightThrough = StraightThrough::Spikes;

fn config(straight_through: StraightThrough, dense: DenseTerm) -> VqSvaeConfig {
    VqSvaeConfig { straight_through, dense, ..tiny(VqSvaeConfig::paper) }
}

/// A lively model and images to train it on.
struct Pass {
    fixture: Fixture,
    images: Tensor,
}

impl Pass {
    fn new(cfg: &VqSvaeConfig) -> Self {
        let fixture = Fixture::lively(cfg, 1, DType::F64);
        Self { fixture, images: images(cfg, 3, DType::F64) }
    }

    fn losses(&self) -> Losses {
        let out = self.fixture.model.forward_t(&self.images, true).unwrap();
        self.fixture.model.losses(&self.images, &out).unwrap()
    }

    fn codes(&self) -> Vec<u32> {
        let out = self.fixture.model.forward_t(&self.images, true).unwrap();
        out.codes.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn gradients(&self, loss: &Tensor) -> BTreeMap<String, Tensor> {
        self.fixture.params.gradients(&loss.backward().unwrap()).unwrap()
    }
}

/// Asserts that a loss has a gradient for every parameter of these parts, and exactly none for any other.
#[track_caller]
fn teaches(what: &str, pass: &Pass, loss: &Tensor, parts: &[&str]) {
    for (name, grad) in pass.gradients(loss) {
        let part = name.split('.').next().unwrap();
        // The norm behind it takes the bias away.
        let expected = parts.contains(&part) && !name.ends_with("conv.bias");
        let norm = norm(&grad);
        assert!(norm.is_finite(), "{what}: |gradient of {name}| = {norm}");
        assert_eq!(norm != 0., expected, "{what}: |gradient of {name}| = {norm:e}");
    }
}

/// The dense term is the same for both straight-through estimators, the commitment term for all configs.
fn check(straight_through: StraightThrough, reconstruction: &[&str], generator: &[&str]) {
    for dense in [DenseTerm::Unbalanced, DenseTerm::Balanced { commitment: 0.25 }] {
        let pass = Pass::new(&config(straight_through, dense));
        let losses = pass.losses();
        let what = |term: &str| format!("{straight_through:?}, {dense:?}, {term}");
        teaches(&what("reconstruction"), &pass, &losses.reconstruction, reconstruction);
        teaches(&what("dense"), &pass, &losses.dense, &["encoder", "features", "codebook"]);
        teaches(&what("generator"), &pass, &losses.generator, generator);
        teaches(&what("commitment"), &pass, &losses.commitment, &["encoder"]);
        let all = ["encoder", "features", "codebook", "generator", "decoder", "head"];
        teaches(&what("total"), &pass, &losses.total().unwrap(), &all);
    }
}

#[test]
fn through_the_spikes_the_decoder_teaches_the_encoder_around_the_generator() {
    check(SPIKES, &["encoder", "decoder", "head"], &["generator", "codebook"]);
}

#[test]
fn through_the_embedding_the_decoder_teaches_all_but_the_codebook() {
    check(
        EMBEDDING,
        &["encoder", "features", "generator", "decoder", "head"],
        &["encoder", "features", "generator"],
    );
}

/// With `commitment = 0` the codebook alone moves.
#[test]
fn commitment_is_the_weight_of_the_encoder() {
    let dense = |commitment| {
        let pass = Pass::new(&config(EMBEDDING, DenseTerm::Balanced { commitment }));
        let losses = pass.losses();
        (pass, losses.dense)
    };
    let (pass, loss) = dense(0.);
    teaches("commitment 0", &pass, &loss, &["codebook"]);
    let gradients = |commitment| {
        let (pass, loss) = dense(commitment);
        pass.gradients(&loss)
    };
    let (one, half) = (gradients(1.), gradients(0.5));
    for (name, factor) in [("codebook.weight", 1.), ("features.k", 0.5), ("encoder.2.conv.weight", 0.5)] {
        let difference = (&half[name] - (&one[name] * factor).unwrap()).unwrap();
        assert!(norm(&difference) <= 1e-12 * norm(&one[name]), "{name}");
    }
}

#[test]
fn beta_is_the_weight_of_the_commitment_term() {
    let commitment = |beta| {
        let losses = Pass::new(&VqSvaeConfig { beta, ..tiny(VqSvaeConfig::paper) }).losses();
        (losses.values().unwrap(), losses)
    };
    let ([_, _, _, one], _) = commitment(1.);
    let ([_, _, generator, none], losses) = commitment(0.);
    assert!(one > 0. && none == 0.);
    assert!((generator - one).abs() <= 1e-12 * one, "the two PSP terms differ in `sg` and beta only");
    let total = losses.total().unwrap().to_scalar::<f64>().unwrap();
    assert!((total - losses.values().unwrap().iter().sum::<f64>()).abs() <= 1e-12 * total);
}

/// Central differences of a term in every element of a parameter that no spike and no code depends on.
fn finite_differences(pass: &Pass, name: &str, term: fn(&Losses) -> &Tensor) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let (var, codes) = (pass.fixture.var(name), pass.codes());
    let start = var.as_tensor().copy().unwrap();
    let values: Vec<f64> = start.flatten_all().unwrap().to_vec1().unwrap();
    let at = |i: usize, by: f64| {
        let mut moved = values.clone();
        moved[i] += by;
        var.set(&Tensor::from_vec(moved, start.dims(), start.device()).unwrap()).unwrap();
        assert_eq!(pass.codes(), codes, "{name} moves a code");
        term(&pass.losses()).to_scalar::<f64>().unwrap()
    };
    let slopes = (0..values.len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2. * STEP)).collect();
    var.set(&start).unwrap();
    slopes
}

/// `share`: how much of the slope of the loss is left by its stop-gradients.
#[track_caller]
fn check_slope(cfg: &VqSvaeConfig, name: &str, term: fn(&Losses) -> &Tensor, share: f64) {
    let pass = Pass::new(cfg);
    let slopes = finite_differences(&pass, name, term);
    let grad = &pass.gradients(term(&pass.losses()))[name];
    let wanted = (Tensor::from_vec(slopes, grad.dims(), grad.device()).unwrap() * share).unwrap();
    crate::assert_relative(&format!("{name}, {cfg:?}"), grad, &wanted, 1e-7);
}

#[test]
fn gradients_of_the_read_out_are_those_of_finite_differences() {
    let paper = tiny(VqSvaeConfig::paper);
    let over = Reconstruction::OverVariance { variance: 0.1 };
    for cfg in [
        VqSvaeConfig { reduction: Reduction::Sum, ..paper.clone() },
        VqSvaeConfig { reconstruction: over, ..paper.clone() },
        paper,
    ] {
        check_slope(&cfg, "head.weight", |losses| &losses.reconstruction, 1.);
        check_slope(&cfg, "head.bias", |losses| &losses.reconstruction, 1.);
    }
}

#[test]
fn the_gradient_goes_straight_through_the_clamp() {
    let wide = tiny(VqSvaeConfig::paper);
    let clamped = Pass::new(&VqSvaeConfig { output: Activation::ClampedTanh, ..wide.clone() });
    let pass = Pass::new(&wide);
    let out = pass.fixture.model.forward_t(&pass.images, true).unwrap();
    // As if tanh itself were shown the errors of the clamped pixels.
    let errors = (out.reconstruction.clamp(-0.5, 0.5).unwrap() - &pass.images).unwrap().detach();
    let shown = (&errors * &out.reconstruction).unwrap().mean_all().unwrap();
    let wanted = pass.gradients(&(shown * 2.).unwrap());
    let got = clamped.gradients(&clamped.losses().reconstruction);
    for name in ["head.weight", "head.bias", "decoder.1.conv.weight", "encoder.0.conv.weight"] {
        crate::assert_relative(name, &got[name], &wanted[name], 1e-12);
    }
}

/// Black and white pixels have errors until they are by the margin beyond themselves, the others as ever.
#[test]
fn a_margin_moves_the_targets_of_black_and_white() {
    let wide = tiny(VqSvaeConfig::paper);
    let margin = 0.1;
    let mut with = Pass::new(&VqSvaeConfig { output: Activation::ClampedTanh, margin, ..wide.clone() });
    let mut pass = Pass::new(&wide);
    // Blacks and whites among the greys.
    let images = (&pass.images * 2.).unwrap().clamp(-0.5, 0.5).unwrap();
    (with.images, pass.images) = (images.clone(), images.clone());
    let [white, black] =
        [images.ge(0.5), images.le(-0.5)].map(|is| is.unwrap().to_dtype(DType::F64).unwrap());
    assert!([&white, &black].iter().all(|is| is.sum_all().unwrap().to_scalar::<f64>().unwrap() > 5.));
    let targets = (&images + ((white - black).unwrap() * margin).unwrap()).unwrap();
    let out = pass.fixture.model.forward_t(&images, true).unwrap();
    let errors = (out.reconstruction.clamp(-0.5 - margin, 0.5 + margin).unwrap() - targets).unwrap().detach();
    let value = errors.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
    let losses = with.losses();
    assert!((losses.reconstruction.to_scalar::<f64>().unwrap() / value - 1.).abs() < 1e-12);
    let shown = (&errors * &out.reconstruction).unwrap().mean_all().unwrap();
    let (wanted, got) = (pass.gradients(&(shown * 2.).unwrap()), with.gradients(&losses.reconstruction));
    for name in ["head.weight", "head.bias", "decoder.1.conv.weight", "encoder.0.conv.weight"] {
        crate::assert_relative(name, &got[name], &wanted[name], 1e-12);
    }
    // Evaluated, the images are of the pixels' range.
    let image = with.fixture.model.forward_t(&images, false).unwrap().reconstruction;
    assert!(crate::flat(&image).iter().all(|x| x.abs() <= 0.5));
}

#[test]
fn gradients_of_the_dense_term_are_those_of_finite_differences() {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let cfg = |dense| VqSvaeConfig { reduction, ..config(SPIKES, dense) };
        let unbalanced = cfg(DenseTerm::Unbalanced);
        check_slope(&unbalanced, "codebook.weight", |losses| &losses.dense, 1.);
        check_slope(&unbalanced, "features.k", |losses| &losses.dense, 1.);
        // The value is (1 + 0.25) |z_E - z_Q|^2; the codebook sees the 1 of it, the encoder the 0.25.
        let balanced = cfg(DenseTerm::Balanced { commitment: 0.25 });
        check_slope(&balanced, "codebook.weight", |losses| &losses.dense, 1. / 1.25);
        check_slope(&balanced, "features.k", |losses| &losses.dense, 0.25 / 1.25);
    }
}
