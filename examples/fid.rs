//! Distances between two sets of images, as the metric packages print them.
//!
//! ```sh
//! cargo run --release --example fid -- A B [--protocol clean-fid] [--weights FILE] [--json] [--all]
//! ```
//! `A` (real) and `B` (generated) are folders of PNGs, `.npz` statistics (`mu`, `sigma`), or `.safetensors` files
//! with one tensor: images `[N, C, H, W]` in `[0, 1]`, or features `[N, D]`, which need no network.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use indicatif::ProgressBar;
use spiking_diffusion_metrics::{
    EvaluationOptions, FeatureExtractor, FeatureStats, Inception, InceptionConfig, InceptionLayer,
    InceptionWeights, Protocol, evaluate, evaluate_stats,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// FID (and with --all, KID, precision, recall, density and coverage) between two sets of images.
#[derive(Parser)]
struct Args {
    /// Real: a folder of PNGs, .npz statistics or a .safetensors file.
    a: PathBuf,
    /// Generated: the same.
    b: PathBuf,
    /// paper, pytorch-fid, torch-fidelity or clean-fid.
    #[arg(long, default_value = "pytorch-fid")]
    protocol: Protocol,
    /// Number of features, which names the layer; the protocol's by default.
    #[arg(long)]
    dims: Option<usize>,
    /// Weights of the network.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Images at a time.
    #[arg(long, default_value_t = 50)]
    batch_size: usize,
    /// Seed of the subsets of the kernel distance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// All metrics, not only FID.
    #[arg(long)]
    all: bool,
}

/// What one side is known by.
enum Side {
    Stats(FeatureStats),
    Features(Tensor),
}

impl Side {
    fn stats(&self) -> Result<FeatureStats> {
        match self {
            Self::Stats(stats) => Ok(stats.clone()),
            Self::Features(features) => Ok(FeatureStats::from_features(features)?),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.batch_size == 0 {
        return Err("--batch-size 0: must be at least 1".into());
    }
    let (a, b) = (side(&args.a, &args)?, side(&args.b, &args)?);
    let options = EvaluationOptions {
        protocol: args.protocol,
        extractor: format!("{} {}", args.protocol, dims(&args)),
        seed: args.seed,
        prdc: args.all,
    };
    let found = match (&a, &b) {
        (Side::Features(a), Side::Features(b)) if args.all || args.json => evaluate(a, b, &options)?,
        _ => evaluate_stats(&a.stats()?, &b.stats()?, &options)?,
    };
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
        return Ok(());
    }
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
    Ok(())
}

fn dims(args: &Args) -> usize {
    args.dims.unwrap_or(args.protocol.settings().dims)
}

/// The protocol's network.
fn extractor(args: &Args) -> Result<Inception> {
    let Some(weights) = &args.weights else {
        let file = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or the same tensors as .safetensors";
        return Err(format!("images need --weights FILE: {file}").into());
    };
    let layer = match dims(args) {
        64 => InceptionLayer::Pool64,
        192 => InceptionLayer::Pool192,
        768 => InceptionLayer::Mixed768,
        2048 => InceptionLayer::Pool2048,
        other => return Err(format!("--dims {other}: must be 64, 192, 768 or 2048").into()),
    };
    let cfg = match args.protocol {
        Protocol::PytorchFid => InceptionConfig::pytorch_fid(layer),
        Protocol::TorchFidelity => InceptionConfig::torch_fidelity(layer),
        Protocol::CleanFid => InceptionConfig::clean_fid(layer),
        other => return Err(format!("--protocol {other}: give features instead of images").into()),
    };
    Ok(Inception::new(cfg, &InceptionWeights::open(weights)?)?)
}

fn side(path: &Path, args: &Args) -> Result<Side> {
    if path.is_dir() {
        return folder(path, args);
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => Ok(Side::Stats(FeatureStats::read_npz(path)?)),
        Some("safetensors") => batch(path, args),
        _ => Err(format!("{}: neither a folder, .npz nor .safetensors", path.display()).into()),
    }
}

fn batch(path: &Path, args: &Args) -> Result<Side> {
    let named = |e: candle_core::Error| format!("{}: {e}", path.display());
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).map_err(named)?;
    let mut names: Vec<_> = tensors.keys().collect();
    names.sort();
    let [name] = names[..] else {
        return Err(format!("{}: expected one tensor, got {names:?}", path.display()).into());
    };
    match tensors[name].dims() {
        [_, _] => Ok(Side::Features(tensors[name].clone())),
        [count, _, _, _] => {
            let images = tensors[name].to_dtype(DType::F32)?;
            features(*count, args, |start, len| Ok(images.narrow(0, start, len)?))
        }
        dims => Err(format!("{}: `{name}`: expected 2 or 4 axes, got {dims:?}", path.display()).into()),
    }
}

fn folder(path: &Path, args: &Args) -> Result<Side> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))? {
        let file = entry?.path();
        let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
        if extension.as_deref() == Some("png") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no PNG in this folder", path.display()).into());
    }
    features(files.len(), args, |start, len| images(&files[start..start + len]))
}

/// Images `[N, 3, H, W]` in `[0, 1]`.
fn images(files: &[PathBuf]) -> Result<Tensor> {
    let (mut values, mut size) = (Vec::new(), None);
    for file in files {
        let image = image::open(file).map_err(|e| format!("{}: {e}", file.display()))?.to_rgb8();
        let expected = *size.get_or_insert(image.dimensions());
        if image.dimensions() != expected {
            let (got, name) = (image.dimensions(), file.display());
            return Err(format!("{name}: {got:?} pixels, others of the batch have {expected:?}").into());
        }
        values.extend(image.into_raw());
    }
    let (width, height) = size.ok_or("no files")?;
    let shape = (files.len(), height as usize, width as usize, 3);
    let bytes = Tensor::from_vec(values, shape, &Device::Cpu)?.permute((0, 3, 1, 2))?;
    Ok((bytes.to_dtype(DType::F32)? / 255.0)?.contiguous()?)
}

/// Features of `count` images that `batch(start, len)` gives.
fn features(count: usize, args: &Args, batch: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Side> {
    let (network, bar) = (extractor(args)?, ProgressBar::new(count as u64));
    let mut parts = Vec::new();
    for start in (0..count).step_by(args.batch_size) {
        let len = args.batch_size.min(count - start);
        parts.push(network.extract(&batch(start, len)?)?);
        bar.inc(len as u64);
    }
    bar.finish_and_clear();
    Ok(Side::Features(Tensor::cat(&parts, 0)?))
}
