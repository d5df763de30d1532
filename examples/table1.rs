//! Our runs beside the paper's Table 1: `cargo run --release --example table1 -- RUN_DIR... [--json]`.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};
use spiking_diffusion::Report;

const METRICS: [&str; 4] = ["MSE", "1 - SSIM", "KID", "FID"];
const PAPER_PROTOCOL: &str = "The paper's columns: its own protocol (1,280 generated images against the first 1,280 test \
    images, its own Inception preprocessing), 100 epochs of each network; FSVAE as the paper printed it.";

/// Spiking-Diffusion's and FSVAE's numbers in the paper's Table 1, in the order of `METRICS`.
fn paper(dataset: &str) -> Option<[[f64; 4]; 2]> {
    Some(match dataset {
        "mnist" => [[0.006, 0.077, 0.018, 37.50], [0.023, 0.219, 0.054, 90.57]],
        "fashion-mnist" => [[0.011, 0.233, 0.055, 91.98], [0.023, 0.378, 0.070, 113.2]],
        "kmnist" => [[0.014, 0.151, 0.068, 59.23], [0.054, 0.452, 0.272, 166.9]],
        "emnist-letters" => [[0.005, 0.078, 0.075, 67.41], [0.015, 0.180, 0.140, 95.96]],
        "cifar-10" => [[0.009, 0.399, 0.121, 120.5], [0.024, 0.689, 0.181, 218.6]],
        _ => return None,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, folders): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    if folders.is_empty() || flags.iter().any(|flag| flag != "--json") {
        return Err("usage: table1 RUN_DIR... [--json]".into());
    }
    let rows = folders.iter().map(|folder| row(Path::new(folder))).collect::<Result<Vec<_>, _>>()?;
    if flags.is_empty() {
        print!("{}", markdown(&rows));
    } else {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "paper_protocol": PAPER_PROTOCOL, "runs": rows }))?
        );
    }
    Ok(())
}

/// One run's numbers, the paper's, budget and protocol; `null` where there is none.
fn row(folder: &Path) -> Result<Value, Box<dyn Error>> {
    let path = folder.join("report.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let report: Report = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let all: Value = serde_json::from_str(&text)?;
    let optional = |name: &str| all.pointer(&format!("/metrics/{name}")).cloned().unwrap_or(Value::Null);
    let ours = json!([report.metrics.mse, 1. - report.metrics.ssim, optional("kid"), optional("fid")]);
    let paper = paper(&report.dataset);
    let budget = format!(
        "preset {}, seed {}, {} + {} epochs on {} training images, {} test images",
        report.preset,
        report.seed,
        report.epochs.vqsvae,
        report.epochs.sdid,
        report.train_images,
        report.test_images
    );
    Ok(json!({
        "run": folder.display().to_string(), "dataset": report.dataset, "partial": report.partial,
        "metrics": METRICS, "ours": ours, "spiking_diffusion": paper.map(|p| p[0]), "fsvae": paper.map(|p| p[1]),
        "budget": budget, "protocol": report.protocol,
    }))
}

fn markdown(rows: &[Value]) -> String {
    let mut page =
        "| data set | metric | ours | Spiking-Diffusion (paper) | FSVAE (paper) |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for row in rows {
        for (i, metric) in METRICS.iter().enumerate() {
            let number = |column: &str| row[column][i].as_f64().map_or("-".to_owned(), |x| format!("{x:.4}"));
            let cells = ["ours", "spiking_diffusion", "fsvae"].map(number).join(" | ");
            page += &format!("| {} | {metric} | {cells} |\n", text(&row["dataset"]));
        }
    }
    page += &format!("\nSmaller is better.\n\n- {PAPER_PROTOCOL}\n");
    for row in rows {
        let partial = row["partial"].as_str().map_or(String::new(), |p| format!(" **Partial data:** {p}."));
        let [run, dataset, budget, protocol] =
            ["run", "dataset", "budget", "protocol"].map(|key| text(&row[key]));
        page += &format!("- Ours on {dataset} (`{run}`): {budget}.{partial} {protocol}\n");
    }
    page
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
