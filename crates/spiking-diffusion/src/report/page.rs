//! What a report says and in which order: the one source of `report.md` and `report.html`.

use super::energy::Line;
use super::{Report, held_out_note};
use crate::data::KnownSet;

/// A titled page of sections.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// Blocks under a heading.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) blocks: Vec<Block>,
}

/// A piece of a section.
pub(super) enum Block {
    /// Running text.
    Text(String),
    /// Text that must not be overlooked.
    Warning(String),
    /// Names and values that come first.
    Numbers(Vec<[String; 2]>),
    /// Rows under a head; all but the first column are numbers.
    Table { head: Vec<&'static str>, rows: Vec<Vec<String>> },
    /// Something to type.
    Code(String),
    /// A picture of the run's folder.
    Picture { file: &'static str, name: &'static str, caption: &'static str },
    /// A text file of the run's folder, folded.
    File { file: &'static str, caption: &'static str },
}

/// Each picture of a run, with its name and what it shows.
const PICTURES: [(&str, &str, &str); 9] = [
    ("samples.png", "samples", "The first samples of the seed, not picked."),
    (
        "unmasking.gif",
        "unmasking",
        "Samples in the making, a frame a diffusion step; tokens that are still masked are covered.",
    ),
    (
        "classes.png",
        "classes",
        "A row a class, at guidance 0, 1, 2 and 4 from the left; the same places have the same random numbers.",
    ),
    (
        "clusters.png",
        "clusters",
        "The means of the clusters that training images fall into; one of them is drawn before each sample.",
    ),
    (
        "neighbours.png",
        "neighbours",
        "The first samples, and under each the training image that is nearest to it, pixel by pixel, and where a \
        classifier of the run tells features, the one that is nearest by these. A copy would be equal to it.",
    ),
    ("reconstructions.png", "reconstructions", "Test images over what comes back of them."),
    ("loss.png", "loss", "The trainings: values, and their running means."),
    ("codebook.png", "codebook", "How often each code occurs in the test images."),
    ("firing_rates.png", "firing rates", "Spikes of each layer, a neuron and time step."),
];

/// The stages of a run, in order.
const STAGES: [&str; 12] = [
    "vqsvae",
    "encode",
    "clusters",
    "sdid",
    "fsvae",
    "esvae",
    "sample",
    "classes",
    "neighbours",
    "evaluate",
    "classifier",
    "distance",
];

/// The pictures of a run's images.
fn shown(report: &Report) -> Vec<&'static str> {
    let mut names = vec!["samples.png", "neighbours.png", "reconstructions.png"];
    names.extend(report.metrics.has_codes().then_some("unmasking.gif"));
    names.extend(report.classes.map(|_| "classes.png"));
    names.extend(report.clusters.map(|_| "clusters.png"));
    names
}

/// The page of a report.
pub(super) fn of(report: &Report) -> Page {
    let pictures = |names: &[&str]| {
        let chosen = PICTURES.into_iter().filter(|(file, _, _)| names.contains(file));
        chosen.map(|(file, name, caption)| Block::Picture { file, name, caption }).collect::<Vec<_>>()
    };
    let has_codes = report.metrics.has_codes();
    let results = metrics(report).into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    let mut sections = vec![
        Section { title: "Run", blocks: facts(report) },
        Section {
            title: "Metrics",
            blocks: vec![Block::Numbers(results), Block::Text(report.protocol.clone())],
        },
        Section { title: "Pictures", blocks: pictures(&shown(report)) },
        Section {
            title: "Training",
            blocks: std::iter::once(wall_times(report)).chain(pictures(&["loss.png"])).collect(),
        },
    ];
    let mut drawn = pictures(if has_codes { &["codebook.png"] } else { &[] });
    if report.firing_rates.is_empty() {
        sections.push(Section { title: "Codes", blocks: drawn });
    } else {
        drawn.extend(pictures(&["firing_rates.png"]));
        let title = if has_codes { "Spikes and codes" } else { "Spikes" };
        sections.push(Section { title, blocks: spikes(report, drawn) });
    }
    if let Some(energy) = &report.energy {
        let blocks = vec![
            Block::Text(energy.protocol.clone()),
            operations("for one image", &energy.work),
            operations("layer", &energy.layers),
        ];
        sections.push(Section { title: "Operations and energy", blocks });
    }
    let mut again = Vec::new();
    if let Some(command) = &report.command {
        let same = "The same command and version give the same bytes on one kind of processor, whatever the number of threads.";
        again.extend([Block::Code(command.clone()), Block::Text(same.to_owned())]);
        if !report.synthetic {
            let data = "`SPIKING_DATA_DIR` names a folder with the data set's files; `--download` in place of `--data-dir` (and a build with \
                `--features download`) takes them from the network.";
            again.push(Block::Text(data.to_owned()));
        }
    }
    again.push(Block::File { file: "config.json", caption: "every field of this run's config" });
    sections.push(Section { title: "Reproduce", blocks: again });
    let kind = if report.synthetic { " (synthetic)" } else { "" };
    let model = report.model.as_deref().unwrap_or("Spiking-Diffusion");
    Page { title: format!("{model} on {}{kind}", report.dataset), sections }
}

/// Name and value of each metric.
fn metrics(report: &Report) -> Vec<(&'static str, String)> {
    let m = &report.metrics;
    let mut rows = vec![
        ("MSE of the test reconstructions", format!("{:.5}", m.mse)),
        ("SSIM (the paper prints 1 - SSIM)", format!("{:.4} ({:.4})", m.ssim, 1. - m.ssim)),
    ];
    if m.has_codes() {
        let bits = format!("{:.4} ± {:.4}", m.bits_per_token, m.bits_per_token_standard_error);
        rows.push(("bits per token", bits));
        rows.push(("codes in use", m.codebook_used.to_string()));
        rows.push(("codebook perplexity", format!("{:.1}", m.codebook_perplexity)));
    }
    if let Some(n) = &report.neighbours {
        let value = format!("{:.3} ({:.3})", n.samples, n.test);
        rows.push(("distance of samples (test images) to the nearest training image", value));
    }
    if let Some(d) = &m.distance {
        rows.push(("FID of the samples", format!("{:.4}", d.fid)));
        if let Some(fid) = d.reconstruction_fid {
            rows.push(("FID of the test reconstructions", format!("{fid:.4}")));
        }
        rows.push(("KID of the samples", format!("{:.5} ± {:.5}", d.kid, d.kid_std)));
    }
    if let Some(d) = &m.fad {
        rows.push(("FAD of the samples", format!("{:.2}", d.fad)));
        rows.push(("FAD of the test reconstructions", format!("{:.2}", d.reconstruction_fad)));
    }
    rows
}

fn facts(report: &Report) -> Vec<Block> {
    let machine = &report.machine;
    let text = format!(
        "{}Preset `{}`, seed {}, {} on {} training images; {}. Device {}, {} threads, version {}.",
        report.model.as_ref().map_or(String::new(), |model| format!("Model `{model}`. ")),
        report.preset,
        report.seed,
        report.epochs.in_words(),
        report.train_images,
        report.measured_on(),
        machine.device,
        machine.threads,
        machine.version,
    );
    let data = match &report.partial {
        Some(partial) => Block::Warning(format!("Partial data: {partial}.")),
        None if report.synthetic => Block::Warning("Synthetic data: drawn by this program.".to_owned()),
        None => Block::Text(format!("Data: {}.", completeness(report))),
    };
    let held_out = held_out_note(report.held_out).map(Block::Warning);
    [Block::Text(text), data].into_iter().chain(held_out).collect()
}

fn completeness(report: &Report) -> String {
    match KnownSet::named(&report.dataset).map(KnownSet::counts) {
        Some((train, test)) if (report.train_images, report.test_images) == (train, test) => {
            "the complete official files".to_owned()
        }
        Some((train, _)) if report.held_out > 0 => {
            format!("{} of {train} official training images (the first ones)", report.train_images)
        }
        Some((train, test)) => format!(
            "{} of {train} official training images (the first ones), {} of {test} test images",
            report.train_images, report.test_images
        ),
        None => "given by the caller".to_owned(),
    }
}

fn wall_times(report: &Report) -> Block {
    let speed = |stage: &String| match report.images_per_second.get(stage) {
        Some(speed) => format!("{speed:.1}"),
        None => "-".to_owned(),
    };
    let row =
        |(stage, seconds): (&String, &f64)| vec![stage.clone(), format!("{seconds:.1} s"), speed(stage)];
    let mut stages: Vec<_> = report.seconds.iter().collect();
    stages.sort_by_key(|(stage, _)| STAGES.iter().position(|known| known == stage));
    Block::Table {
        head: vec!["stage", "wall time", "images per second"],
        rows: stages.into_iter().map(row).collect(),
    }
}

/// Rates in the order of the forward pass, where it is known.
fn spikes(report: &Report, pictures: Vec<Block>) -> Vec<Block> {
    let row = |(layer, rate): (String, f64)| vec![layer, format!("{:.2} %", 100. * rate)];
    let rows = report.ordered_rates().into_iter().map(row).collect();
    let table = Block::Table { head: vec!["layer", "firing rate"], rows };
    std::iter::once(table).chain(pictures).collect()
}

fn operations(what: &'static str, lines: &[Line]) -> Block {
    let row = |line: &Line| {
        let cost = &line.cost;
        vec![
            line.name.clone(),
            count(cost.dense_macs),
            count(cost.macs),
            count(cost.accumulates),
            energy(cost.dense_nanojoules),
            energy(cost.nanojoules),
            format!("{:.2}", cost.ratio()),
        ]
    };
    let head = vec![
        what,
        "MACs without spikes",
        "MACs, spiking",
        "ACs, spiking",
        "energy without spikes",
        "energy, spiking",
        "ratio",
    ];
    Block::Table { head, rows: lines.iter().map(row).collect() }
}

fn count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn energy(nanojoules: f64) -> String {
    match nanojoules {
        e if e >= 1e6 => format!("{:.2} mJ", e / 1e6),
        e if e >= 1e3 => format!("{:.1} µJ", e / 1e3),
        e => format!("{e:.1} nJ"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_energies_are_short() {
        assert_eq!([0., 999., 12_345., 2.5e6, 7.25e9].map(count), ["0", "999", "12.3 k", "2.50 M", "7.25 G"]);
        assert_eq!([0.04, 999.9, 12_345., 8.351e6].map(energy), ["0.0 nJ", "999.9 nJ", "12.3 µJ", "8.35 mJ"]);
    }
}
