use std::io::Write;
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

/// `scripts/golden/npz.py` (numpy 2.4.6): a matrix whose rows and columns can be told apart.
#[test]
fn every_byte_order_axis_order_and_precision_is_read() {
    let asymmetric = [2.0, 0.25, -0.5, 0.25 + 2f64.powi(-21), 1.0, 0.125, -0.5, 0.125, 4.0];
    let symmetric = [2.0, 0.25, -0.5, 0.25, 1.0, 0.125, -0.5, 0.125, 4.0];
    for (file, sigma, count) in [
        ("fortran", asymmetric, None),
        ("big_endian", asymmetric, Some(7)),
        ("big_endian_fortran_single", asymmetric, None),
        ("single", asymmetric, Some(7)),
        ("half", symmetric, Some(7)),
    ] {
        let stats = FeatureStats::read_npz(golden(&format!("npz/{file}.npz"))).unwrap();
        assert_eq!((stats.mean(), stats.count()), (&[1.5, -2.0, 0.25][..], count), "{file}");
        assert_eq!(stats.covariance(), sigma, "{file}");
    }
}

#[test]
fn other_types_of_numpy_are_named() {
    for (file, field, want) in [
        ("long_double", "sigma", "expected f32 or f64, got F128"),
        ("complex", "sigma", "expected f32 or f64, got C128"),
        ("objects", "sigma", "holds Python objects"),
        ("text", "mu", "of the type \"<U32\""),
        ("records", "mu", "`descr` is no plain type: \"[('x', '<f8')]"),
    ] {
        let text = message(FeatureStats::read_npz(golden(&format!("npz/{file}.npz"))));
        assert!(text.contains(&format!("{file}.npz: `{field}`: ")) && text.contains(want), "{text}");
    }
}

/// An archive of arrays with these headers and elements.
pub(crate) fn archive(path: &Path, arrays: &[(&str, &str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, header, elements) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
        zip.write_all(&[&start[..], header.as_bytes(), elements].concat()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn headers_that_no_array_has_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let header = |descr: &str, order: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")
    };
    let one = 1f64.to_le_bytes();
    for (mu, want) in [
        (header("'<f8'", "False", "(4611686018427387904, 4)"), "impossible shape [4611686018427387904, 4]"),
        (header("'<f8'", "False", "(1099511627776,)"), "cut short: shape [1099511627776]"),
        (header("'<f8'", "False", "(0,)"), "holds more than the 0 bytes"),
        (header("'<f8'", "Maybe", "(1,)"), "`fortran_order` is \"Maybe"),
        (header("'<f8'", "False", "(-1,)"), "`shape` is"),
        (header("'<f8'", "False", "1"), "`shape` is"),
        (header("'<f0'", "False", "(1,)"), "none of numbers"),
        (header("'<f3'", "False", "(2,)"), "holds more than the 6 bytes"),
        (header("'<f18446744073709551615'", "False", "(2,)"), "impossible shape"),
        (header("''", "False", "(1,)"), "none of numbers"),
        (header("'ü'", "False", "(1,)"), "none of numbers"),
        ("{'shape': (1,), 'fortran_order': False}".into(), "no `descr`"),
        (String::new(), "no `descr`"),
    ] {
        archive(&path, &[("mu", &mu, &one), ("sigma", &header("'<f8'", "False", "(1, 1)"), &one)]);
        let text = message(FeatureStats::read_npz(&path));
        assert!(text.contains("stats.npz: `mu`: ") && text.contains(want), "{mu}: {text}");
    }
    // Double quotes, no spaces, another order of the keys, and the long integers of Python 2.
    let other = r#"{"shape":(1L,),"fortran_order":True,"descr":"=f8"}"#;
    let sigma = header("'>f8'", "True", "(1, 1)");
    archive(&path, &[("mu", other, &one), ("sigma", &sigma, &1f64.to_be_bytes())]);
    let stats = FeatureStats::read_npz(&path).unwrap();
    assert_eq!((stats.mean(), stats.covariance()), (&[1.0][..], &[1.0][..]));
}

#[test]
fn a_count_may_be_of_any_integer_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let count = |descr: &str, elements: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (), }}");
        let [mu, sigma] = ["(1,)", "(1, 1)"]
            .map(|shape| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"));
        let one = 1f64.to_le_bytes();
        archive(&path, &[("mu", &mu, &one), ("sigma", &sigma, &one), ("count", &header, elements)]);
        FeatureStats::read_npz(&path).map(|stats| stats.count())
    };
    for (descr, elements) in [
        ("|u1", &[200][..]),
        ("|i1", &[100]),
        (">i2", &[1, 0]),
        ("<u4", &[0, 0, 0, 128]),
        (">u8", &[255; 8]),
        ("<f4", &8f32.to_le_bytes()),
    ] {
        let want = match descr {
            "|u1" => 200,
            "|i1" => 100,
            ">i2" => 256,
            "<u4" => 1 << 31,
            ">u8" => u64::MAX,
            _ => 8,
        };
        assert_eq!(count(descr, elements).unwrap(), Some(want), "{descr}");
    }
    assert!(message(count("<i8", &[255; 8])).contains("at least 2, got [-1]"));
    assert!(message(count("<f8", &2.5f64.to_le_bytes())).contains("2.5 is no integer"));
    assert!(message(count("|b1", &[1])).contains("got B8"));
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
