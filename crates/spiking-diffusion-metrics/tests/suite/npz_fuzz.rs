//! Broken archives: an error, never a panic or a wrong value that was not in the file.

use std::path::Path;

use proptest::prelude::*;
use spiking_diffusion_metrics::FeatureStats;

use crate::npz::archive;

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

const FILES: &[&str] = &[
    "numpy.npz",
    "numpy_compressed.npz",
    "npz/fortran.npz",
    "npz/big_endian.npz",
    "npz/big_endian_fortran_single.npz",
    "npz/single.npz",
    "npz/half.npz",
    "npz/records.npz",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_no_statistics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_none());
    }

    #[test]
    fn an_archive_with_other_bytes(
        file in prop::sample::select(FILES),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = golden(file);
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
    #[test]
    fn an_array_with_any_header(
        descr in "[<>|=]?[fiucbVO]?[0-9]{0,20}",
        order in prop::sample::select(&["False", "True", ""][..]),
        shape in prop::collection::vec(any::<u64>().prop_map(|n| n >> (n % 64)), 0..4),
        elements in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let shape: String = shape.iter().map(|n| format!("{n},")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.npz");
        archive(&path, &[("mu", &header, &elements), ("sigma", &header, &elements)]);
        prop_assert!(read(&std::fs::read(&path).unwrap()).is_none_or(|stats| stats.dims() == 1));
    }

    /// The checksum in the archive is that of the elements.
    #[test]
    fn elements_that_changed_on_the_way(file in prop::sample::select(&FILES[2..4]), flip in 0usize..72) {
        let mut bytes = golden(file);
        let start = bytes.windows(7).position(|window| window == b"(3, 3),").unwrap();
        let start = start + bytes[start..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        bytes[start + flip] ^= 1;
        prop_assert!(read(&bytes).is_none());
    }
}
