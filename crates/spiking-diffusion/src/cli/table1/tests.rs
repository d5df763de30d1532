//! On runs that no folder holds.

use clap::CommandFactory;

use super::*;

fn run(name: &str, dataset: Option<&str>, ours: Numbers) -> Run {
    let paper = dataset.and_then(paper);
    Run {
        run: name.into(),
        error: dataset.is_none().then(|| "no such file".to_owned()),
        dataset: dataset.map(str::to_owned),
        model: (name == "c").then(|| "fsvae".to_owned()),
        held_out: if name == "a" { 500 } else { 0 },
        partial: (name == "b").then(|| "half of it".to_owned()),
        ours,
        features: (name == "b").then_some(768),
        fad_images: (name == "b").then_some(1280),
        published_fad: dataset.map_or(&[], published_fad),
        spiking_diffusion: paper.map(|paper| paper[0]),
        fsvae: paper.map(|paper| paper[1]),
        budget: dataset.map(|_| "one epoch".to_owned()),
        protocol: dataset.map(|_| "as always".to_owned()),
    }
}

#[test]
fn runs_of_a_data_set_stand_together_over_the_papers() {
    Arguments::command().debug_assert();
    let runs = vec![
        run("a", Some("mnist"), [Some(0.0125), Some(0.1), None, Some(40.), None]),
        run("gone", None, [None; 5]),
        run("c", Some("synthetic-digits"), [Some(0.5), Some(0.25), None, None, None]),
        run("b", Some("mnist"), [Some(0.02), Some(0.2), Some(0.0301), None, Some(9.5)]),
    ];
    let page = Table { metrics: METRICS, paper_protocol: PAPER_PROTOCOL, fad_protocol: FAD_PROTOCOL, runs }
        .to_markdown();
    let wanted = "\
        | mnist | `a` | 0.0125 | 0.100 | - | 40.00 | - |\n\
        | mnist | `b` | 0.0200 | 0.200 | 0.030 (768) | - | 9.50 (1280) |\n\
        | mnist | Spiking-Diffusion (paper) | 0.0060 | 0.077 | 0.018 | 37.50 | - |\n\
        | mnist | FSVAE (paper) | 0.0230 | 0.219 | 0.054 | 90.57 | - |\n\
        | mnist | FSVAE (its paper) | - | - | - | - | 35.54 (5120) |\n\
        | mnist | ESVAE (its paper) | - | - | - | - | 10.99 (5120) |\n\
        | mnist | FSDDIM (its paper) | - | - | - | - | 3.62 (10000) |\n\
        | - | `gone` | - | - | - | - | - |\n\
        | synthetic-digits | fsvae `c` | 0.5000 | 0.250 | - | - | - |\n";
    assert!(page.contains(wanted), "{page}");
    assert!(
        page.contains("- `gone`: no such file\n") && page.contains("**Partial data:** half of it."),
        "{page}"
    );
    assert_eq!(page.matches("**Held out: the last 500 training images").count(), 1, "{page}");
}

#[test]
fn small_numbers_keep_two_digits() {
    let shown = |number: f64| format!("{number:.0$}", decimals(number, 3));
    let cases =
        [(0.0301, "0.030"), (0.000_114, "0.00011"), (37.5, "37.500"), (0., "0.000"), (1e-30, "0.000")];
    for (number, wanted) in cases.into_iter().chain([(-0.0007, "-0.00070"), (0.0562, "0.056"), (1., "1.000")])
    {
        assert_eq!(shown(number), wanted);
    }
}

/// Cells of a row as a renderer splits it: at bars that no backslash precedes.
fn cells(row: &str) -> Vec<String> {
    let (mut cells, mut escaped) = (vec![String::new()], false);
    for c in row.trim_matches('|').chars() {
        match c {
            '|' if !escaped => cells.push(String::new()),
            _ => cells.last_mut().unwrap().push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    cells
}

#[test]
fn any_name_is_one_cell_of_one_row() {
    let names = ["a|b", "a\nb", "a`b", "``", r"a\|b", "a\r\n|`\t"];
    let runs = names.map(|name| Run { dataset: Some(name.to_owned()), ..run(name, None, [None; 5]) });
    let page = Table {
        metrics: METRICS,
        paper_protocol: PAPER_PROTOCOL,
        fad_protocol: FAD_PROTOCOL,
        runs: runs.into(),
    }
    .to_markdown();
    let rows: Vec<&str> = page.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 2 + names.len(), "{page}");
    for row in rows {
        assert_eq!(cells(row).len(), 7, "{row}");
    }
    for shown in [r"| `a\|b` |", r"| `a\nb` |", "| `` a`b `` |", "| ``` `` ``` |"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // Outside of the table a bar is a bar.
    assert!(page.contains("\n- `a|b`: no such file\n"), "{page}");
}

#[cfg(unix)]
#[test]
fn a_name_that_is_no_unicode_does_not_hide_the_others() {
    use std::os::unix::ffi::OsStrExt;
    let bad = Run::of(Path::new(std::ffi::OsStr::from_bytes(b"x\xff")));
    let runs = vec![bad, run("good", Some("mnist"), [Some(0.5); 5])];
    let table = Table { metrics: METRICS, paper_protocol: PAPER_PROTOCOL, fad_protocol: FAD_PROTOCOL, runs };
    let json = serde_json::to_value(&table).unwrap();
    assert_eq!((&json["runs"][0]["run"], &json["runs"][1]["ours"][0]), (&"x\u{fffd}".into(), &0.5.into()));
    assert!(json["runs"][0]["error"].as_str().unwrap().contains("x\u{fffd}"), "{json}");
    assert!(table.to_markdown().contains("| `good` | 0.5000 |"));
}

#[test]
fn a_folder_without_a_report_has_no_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::of(folder.path());
    assert!(run.error.is_some_and(|e| e.contains("report.json")));
    std::fs::write(folder.path().join("report.json"), "{}").unwrap();
    assert!(Run::of(folder.path()).error.is_some_and(|e| e.contains("missing field")));
}
