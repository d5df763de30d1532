//! All distances between two sets, with what they were measured with.

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::input::{self, Rows};
use crate::manifold::prdc_of_rows;
use crate::protocol::{Root, Settings};
use crate::{
    Error, FeatureStats, InceptionLayer, Prdc, Protocol, Result, frechet, frechet_distance,
    frechet_distance_paper, kernel, random_subsets,
};

/// What the two sets are called in errors.
const FEATURES: [&str; 2] = ["real features", "generated features"];

/// Distances between two sets of features, and the protocol without which they mean nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// The Fréchet distance, by the protocol's root.
    pub fid: f64,
    /// The mean of the kernel distance over the subsets; `None` if it was not asked for or the features are unknown.
    pub kid_mean: Option<f64>,
    /// The population standard deviation of the kernel distance over the subsets.
    pub kid_std: Option<f64>,
    /// Precision, recall, density and coverage, the first set being the real one.
    #[serde(flatten)]
    pub prdc: Option<Prdc>,
    /// The protocol by which the numbers were measured.
    pub protocol: Protocol,
    /// The [name](crate::FeatureExtractor::name) of the extractor, as the caller gave it.
    pub extractor: String,
    /// The name of the kernel distance's extractor, if it had features of its own: see [`Evaluation::add_kernel`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_extractor: Option<String>,
    /// The number of features.
    pub dims: usize,
    /// The number of samples of the first set; `None` if its statistics do not say.
    pub count_a: Option<u64>,
    /// The number of samples of the second set; `None` if its statistics do not say.
    pub count_b: Option<u64>,
    /// The seed of the subsets of the kernel distance.
    pub seed: u64,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
}

/// Says what [`evaluate`] computes, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationOptions {
    /// The protocol by which to measure.
    pub protocol: Protocol,
    /// The name of the extractor that made the features.
    pub extractor: String,
    /// The seed of the subsets of the kernel distance (`ChaCha8`).
    pub seed: u64,
    /// Whether to compute precision, recall, density and coverage too, which takes `N M D` operations.
    pub prdc: bool,
}

/// Compares generated with real features by a protocol: their Fréchet and kernel distance and, if asked for, precision,
/// recall, density and coverage.
///
/// The protocol says which network the features are to come from ([`Settings::inception`]). What they did come from
/// cannot be seen in them, so the caller says it, in `options.extractor`. [`Protocol::Paper`] takes the
/// kernel distance of features of another network: it is left out here, with a warning, and
/// [`Evaluation::add_kernel`] adds it.
///
/// Subsets of the kernel distance hold as many rows as the protocol says, or all rows of the smaller set if it has fewer
/// (with a warning).
///
/// # Shapes
/// `real: [N, D]`, `generated: [M, D]`.
///
/// # Errors
/// Returns the errors of [`frechet_distance`], [`kernel_distance`](crate::kernel_distance) and [`prdc`](crate::prdc).
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
    let (a, b) = input::feature_pair(real, generated, FEATURES)?;
    let settings = options.settings();
    let fid = match settings.root {
        Root::Principal => frechet::distance_of_rows(&a, &b)?,
        root => frechet(&FeatureStats::from_rows(&a)?, &FeatureStats::from_rows(&b)?, root)?,
    };
    let mut found = options.report(fid, a.cols, [Some(a.rows as u64), Some(b.rows as u64)]);
    if settings.inception == settings.kernel_inception {
        found.add_kid(&a, &b, &settings)?;
    } else {
        found.warnings.push(format!("KID: {} takes it of features of another network", options.protocol));
    }
    if options.prdc {
        found.prdc = Some(prdc_of_rows(&a, &b, settings.neighbours, settings.ball)?);
    }
    Ok(found)
}

/// Compares two sets by their statistics alone, which are enough for the Fréchet distance.
///
/// # Errors
/// Returns the errors of [`frechet_distance`].
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
            kernel_extractor: None,
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

impl Evaluation {
    /// Adds the kernel distance where the protocol takes it from other features of the same images than the Fréchet distance:
    /// from those of its [`Settings::kernel_inception`], named by `extractor`.
    ///
    /// # Errors
    /// Returns the errors of [`kernel_distance`](crate::kernel_distance).
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use spiking_diffusion_metrics::{EvaluationOptions, Protocol, evaluate};
    ///
    /// let x = Tensor::arange(0f64, 20.0, &Device::Cpu)?.sin()?.reshape((10, 2))?;
    /// let options = EvaluationOptions { protocol: Protocol::Paper, extractor: "x".into(), seed: 0, prdc: false };
    /// let mut found = evaluate(&x, &x, &options)?;
    /// assert_eq!(found.kid_mean, None);
    /// found.add_kernel(&x.cos()?, &x.cos()?, "cosine of x")?;
    /// assert!(found.kid_mean.is_some());
    /// # Ok::<(), spiking_diffusion_metrics::Error>(())
    /// ```
    pub fn add_kernel(&mut self, real: &Tensor, generated: &Tensor, extractor: &str) -> Result<()> {
        let (a, b) = input::feature_pair(real, generated, FEATURES)?;
        self.warnings.retain(|warning| !warning.starts_with("KID:"));
        self.add_kid(&a, &b, &self.protocol.settings(InceptionLayer::Pool2048))?;
        self.kernel_extractor = Some(extractor.to_owned());
        Ok(())
    }

    fn add_kid(&mut self, real: &Rows, generated: &Rows, settings: &Settings) -> Result<()> {
        let (n, m) = (real.rows, generated.rows);
        let size = settings.kid_subset_size.min(n).min(m);
        if size < settings.kid_subset_size {
            let wanted = settings.kid_subset_size;
            self.warnings.push(format!("KID: subsets of {size} rows, not of {wanted}"));
        }
        if size < 2 {
            return Err(Error::TooFew { what: "samples", need: 2, got: size });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let subsets = random_subsets(n, m, settings.kid_subsets, size, &mut rng)?;
        let kid = kernel::distance_of_rows(real, generated, &subsets)?;
        (self.kid_mean, self.kid_std) = (Some(kid.mean), Some(kid.std));
        Ok(())
    }
}
