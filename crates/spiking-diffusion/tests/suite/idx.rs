//! The IDX reader: round trips, and damage of every kind.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use spiking_diffusion::data::idx::{Idx, find, read};

use crate::rejects;

/// The file of an array.
pub(crate) fn encode(dims: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|&n| file.extend((n as u32).to_be_bytes()));
    file.extend(bytes);
    file
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn array() -> impl Strategy<Value = Idx> {
    proptest::collection::vec(0usize..6, 1..4).prop_flat_map(|dims| {
        let n = dims.iter().product::<usize>();
        proptest::collection::vec(any::<u8>(), n).prop_map(move |bytes| Idx { dims: dims.clone(), bytes })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(array in array()) {
        let folder = tempfile::tempdir().unwrap();
        let file = encode(&array.dims, &array.bytes);
        let plain = write(folder.path(), "a", &file);
        let zipped = write(folder.path(), "a.gz", &gzip(&file));
        prop_assert_eq!(&read(&plain, array.dims.len()).unwrap(), &array);
        prop_assert_eq!(&read(&zipped, array.dims.len()).unwrap(), &array);
    }

    #[test]
    fn any_truncation_and_any_extra_byte_is_an_error(array in array(), cut in 0f64..1.) {
        let folder = tempfile::tempdir().unwrap();
        let file = encode(&array.dims, &array.bytes);
        let axes = array.dims.len();
        let cut_at = |bytes: &[u8]| bytes[..(cut * bytes.len() as f64) as usize].to_vec();
        for (name, bytes) in [
            ("cut", cut_at(&file)),
            ("cut.gz", cut_at(&gzip(&file))),
            ("long", [file.clone(), vec![7]].concat()),
            ("long.gz", gzip(&[file.clone(), vec![7]].concat())),
        ] {
            let path = write(folder.path(), name, &bytes);
            let message = read(&path, axes).unwrap_err().to_string();
            prop_assert!(message.contains(name), "{}", message);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), axes in 0usize..4) {
        let folder = tempfile::tempdir().unwrap();
        let with_magic = [vec![0, 0, 8, axes as u8], bytes.clone()].concat();
        for (name, bytes) in [("a", &bytes), ("a.gz", &bytes), ("b", &with_magic)] {
            // Whatever it is, it is an answer.
            if let Ok(array) = read(&write(folder.path(), name, bytes), axes) {
                prop_assert_eq!(array.dims.iter().product::<usize>(), array.bytes.len());
            }
        }
    }
}

#[test]
fn errors_name_the_file_and_the_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = encode(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    let changed = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        file
    };
    let case = |name: &str, bytes: &[u8], parts: &[&str]| {
        rejects(read(&write(folder.path(), name, bytes), 2), &[&[name], parts].concat());
    };
    case("png", b"\x89PNG\r\n", &["no IDX file", "89"]);
    case("floats", &changed(2, 0x0d), &["0x0d", "0x08"]);
    case("labels", &encode(&[3], &[1, 2, 3]), &["1 axes", "expected 2"]);
    case("huge", &encode(&[0xffff_ffff, 0xffff_ffff], &[1, 2]), &["cut short", "holds 2"]);
    case("empty", &[], &["magic"]);
    case("archive", b"PK\x03\x04", &["a zip archive, which wants unpacking"]);
    case("page.gz", b"<!DOCTYPE html>", &["no IDX file but a web page"]);
    case("twice.gz", &gzip(&gzip(&file)), &["gzip within gzip"]);
    let mut zipped = gzip(&encode(&[100, 100], &[9; 10000]));
    let at = zipped.len() - 6; // in the checksum
    zipped[at] ^= 0xff;
    case("checksum.gz", &zipped, &["damaged"]);
    rejects(read(&folder.path().join("absent"), 2), &["absent"]);
}

#[test]
fn the_content_decides_what_is_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let array = Idx { dims: vec![2, 3], bytes: vec![1, 2, 3, 4, 5, 6] };
    let file = encode(&array.dims, &array.bytes);
    for (name, bytes) in [("plain.gz", &file), ("zipped", &gzip(&file)), ("zipped.GZ", &gzip(&file))] {
        assert_eq!(read(&write(folder.path(), name, bytes), 2).unwrap(), array, "{name}");
    }
}

/// As `gzip -d` and Python read it: members one after the other, and zeros behind any of them.
#[test]
fn gzip_may_have_members_and_padding() {
    let folder = tempfile::tempdir().unwrap();
    let array = Idx { dims: vec![100, 100], bytes: (0..10_000u32).map(|i| ((i * i) >> 7) as u8).collect() };
    let file = encode(&array.dims, &array.bytes);
    let parts = [gzip(&file[..9]), gzip(&[]), gzip(&file[9..500]), gzip(&file[500..])];
    let zeros = |n: usize| vec![0; n];
    for bytes in [
        [gzip(&file), zeros(512)].concat(),
        [gzip(&file), zeros(1)].concat(),
        [gzip(&file), zeros(100_000)].concat(),
        parts.concat(),
        [parts.join(&zeros(512)[..]), zeros(3)].concat(),
    ] {
        assert_eq!(read(&write(folder.path(), "a.gz", &bytes), 2).unwrap(), array);
    }
    let junk = "behind its gzip data are bytes that are neither zeros nor more gzip data";
    let more = gzip(&file);
    for (trailing, want) in [
        (&b"junk"[..], junk),
        (b"\x00\x00\x00junk", junk),
        (b"\x1f", junk),
        (b"\x1f\x8b\x07", junk),
        (&[0, 0, 0, 7], junk),
        (&more[..more.len() - 1], "holds more than the 10000 bytes"),
        (&gzip(&[])[..12], "is damaged"),
    ] {
        let path = write(folder.path(), "trailing.gz", &[gzip(&file), trailing.to_vec()].concat());
        rejects(read(&path, 2), &["trailing.gz", want]);
    }
}

#[test]
fn the_name_that_7_zip_gives_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let name = "train-images-idx3-ubyte";
    std::fs::create_dir(folder.path().join(name)).unwrap();
    let zipped = write(folder.path(), "train-images.idx3-ubyte.gz", &[]);
    assert_eq!(find(folder.path(), name).unwrap(), zipped);
    let plain = write(folder.path(), "train-images.idx3-ubyte", &[]);
    assert_eq!(find(folder.path(), name).unwrap(), plain);
    let official = write(folder.path(), "train-images-idx3-ubyte.gz", &[]);
    assert_eq!(find(folder.path(), name).unwrap(), official);
}

#[test]
fn shapes_that_overflow_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let most = u32::MAX as usize;
    for dims in [vec![most; 3], vec![most; 255], vec![1 << 31, 1 << 31, 4, 0], vec![most, most, most, 1]] {
        let file = write(folder.path(), "huge", &encode(&dims, &[1, 2]));
        rejects(read(&file, dims.len()), &["huge", "impossible shape ["]);
    }
    let file = write(folder.path(), "huge", &encode(&[most, 28, 28], &[1, 2]));
    rejects(read(&file, 3), &["huge", "cut short", "needs 3367254359280 bytes, it holds 2"]);
    rejects(read(&file, usize::MAX), &["has 3 axes, expected 18446744073709551615"]);
}

#[test]
fn a_plain_file_goes_before_a_compressed_one() {
    let folder = tempfile::tempdir().unwrap();
    rejects(find(folder.path(), "x"), &["`x`", "`x.gz`"]);
    let zipped = write(folder.path(), "x.gz", &[]);
    assert_eq!(find(folder.path(), "x").unwrap(), zipped);
    let plain = write(folder.path(), "x", &[]);
    assert_eq!(find(folder.path(), "x").unwrap(), plain);
}
