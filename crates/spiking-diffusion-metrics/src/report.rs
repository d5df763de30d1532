//! All distances between two sets, with what they were measured with.

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::input::{self, Rows};
use crate::manifold::prdc_of_rows;
use crate::protocol::{Root, Settings};
use crate::{
    Error, FeatureStats, InceptionLayer, KernelDistance, Prdc, Protocol, Result, frechet, frechet_distance,
    frechet_distance_paper, kernel, random_subsets,
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
    let (a, b) = input::feature_pair(real, generated, ["real features", "generated features"])?;
    let settings = options.settings();
    let fid = match settings.root {
        Root::Principal => frechet::distance_of_rows(&a, &b)?,
        root => frechet(&FeatureStats::from_rows(&a)?, &FeatureStats::from_rows(&b)?, root)?,
    };
    let mut found = options.report(fid, a.cols, [Some(a.rows as u64), Some(b.rows as u64)]);
    let kid = kid(&a, &b, options.seed, &settings, &mut found.warnings)?;
    (found.kid_mean, found.kid_std) = (Some(kid.mean), Some(kid.std));
    if options.prdc {
        found.prdc = Some(prdc_of_rows(&a, &b, settings.neighbours, settings.ball)?);
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
    let fid = frechet(a, b, options.settings().root)?;
    Ok(options.report(fid, a.dims(), [a.count(), b.count()]))
}

fn frechet(a: &FeatureStats, b: &FeatureStats, root: Root) -> Result<f64> {
    match root {
        Root::Principal => frechet_distance(a, b),
        Root::SingularVectors => frechet_distance_paper(a, b),
    }
}

impl EvaluationOptions {
    /// The part of the settings that is used here does not depend on the layer.
    fn settings(&self) -> Settings {
        self.protocol.settings(InceptionLayer::Pool2048)
    }

    fn report(&self, fid: f64, dims: usize, [count_a, count_b]: [Option<u64>; 2]) -> Evaluation {
        let sets = [("first", count_a), ("second", count_b)];
        Evaluation {
            fid,
            kid_mean: None,
            kid_std: None,
            prdc: None,
            protocol: self.protocol,
            extractor: self.extractor.clone(),
            dims,
            count_a,
            count_b,
            seed: self.seed,
            warnings: sets.into_iter().filter_map(|(set, count)| too_few(set, count?, dims)).collect(),
        }
    }
}

fn too_few(set: &str, count: u64, dims: usize) -> Option<String> {
    (count <= dims as u64).then(|| {
        format!("{set} set: {count} samples of {dims} features: the covariance is singular, the FID biased")
    })
}

fn kid(
    real: &Rows,
    generated: &Rows,
    seed: u64,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<KernelDistance> {
    let (n, m) = (real.rows, generated.rows);
    let size = settings.kid_subset_size.min(n).min(m);
    if size < settings.kid_subset_size {
        warnings.push(format!("KID: subsets of {size} rows, not of {}", settings.kid_subset_size));
    }
    if size < 2 {
        return Err(Error::TooFew { what: "samples", need: 2, got: size });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let subsets = random_subsets(n, m, settings.kid_subsets, size, &mut rng)?;
    kernel::distance_of_rows(real, generated, &subsets)
}
