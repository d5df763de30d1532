//! The kernels' sources, as they lie in the program that launches them.

use candle_core::{Result, bail};

/// Each file, by the name that others include it by.
const FILES: &[(&str, &str)] = &[
    ("ops/adamw/cuda/adamw.cu", include_str!("../adamw/cuda/adamw.cu")),
    ("ops/batch_norm/cuda/batch_norm.cu", include_str!("../batch_norm/cuda/batch_norm.cu")),
    ("ops/batch_norm/cuda/planes.cuh", include_str!("../batch_norm/cuda/planes.cuh")),
    ("ops/conv/cuda/columns.cu", include_str!("../conv/cuda/columns.cu")),
    ("ops/cuda/prelude.cuh", include_str!("prelude.cuh")),
    ("ops/lif/cuda/lif.cu", include_str!("../lif/cuda/lif.cu")),
    ("ops/lif/cuda/neuron.cuh", include_str!("../lif/cuda/neuron.cuh")),
    ("ops/lif/cuda/sequence.cuh", include_str!("../lif/cuda/sequence.cuh")),
    ("ops/nearest/cuda/nearest.cu", include_str!("../nearest/cuda/nearest.cu")),
    ("ops/norm_lif/cuda/norm_lif.cu", include_str!("../norm_lif/cuda/norm_lif.cu")),
    ("ops/time/cuda/psp.cu", include_str!("../time/cuda/psp.cu")),
    ("ops/time/cuda/weighted_sums.cu", include_str!("../time/cuda/weighted_sums.cu")),
];

/// Those that have kernels.
#[cfg(test)]
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".cu"))
}

/// A file with all that it includes, each once, in place of the lines that ask for it.
pub(crate) fn expanded(file: &str) -> Result<String> {
    let (mut text, mut seen) = (String::new(), Vec::new());
    expand(file, &mut seen, &mut text)?;
    Ok(text)
}

fn expand(file: &str, seen: &mut Vec<String>, into: &mut String) -> Result<()> {
    if seen.iter().any(|before| before == file) {
        return Ok(());
    }
    seen.push(file.into());
    let Some((_, text)) = FILES.iter().find(|(name, _)| *name == file) else {
        bail!("the CUDA source {file} is not part of this program")
    };
    let place = |into: &mut String, line: usize| into.push_str(&format!("#line {line} \"{file}\"\n"));
    place(into, 1);
    for (i, line) in text.lines().enumerate() {
        match line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            // The host runner's header is asked for under a condition that never holds here.
            Some(name) if name.starts_with("ops/") => {
                expand(name, seen, into)?;
                place(into, i + 2);
            }
            // Each file is there once.
            _ if line == "#pragma once" => into.push('\n'),
            _ => {
                into.push_str(line);
                into.push('\n');
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Names, under `src`, of the sources in a folder.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "cu" || end == "cuh") {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_source_is_part_of_the_program() {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        // Those under `host` test the host runner.
        found.retain(|name| !name.starts_with("ops/cuda/host/"));
        found.sort();
        assert_eq!(found, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_included_stands_there_once() -> Result<()> {
        for program in programs() {
            let text = expanded(program)?;
            assert!(!text.contains("#include \"ops/") && !text.contains("#pragma once"), "{program}");
            assert_eq!(text.matches("typedef long long Count;").count(), 1, "{program}");
        }
        assert!(expanded("ops/no.cu").unwrap_err().to_string().contains("ops/no.cu"));
        Ok(())
    }
}
