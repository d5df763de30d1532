use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use spiking_diffusion_metrics::FeatureStats;

use crate::{message, normal};

fn stats() -> FeatureStats {
    FeatureStats::from_features(&normal(&[12, 5], 0)).unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Writes the fields, reads them as statistics, and checks that the error names file and field.
#[track_caller]
fn assert_rejected(fields: &[(&str, Tensor)], field: &str, want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    Tensor::write_npz(fields, &path).unwrap();
    let text = message(FeatureStats::read_npz(&path));
    assert!(text.starts_with(&format!("{}: `{field}`: ", path.display())), "{text}");
    assert!(text.contains(want), "{text}");
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap()
}

#[test]
fn round_trip_is_exact_and_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let known = FeatureStats::new(vec![1.0], vec![f64::MIN_POSITIVE], None).unwrap();
    for stats in [stats(), known] {
        stats.write_npz(&path).unwrap();
        assert_eq!(FeatureStats::read_npz(&path).unwrap(), stats);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

// `np.savez` and `np.savez_compressed` (numpy 2.4.6) of the values below.
#[test]
fn reads_files_of_numpy() {
    for file in ["numpy.npz", "numpy_compressed.npz"] {
        let stats = FeatureStats::read_npz(golden(file)).unwrap();
        assert_eq!((stats.mean(), stats.count()), (&[1.5, -2.0][..], None));
        assert_eq!(stats.covariance(), [2.0, 0.25, 0.25, 1.0]);
    }
}

#[test]
fn single_precision_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let f32s = |x: Tensor| x.to_dtype(DType::F32).unwrap();
    Tensor::write_npz(&[("mu", f32s(zeros(&[2]))), ("sigma", f32s(zeros(&[2, 2])))], &path).unwrap();
    assert_eq!(FeatureStats::read_npz(&path).unwrap().dims(), 2);
}

#[test]
fn rejects_a_missing_file() {
    let text = message(FeatureStats::read_npz("/nowhere/stats.npz"));
    assert!(text.starts_with("/nowhere/stats.npz: "), "{text}");
}

#[test]
fn rejects_a_missing_folder_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = message(stats().write_npz(folder.path().join("none/stats.npz")));
    assert!(text.contains("none/stats.npz"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(message(stats().write_npz("..")).contains("no file name"));
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("taken");
    std::fs::create_dir_all(target.join("full")).unwrap(); // a folder cannot be replaced by a file
    assert!(stats().write_npz(&target).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn rejects_a_broken_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    stats().write_npz(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for broken in [&b"not a zip"[..], &bytes[..bytes.len() / 2], &[]] {
        std::fs::write(&path, broken).unwrap();
        let text = message(FeatureStats::read_npz(&path));
        assert!(text.starts_with(&format!("{}: `archive`: ", path.display())), "{text}");
    }
}

#[test]
fn rejects_a_missing_field() {
    assert_rejected(&[("mu", zeros(&[2]))], "sigma", "missing; the file holds [\"mu\"]");
    assert_rejected(&[("sigma", zeros(&[2, 2]))], "mu", "missing");
}

#[test]
fn rejects_fields_of_other_shapes() {
    assert_rejected(
        &[("mu", zeros(&[2, 2])), ("sigma", zeros(&[2, 2]))],
        "mu",
        "expected shape [D], got [2, 2]",
    );
    let rectangle = [("mu", zeros(&[2])), ("sigma", zeros(&[2, 3]))];
    assert_rejected(&rectangle, "sigma", "expected shape [D, D], got [2, 3]");
    assert_rejected(&[("mu", zeros(&[2])), ("sigma", zeros(&[3, 3]))], "sigma", "expected [2, 2]");
    assert_rejected(&[("mu", zeros(&[0])), ("sigma", zeros(&[0, 0]))], "mu", "need at least 1");
}

#[test]
fn rejects_fields_of_other_types_and_values() {
    let integers = zeros(&[2]).to_dtype(DType::I64).unwrap();
    assert_rejected(&[("mu", integers), ("sigma", zeros(&[2, 2]))], "mu", "expected f32 or f64, got I64");
    let nan = Tensor::full(f64::NAN, (1, 1), &Device::Cpu).unwrap();
    assert_rejected(&[("mu", zeros(&[1])), ("sigma", nan)], "sigma", "row 0, column 0 is NaN");
    let one = Tensor::new(1i64, &Device::Cpu).unwrap();
    let fields = [("mu", zeros(&[1])), ("sigma", zeros(&[1, 1])), ("count", one)];
    assert_rejected(&fields, "count", "expected one integer of at least 2, got [1]");
}
