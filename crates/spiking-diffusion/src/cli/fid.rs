//! The command `fid`: distances between two sets of images, as the metric packages print them.

mod side;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use spiking_diffusion_metrics::{
    Evaluation, EvaluationOptions, FAD_BATCH, InceptionLayer, InceptionVariant, Protocol, evaluate,
    evaluate_stats,
};

use super::{answer, failed, flags, parsed, say};
use crate::error::{Error, Result, absent};
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
    /// Number of features, which names the layer: 64, 192, 768 or 2048 [default: 2048]
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    dims: Option<usize>,
    /// Weights of the network (paper: of torchvision's; fad: mnist_64.pth or fashion_64.pth, with the data's .npz as A) [default, for the
    /// FID network: the file that SPIKING_INCEPTION names]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Load the published weights of the FID network (96 MB) into the user's cache, unless they are there (needs a build with
    /// --features download)
    #[arg(long, conflicts_with = "weights")]
    download: bool,
    /// Weights of the FID network, for the kernel distance of the protocol `paper`
    #[arg(long, value_name = "FILE", requires = "b")]
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
    /// Write the statistics of A to this .npz file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    save_stats: Option<PathBuf>,
}

/// Runs the whole of the example `fid`.
pub fn fid() -> ExitCode {
    parsed(start)
}

pub(super) fn start(arguments: &Arguments) -> ExitCode {
    match measured(arguments, flags::path_of(flags::INCEPTION).as_deref()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(text)) => answer(&text),
        Err(e) => failed(&e),
    }
}

/// What there is to print; warnings are said. `own` are the user's weights of the FID network, for when no flag names some.
fn measured(arguments: &Arguments, own: Option<&Path>) -> Result<Option<String>> {
    // First what may be wrong, then what takes long.
    arguments.check()?;
    let network = arguments.network(own)?;
    let a = Side::open(&arguments.a, &network)?;
    let b = arguments.b.as_deref().map(|b| Side::open(b, &network)).transpose()?;
    arguments.check_kernel([Some(&a), b.as_ref()])?;
    if let Some(path) = &arguments.save_stats {
        if b.is_some() && arguments.wants_features() && a.is_images() {
            // Kept, for the statistics too: the network is slow.
            a.features(arguments.batch())?;
        }
        a.stats(arguments.batch())?.write_npz(path)?;
    }
    let Some(b) = b else { return Ok(None) };
    let found = measure(arguments, &a, &b)?;
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
        let mut found = evaluate_stats(a.stats(batch)?, b.stats(batch)?, &options)?;
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
    let mut found = evaluate(a.features(batch)?, b.features(batch)?, &options)?;
    let kernel = arguments.protocol.settings(arguments.layer()?).kernel_inception;
    if let (Some(weights), Some(other), Some(config)) = (&arguments.kernel_weights, &arguments.b, kernel) {
        let network = Network::inception(config, Some(weights), false);
        let (a, b) = (Side::open(&arguments.a, &network)?, Side::open(other, &network)?);
        found.add_kernel(a.features(batch)?, b.features(batch)?, &a.name(batch)?)?;
    }
    Ok(found)
}

impl Arguments {
    fn layer(&self) -> Result<InceptionLayer> {
        Ok(InceptionLayer::with_dims(self.dims.unwrap_or(2048))?)
    }

    /// Refuses to write over statistics, and flags of another network than FAD's.
    fn check(&self) -> Result<()> {
        self.save_stats.as_deref().map_or(Ok(()), absent)?;
        if self.protocol != Protocol::Fad {
            return Ok(());
        }
        let kernel = self.kernel_weights.as_ref().map(|file| file.display().to_string());
        let given = [
            ("--dims", self.dims.map(|dims| dims.to_string())),
            ("--download", self.download.then(|| true.to_string())),
            ("--kernel-weights", kernel),
        ];
        flags::refuse(given, "is of an Inception network; the protocol `fad` has another")
    }

    /// Refuses weights that no image would be seen by.
    fn check_kernel(&self, sides: [Option<&Side<'_>>; 2]) -> Result<()> {
        let without = sides.into_iter().flatten().find(|side| !side.is_images());
        match (&self.kernel_weights, without) {
            (Some(weights), Some(side)) => {
                let reason = format!("is for images, and {} holds none", side.path().display());
                Err(Error::config("--kernel-weights", weights.display(), reason))
            }
            _ => Ok(()),
        }
    }

    /// The network of the Fréchet distance: with the weights that a flag names, or with the user's own where it is the FID network.
    fn network<'a>(&'a self, own: Option<&'a Path>) -> Result<Network<'a>> {
        let weights = self.weights.as_deref();
        Ok(match self.protocol.settings(self.layer()?).inception {
            Some(config) => {
                let own = own.filter(|_| config.variant == InceptionVariant::Fid && !self.download);
                Network::inception(config, weights.or(own), self.download)
            }
            None => Network::fad(weights),
        })
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
