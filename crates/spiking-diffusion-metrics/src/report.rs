//! All distances between two sets, with what they were measured with.

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    Error, FeatureStats, KernelDistance, Prdc, Protocol, Result, Root, frechet_distance,
    frechet_distance_paper, kernel_distance, prdc, random_subsets,
};

/// Distances between two sets of features, and the protocol without which they mean nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Fréchet distance, by the protocol's root.
    pub fid: f64,
    /// Kernel distance, mean over the subsets; `None` if it was not asked for or the features are unknown.
    pub kid_mean: Option<f64>,
    /// Its population standard deviation over the subsets.
    pub kid_std: Option<f64>,
    /// Precision, recall, density and coverage, the first set being the real one.
    #[serde(flatten)]
    pub prdc: Option<Prdc>,
    /// How it was measured.
    pub protocol: Protocol,
    /// [`FeatureExtractor::name`](crate::FeatureExtractor::name), as the caller gave it.
    pub extractor: String,
    /// Number of features.
    pub dims: usize,
    /// Samples of the first set; `None` if its statistics do not say.
    pub count_a: Option<u64>,
    /// Samples of the second set.
    pub count_b: Option<u64>,
    /// Seed of the subsets of the kernel distance.
    pub seed: u64,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
}

/// What [`evaluate`] computes.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationOptions {
    /// Protocol of the numbers.
    pub protocol: Protocol,
    /// Name of the extractor that made the features.
    pub extractor: String,
    /// Seed of the subsets of the kernel distance (`ChaCha8`).
    pub seed: u64,
    /// Whether to compute precision, recall, density and coverage too, which takes `N M D` operations.
    pub prdc: bool,
}

/// Fréchet and kernel distance of features, and precision, recall, density and coverage if asked for.
///
/// `real` comes first. Subsets of the kernel distance hold as many rows as the protocol says, or the smaller set
/// if that has fewer (with a warning).
///
/// # Shapes
/// `real: [N, D]`, `generated: [M, D]`.
///
/// # Errors
/// Those of [`frechet_distance`], [`kernel_distance`] and [`prdc`].
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion_metrics::{EvaluationOptions, Protocol, evaluate};
///
/// let real = Tensor::arange(0f64, 20.0, &Device::Cpu)?.sin()?.reshape((10, 2))?;
/// let options =
///     EvaluationOptions { protocol: Protocol::PytorchFid, extractor: "sine".into(), seed: 0, prdc: true };
/// let found = evaluate(&real, &(&real + 1.0)?, &options)?;
/// assert!((found.fid - 2.0).abs() < 1e-12);
/// assert!(found.warnings.iter().any(|w| w.contains("subsets of 10")));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn evaluate(real: &Tensor, generated: &Tensor, options: &EvaluationOptions) -> Result<Evaluation> {
    let (a, b) = (FeatureStats::from_features(real)?, FeatureStats::from_features(generated)?);
    let mut found = evaluate_stats(&a, &b, options)?;
    let settings = options.protocol.settings();
    let kid = kid(real, generated, options, &mut found.warnings)?;
    (found.kid_mean, found.kid_std) = (Some(kid.mean), Some(kid.std));
    if options.prdc {
        found.prdc = Some(prdc(real, generated, settings.neighbours)?);
    }
    Ok(found)
}

/// The Fréchet distance alone, which statistics are enough for.
///
/// # Errors
/// Those of [`frechet_distance`].
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{EvaluationOptions, FeatureStats, Protocol, evaluate_stats};
///
/// let a = FeatureStats::new(vec![0.0; 2], vec![1.0, 0.0, 0.0, 1.0], Some(2))?;
/// let options =
///     EvaluationOptions { protocol: Protocol::PytorchFid, extractor: "none".into(), seed: 0, prdc: false };
/// let found = evaluate_stats(&a, &a, &options)?;
/// assert!(found.fid.abs() < 1e-12 && found.warnings[0].contains("2 samples"));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn evaluate_stats(a: &FeatureStats, b: &FeatureStats, options: &EvaluationOptions) -> Result<Evaluation> {
    let fid = match options.protocol.settings().root {
        Root::Principal => frechet_distance(a, b)?,
        Root::SingularVectors => frechet_distance_paper(a, b)?,
    };
    let warnings = [("first", a), ("second", b)].into_iter().filter_map(|(set, s)| too_few(set, s)).collect();
    Ok(Evaluation {
        fid,
        kid_mean: None,
        kid_std: None,
        prdc: None,
        protocol: options.protocol,
        extractor: options.extractor.clone(),
        dims: a.dims(),
        count_a: a.count(),
        count_b: b.count(),
        seed: options.seed,
        warnings,
    })
}

fn too_few(set: &str, stats: &FeatureStats) -> Option<String> {
    let (count, dims) = (stats.count()?, stats.dims());
    (count <= dims as u64).then(|| {
        format!("{set} set: {count} samples of {dims} features: the covariance is singular, the FID biased")
    })
}

fn kid(
    real: &Tensor,
    generated: &Tensor,
    options: &EvaluationOptions,
    warnings: &mut Vec<String>,
) -> Result<KernelDistance> {
    let ((n, _), (m, _)) = (real.dims2()?, generated.dims2()?);
    let settings = options.protocol.settings();
    let size = settings.kid_subset_size.min(n).min(m);
    if size < settings.kid_subset_size {
        warnings.push(format!("KID: subsets of {size} rows, not of {}", settings.kid_subset_size));
    }
    if size < 2 {
        return Err(Error::TooFew { what: "samples", need: 2, got: size });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    kernel_distance(real, generated, &random_subsets(n, m, settings.kid_subsets, size, &mut rng)?)
}
