//! The command `fid`: distances between two sets of images, as the metric packages print them.

mod side;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use spiking_diffusion_metrics::{
    Evaluation, EvaluationOptions, FAD_BATCH, InceptionLayer, Protocol, evaluate, evaluate_stats,
};

use super::{answer, flags, parsed, say};
use crate::error::{Error, Result};
use side::{Network, Side};

/// Measure FID (and with --all, KID, precision, recall, density and coverage) between two sets of images.
#[derive(Debug, Parser)]
#[command(
    name = "fid",
    after_help = "A and B are folders of PNG or JPEG files, .npz statistics (mu, sigma), or .safetensors files with one \
    tensor: images [N, C, H, W] in [0, 1], or features [N, D], which need no network. FID alone keeps no more than a batch in \
    memory; the other metrics keep the features, and statistics are not enough for them."
)]
pub(super) struct Arguments {
    /// Real: a folder of PNG or JPEG files, .npz statistics or a .safetensors file
    a: PathBuf,
    /// Generated: the same
    #[arg(required_unless_present = "save_stats")]
    b: Option<PathBuf>,
    /// paper, pytorch-fid, torch-fidelity, clean-fid, or fad (the features of FSVAE's published autoencoder)
    #[arg(long, value_name = "NAME", default_value = "pytorch-fid")]
    protocol: Protocol,
    /// Number of features, which names the layer: 64, 192, 768 or 2048
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = flags::count, allow_hyphen_values = true)]
    dims: usize,
    /// Weights of the network (paper: of torchvision's; fad: mnist_64.pth or fashion_64.pth, with the data's .npz as A)
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Load the published weights of the FID network (96 MB) into the user's cache, unless they are there (needs a build with
    /// --features download)
    #[arg(long, conflicts_with = "weights")]
    download: bool,
    /// Weights of the FID network, for the kernel distance of the protocol `paper`
    #[arg(long, value_name = "FILE")]
    kernel_weights: Option<PathBuf>,
    /// Images at a time; with fad, which takes the statistics of each batch, part of the number [default: 50; fad: 256]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    batch_size: Option<usize>,
    /// Seed of the subsets of the kernel distance
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = flags::seed, allow_hyphen_values = true)]
    seed: u64,
    /// Print one JSON object, with KID, instead of text
    #[arg(long)]
    json: bool,
    /// All metrics, not only FID
    #[arg(long)]
    all: bool,
    /// Write the statistics of A to this .npz file
    #[arg(long, value_name = "FILE")]
    save_stats: Option<PathBuf>,
}

/// Runs the whole of the example `fid`.
pub fn fid() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    match measured(arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(text)) => answer(&text),
        Err(e) => {
            say(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// What there is to print; warnings are said.
fn measured(arguments: &Arguments) -> Result<Option<String>> {
    let weights = arguments.weights.as_deref();
    let network = match arguments.protocol.settings(arguments.layer()?).inception {
        Some(config) => Network::inception(config, weights, arguments.download),
        None => Network::fad(weights),
    };
    let a = Side::open(&arguments.a, &network)?;
    if let Some(path) = &arguments.save_stats {
        a.stats(arguments.batch())?.write_npz(path)?;
    }
    let Some(b) = &arguments.b else { return Ok(None) };
    let found = measure(arguments, &a, &Side::open(b, &network)?)?;
    for warning in &found.warnings {
        say(&format!("warning: {warning}"));
    }
    if !arguments.json {
        return Ok(Some(table(&found)));
    }
    json(&found).map(Some).map_err(|e| Error::config("--json", true, e.to_string()))
}

fn measure(arguments: &Arguments, a: &Side<'_>, b: &Side<'_>) -> Result<Evaluation> {
    let (wanted, batch) = (arguments.wants_features(), arguments.batch());
    let (name, other) = (a.name(batch)?, b.name(batch)?);
    let extractor = if name == other { name } else { format!("{name}; {other}") };
    let options = EvaluationOptions {
        protocol: arguments.protocol,
        extractor,
        seed: arguments.seed,
        prdc: arguments.all,
    };
    let given: Vec<&Side<'_>> = [a, b].into_iter().filter(|side| side.is_stats()).collect();
    if !wanted || !given.is_empty() {
        let mut found = evaluate_stats(&a.stats(batch)?, &b.stats(batch)?, &options)?;
        if wanted {
            let given: Vec<String> = given.iter().map(|side| side.name(batch)).collect::<Result<_>>()?;
            found.warnings.push(format!(
                "{} left out, which need features: given are {}",
                arguments.unmet(),
                given.join(" and ")
            ));
        }
        return Ok(found);
    }
    let mut found = evaluate(&a.features(batch)?, &b.features(batch)?, &options)?;
    if let (Some(weights), Some(other)) = (&arguments.kernel_weights, &arguments.b) {
        let config = arguments.protocol.settings(arguments.layer()?).kernel_inception;
        let config = config.ok_or_else(|| {
            Error::config("--kernel-weights", weights.display(), "this protocol has no kernel distance")
        })?;
        let network = Network::inception(config, Some(weights), false);
        let (a, b) = (Side::open(&arguments.a, &network)?, Side::open(other, &network)?);
        found.add_kernel(&a.features(batch)?, &b.features(batch)?, &a.name(batch)?)?;
    }
    Ok(found)
}

impl Arguments {
    fn layer(&self) -> Result<InceptionLayer> {
        Ok(InceptionLayer::with_dims(self.dims)?)
    }

    /// Images at a time: in FAD, whose network takes the statistics of each batch, part of the number.
    fn batch(&self) -> usize {
        self.batch_size.unwrap_or(if self.protocol == Protocol::Fad { FAD_BATCH } else { 50 })
    }

    /// Whether something is asked for that statistics cannot give.
    fn wants_features(&self) -> bool {
        self.all || (self.json && self.protocol != Protocol::Fad) || self.kernel_weights.is_some()
    }

    /// What that is.
    fn unmet(&self) -> &'static str {
        if self.all { "KID, precision, recall, density and coverage are" } else { "KID is" }
    }
}

fn json(found: &Evaluation) -> serde_json::Result<String> {
    let mut tree = serde_json::to_value(found)?;
    if let (Protocol::Fad, Some(fields)) = (found.protocol, tree.as_object_mut())
        && let Some(distance) = fields.remove("fid")
    {
        fields.insert("fad".to_owned(), distance);
    }
    serde_json::to_string(&tree)
}

fn table(found: &Evaluation) -> String {
    // By the network of FAD's authors, or by an Inception.
    let distance = if found.protocol == Protocol::Fad { "FAD" } else { "FID" };
    let mut lines = vec![format!("{distance}:  {}", found.fid)];
    if let (Some(mean), Some(std)) = (found.kid_mean, found.kid_std) {
        lines.push(format!("KID:  {mean} +- {std}"));
    }
    if let Some(p) = found.prdc {
        let all = [
            ("precision", p.precision),
            ("recall", p.recall),
            ("density", p.density),
            ("coverage", p.coverage),
        ];
        lines.push(all.map(|(name, value)| format!("{name} {value}")).join("  "));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
