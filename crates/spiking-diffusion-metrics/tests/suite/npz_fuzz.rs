//! Broken archives: an error, never a panic or a wrong value that was not in the file.

use std::path::Path;

use proptest::prelude::*;
use spiking_diffusion_metrics::FeatureStats;

fn read(bytes: &[u8]) -> Option<FeatureStats> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    std::fs::write(&path, bytes).unwrap();
    match FeatureStats::read_npz(&path) {
        Ok(stats) => Some(stats),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.starts_with(&path.display().to_string())
                    || text.contains("mean")
                    || text.contains("samples"),
                "{text}"
            );
            None
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_no_statistics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_none());
    }

    #[test]
    fn an_archive_with_other_bytes(
        compressed: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = golden(if compressed { "numpy_compressed.npz" } else { "numpy.npz" });
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(stats) = read(&bytes) {
            prop_assert!(stats.mean().iter().chain(stats.covariance()).all(|v| v.is_finite()));
        }
    }
}
