//! Distances between two sets of images, as the metric packages print them.
//!
//! ```sh
//! cargo run --release --example fid -- A B [--protocol clean-fid] [--weights FILE] [--json] [--all]
//! cargo run --release --example fid -- A --save-stats A.npz --weights FILE
//! ```
//! `A` (real) and `B` (generated) are folders of PNG or JPEG files, `.npz` statistics (`mu`, `sigma`), or `.safetensors`
//! files with one tensor: images `[N, C, H, W]` in `[0, 1]`, or features `[N, D]`, which need no network. FID alone keeps
//! no more than a batch in memory; the other metrics keep the features.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::Tensor;
use clap::Parser;
use indicatif::ProgressBar;
use spiking_diffusion_metrics::{
    Evaluation, EvaluationOptions, FeatureExtractor, FeatureStats, ImageFolder, ImageSource, Inception,
    InceptionConfig, InceptionLayer, InceptionVariant, InceptionWeights, Protocol, TensorFile, evaluate,
    evaluate_stats, extract_batches,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// FID (and with --all, KID, precision, recall, density and coverage) between two sets of images.
#[derive(Parser)]
struct Args {
    /// Real: a folder of PNG or JPEG files, .npz statistics or a .safetensors file.
    a: PathBuf,
    /// Generated: the same.
    #[arg(required_unless_present = "save_stats")]
    b: Option<PathBuf>,
    /// paper, pytorch-fid, torch-fidelity or clean-fid.
    #[arg(long, default_value = "pytorch-fid")]
    protocol: Protocol,
    /// Number of features, which names the layer: 64, 192, 768 or 2048.
    #[arg(long, default_value_t = 2048)]
    dims: usize,
    /// Weights of the network (paper: of torchvision's).
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Loads the published weights of the FID network (96 MB) into the user's cache, unless they are there.
    #[arg(long, conflicts_with = "weights")]
    download: bool,
    /// Weights of the FID network, for the kernel distance of the protocol `paper`.
    #[arg(long)]
    kernel_weights: Option<PathBuf>,
    /// Images at a time.
    #[arg(long, default_value_t = 50)]
    batch_size: usize,
    /// Seed of the subsets of the kernel distance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object, with KID, instead of text.
    #[arg(long)]
    json: bool,
    /// All metrics, not only FID.
    #[arg(long)]
    all: bool,
    /// Writes the statistics of A to this .npz file.
    #[arg(long)]
    save_stats: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let inception = args.protocol.settings(InceptionLayer::with_dims(args.dims)?).inception;
    let network = Network { download: args.download, ..Network::new(inception, args.weights.as_deref()) };
    let a = Side::open(&args.a, &network)?;
    if let Some(path) = &args.save_stats {
        a.stats(args)?.write_npz(path)?;
    }
    let Some(b) = &args.b else { return Ok(()) };
    let found = measure(args, &a, &Side::open(b, &network)?)?;
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print(&found);
    }
    Ok(())
}

fn measure(args: &Args, a: &Side<'_>, b: &Side<'_>) -> Result<Evaluation> {
    let extractor = if a.name()? == b.name()? { a.name()? } else { format!("{}; {}", a.name()?, b.name()?) };
    let options = EvaluationOptions { protocol: args.protocol, extractor, seed: args.seed, prdc: args.all };
    if !(args.all || args.json) || a.is_stats() || b.is_stats() {
        return Ok(evaluate_stats(&a.stats(args)?, &b.stats(args)?, &options)?);
    }
    let mut found = evaluate(&a.features(args)?, &b.features(args)?, &options)?;
    if let (Some(weights), Some(other)) = (&args.kernel_weights, &args.b) {
        let config = args.protocol.settings(InceptionLayer::with_dims(args.dims)?).kernel_inception;
        let network = Network::new(config, Some(weights));
        let (a, b) = (Side::open(&args.a, &network)?, Side::open(other, &network)?);
        found.add_kernel(&a.features(args)?, &b.features(args)?, &a.name()?)?;
    }
    Ok(found)
}

fn print(found: &Evaluation) {
    println!("FID:  {}", found.fid);
    if let (Some(mean), Some(std)) = (found.kid_mean, found.kid_std) {
        println!("KID:  {mean} +- {std}");
    }
    if let Some(p) = found.prdc {
        println!(
            "precision {}  recall {}  density {}  coverage {}",
            p.precision, p.recall, p.density, p.coverage
        );
    }
}

/// Inception, loaded when the first image needs it.
struct Network<'a> {
    config: InceptionConfig,
    weights: Option<&'a Path>,
    download: bool,
    loaded: OnceCell<Inception>,
}

impl<'a> Network<'a> {
    fn new(config: InceptionConfig, weights: Option<&'a Path>) -> Self {
        Self { config, weights, download: false, loaded: OnceCell::new() }
    }

    fn get(&self) -> Result<&Inception> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = Inception::new(self.config, &self.open()?)?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn open(&self) -> Result<InceptionWeights> {
        match self.weights {
            Some(path) => Ok(InceptionWeights::open(path)?),
            None if self.download && self.config.variant == InceptionVariant::Fid => {
                let bar = ProgressBar::no_length();
                let weights = InceptionWeights::download(&mut |got, of| {
                    bar.set_length(of.unwrap_or(got));
                    bar.set_position(got);
                    ControlFlow::Continue(())
                });
                bar.finish_and_clear();
                Ok(weights?)
            }
            None => {
                let file =
                    "pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or the same tensors as .safetensors";
                let paper = "--protocol paper: torchvision's inception_v3_google-0cc3c7bd.pth";
                Err(format!("images need --weights FILE or --download: {file} ({paper})").into())
            }
        }
    }
}

/// What one side is given as.
enum Side<'a> {
    Stats(PathBuf, FeatureStats),
    Features(PathBuf, TensorFile),
    Images(Box<dyn ImageSource>, &'a Network<'a>),
}

impl<'a> Side<'a> {
    fn open(path: &Path, network: &'a Network<'a>) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Images(Box::new(ImageFolder::open(path)?), network));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("npz") => Ok(Self::Stats(path.to_owned(), FeatureStats::read_npz(path)?)),
            Some("safetensors") => {
                let file = TensorFile::open(path)?;
                match file.shape() {
                    [_, _] => Ok(Self::Features(path.to_owned(), file)),
                    [_, _, _, _] => Ok(Self::Images(Box::new(file), network)),
                    got => Err(format!("{}: expected 2 or 4 axes, got {got:?}", path.display()).into()),
                }
            }
            _ => Err(format!("{}: neither a folder, .npz nor .safetensors", path.display()).into()),
        }
    }

    /// Where its features come from.
    fn name(&self) -> Result<String> {
        Ok(match self {
            Self::Stats(path, _) => format!("statistics {}", path.display()),
            Self::Features(path, _) => format!("features {}", path.display()),
            Self::Images(_, network) => network.get()?.name(),
        })
    }

    fn is_stats(&self) -> bool {
        matches!(self, Self::Stats(..))
    }

    fn stats(&self, args: &Args) -> Result<FeatureStats> {
        match self {
            Self::Stats(_, stats) => Ok(stats.clone()),
            Self::Features(_, file) => {
                Ok(FeatureStats::from_images(&Given(file.shape()[1]), file, args.batch_size)?)
            }
            Self::Images(source, network) => {
                let source = Shown::new(source.as_ref());
                Ok(FeatureStats::from_images(network.get()?, &source, args.batch_size)?)
            }
        }
    }

    fn features(&self, args: &Args) -> Result<Tensor> {
        match self {
            Self::Stats(path, _) => Err(format!("{}: statistics, not features", path.display()).into()),
            Self::Features(_, file) => Ok(file.read(0, file.count())?),
            Self::Images(source, network) => {
                Ok(extract_batches(network.get()?, &Shown::new(source.as_ref()), args.batch_size)?)
            }
        }
    }
}

/// Features that are there already, so many of them.
struct Given(usize);

impl FeatureExtractor for Given {
    fn name(&self) -> String {
        "given features".into()
    }

    fn dims(&self) -> usize {
        self.0
    }

    fn extract(&self, features: &Tensor) -> spiking_diffusion_metrics::Result<Tensor> {
        Ok(features.clone())
    }
}

/// A source behind a progress bar.
struct Shown<'a>(&'a dyn ImageSource, ProgressBar);

impl<'a> Shown<'a> {
    fn new(source: &'a dyn ImageSource) -> Self {
        Self(source, ProgressBar::new(source.count() as u64))
    }
}

impl ImageSource for Shown<'_> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn read(&self, start: usize, count: usize) -> spiking_diffusion_metrics::Result<Tensor> {
        self.1.set_position(start as u64);
        self.0.read(start, count)
    }

    fn read_sizes(&self, start: usize, count: usize) -> spiking_diffusion_metrics::Result<Vec<Tensor>> {
        self.1.set_position(start as u64);
        self.0.read_sizes(start, count)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.1.finish_and_clear();
    }
}
