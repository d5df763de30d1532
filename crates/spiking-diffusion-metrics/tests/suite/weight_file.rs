//! Files of weights as PyTorch writes them (`scripts/golden/pth.py`), damaged ones, and ones made to do harm.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use spiking_diffusion_metrics::WeightFile;
use zip::write::SimpleFileOptions;

use crate::message;

const FORMS: [&str; 2] = ["state.pth", "state_before_1_6.pth"];

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pth").join(name)
}

/// All values of a file that can be read; nothing here may panic.
fn read_all(path: &Path) -> usize {
    let Ok(file) = WeightFile::open(path) else { return 0 };
    let value = |name: &String| file.values(name, &file.dims(name).ok()?).ok();
    file.names().iter().filter_map(value).count()
}

#[test]
fn every_tensor_of_pytorch_is_read() {
    let wanted: [(&str, &[usize], &[f32]); 17] = [
        ("bfloat", &[4], &[0., 0.25, 0.5, 0.75]),
        ("bytes", &[4], &[0., 1., 2., 3.]),
        ("columns", &[3], &[1., 5., 9.]),
        ("double", &[4], &[0., 1. / 3., 2. / 3., 1.]),
        ("empty", &[0, 3], &[]),
        ("grid", &[3, 4], &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]),
        ("half", &[4], &[0., 0.25, 0.5, 0.75]),
        ("longs", &[4], &[0., 1e9, 2e9, 3e9]),
        ("norm.bias", &[3], &[0.; 3]),
        ("norm.num_batches_tracked", &[], &[7.]),
        ("norm.running_mean", &[3], &[0.; 3]),
        ("norm.running_var", &[3], &[1.; 3]),
        ("norm.weight", &[3], &[1.; 3]),
        ("parameter", &[4], &[0., 1., 2., 3.]),
        ("permuted", &[4, 2, 3], &{
            let at = |i: usize| ((i % 6) * 4 + i / 6) as f32;
            std::array::from_fn::<f32, 24, _>(at)
        }),
        ("rows", &[2, 4], &[4., 5., 6., 7., 8., 9., 10., 11.]),
        ("scalar", &[], &[0.5]),
    ];
    for form in FORMS {
        let file = WeightFile::open(golden(form)).unwrap();
        let names = file.names();
        assert!(
            names.iter().map(String::as_str).filter(|name| *name != "transposed").eq(wanted.map(|it| it.0))
        );
        for (name, dims, values) in wanted {
            assert_eq!(file.dims(name).unwrap(), dims, "{form}: {name}");
            assert_eq!(file.values(name, dims).unwrap(), values, "{form}: {name}");
        }
        let transposed = file.values("transposed", &[4, 3]).unwrap();
        assert_eq!(transposed, [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
        assert!(message(file.values("grid", &[4, 3])).ends_with("`grid`: expected shape [4, 3], got [3, 4]"));
        assert!(message(file.values("none", &[4])).ends_with("`none`: missing"));
    }
}

#[test]
fn what_a_pickle_would_call_is_named_and_not_called() {
    let file = WeightFile::open(golden("strange.pth")).unwrap();
    assert_eq!(file.names(), ["`5`", "called", "expanded", "good", "nested", "shorts", "step"]);
    assert_eq!(file.values("good", &[4]).unwrap(), [0., 1., 2., 3.]);
    for (name, reason) in [
        ("`5`", "is not named by a string"),
        ("called", ".system` makes (not called)"),
        ("expanded", "has a shape or strides that are not read here: [9], [0]"),
        ("nested", "is no tensor but a dict"),
        ("shorts", "is of the type ShortStorage, which is not read here"),
        ("step", "is no tensor but `3`"),
    ] {
        let text = message(file.values(name, &[9]).and_then(|_| file.values(name, &[4])));
        assert!(text.contains(&format!("strange.pth: `{name}`: ")) && text.contains(reason), "{text}");
    }
    let text = message(WeightFile::open(golden("call.pth")));
    assert!(text.contains("call.pth: `archive`: holds no state dict but what `"), "{text}");
    assert!(text.ends_with(".system` makes (not called)"), "{text}");
    assert!(!Path::new("pickle-was-called").exists());
}

/// An archive with this pickle.
fn archive(pickle: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut zip = zip::ZipWriter::new(file.as_file_mut());
    zip.start_file("archive/data.pkl", SimpleFileOptions::default()).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap();
    file
}

#[test]
fn a_pickle_made_to_exhaust_the_machine_is_refused() {
    const TUPLE1: u8 = 0x85;
    const TUPLE2: u8 = 0x86;
    let deep = [&[b')'][..], &[TUPLE1; 2_000_000], b"."].concat();
    // Each round holds the round before it twice: 2^60 objects.
    let doubled = [&b")"[..], &[b'q', 0, b'h', 0, TUPLE2].repeat(60), b"."].concat();
    let lists = [&b"]q\x00"[..], &b"h\x00ah\x00a".repeat(3_000_000), b"."].concat();
    let string = [&b"X\xff\xff\xff\xff"[..], b"short"].concat();
    let number = [&[0x8a, 200][..], &[1; 200], b"."].concat();
    for (pickle, reason) in [
        (deep, "too deep"),
        (doubled, "objects"),
        (lists, "objects"),
        (string, "cut off within a string"),
        (number, "a number of 200 bytes"),
        (b"}.".to_vec(), ""),
    ] {
        match WeightFile::open(archive(&pickle).path()) {
            Ok(file) => assert_eq!((file.names().len(), reason), (0, "")),
            Err(e) => assert!(e.to_string().contains(reason) && !reason.is_empty(), "{e}"),
        }
    }
}

#[test]
fn a_file_of_another_byte_order_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut zip = zip::ZipWriter::new(file.as_file_mut());
    for (name, bytes) in [("a/data.pkl", &b"}."[..]), ("a/byteorder", b"big")] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    assert!(message(WeightFile::open(file.path())).contains("byte order"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_file_never_panics(form in 0usize..2, damage in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4), cut: u32) {
        let mut bytes = fs::read(golden(FORMS[form])).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for (at, byte) in damage {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        fs::write(file.path(), &bytes).unwrap();
        read_all(file.path());
        bytes.truncate(cut as usize % bytes.len());
        fs::write(file.path(), &bytes).unwrap();
        read_all(file.path());
    }

    /// Of the pickle itself, which in the archive has a checksum.
    #[test]
    fn a_damaged_pickle_never_panics(at: u32, byte: u8, cut: u32) {
        let mut state = zip::ZipArchive::new(fs::File::open(golden("state.pth")).unwrap()).unwrap();
        let mut pickle = Vec::new();
        std::io::copy(&mut state.by_name("state/data.pkl").unwrap(), &mut pickle).unwrap();
        let (at, cut) = (at as usize % pickle.len(), cut as usize % pickle.len());
        prop_assert!(WeightFile::open(archive(&pickle[..cut]).path()).is_err());
        // Once in a long while the damage is an end, and what is before it a pickle.
        pickle[at] = byte;
        read_all(archive(&pickle).path());
        read_all(archive(&pickle[..cut]).path());
    }
}
