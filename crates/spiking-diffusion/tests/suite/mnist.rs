//! The four files of MNIST: the real ones where they are, and every way in which they can be wrong.

use std::path::{Path, PathBuf};

use spiking_diffusion::data::{Dataset, KnownSet, Partial, mnist, synthetic_digits};
use spiking_diffusion::snn_core::Seed;

use crate::idx::{encode, gzip};
use crate::rejects;

fn partial(folder: &Path) -> spiking_diffusion::Result<Dataset> {
    KnownSet::Mnist.load(Some(folder), Partial::Allow(Seed(0)))
}

/// A correct little MNIST: 3 + 2 images, the training files compressed.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (prefix, n) in [("train", 3), ("t10k", 2)] {
        put(folder.path(), prefix, "images-idx3", &encode(&[n, 28, 28], &vec![n as u8; n * 784]));
        put(folder.path(), prefix, "labels-idx1", &encode(&[n], &vec![9; n]));
    }
    folder
}

fn put(folder: &Path, prefix: &str, kind: &str, bytes: &[u8]) -> PathBuf {
    let (extension, bytes) = if prefix == "train" { (".gz", gzip(bytes)) } else { ("", bytes.to_vec()) };
    let path = folder.join(format!("{prefix}-{kind}-ubyte{extension}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_folder_or_the_folder_above_it() {
    let above = tempfile::tempdir().unwrap();
    let inner = folder();
    std::fs::rename(inner.path(), above.path().join("mnist")).unwrap();
    for path in [above.path().to_owned(), above.path().join("mnist")] {
        let data = partial(&path).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.image()), (3, 2, (1, 28, 28)));
        assert_eq!((data.name.as_str(), data.synthetic), ("mnist", false));
        assert_eq!(data.test.bytes(1).unwrap(), [2; 784]);
    }
}

#[test]
fn a_named_folder_never_falls_back() {
    let empty = tempfile::tempdir().unwrap();
    rejects(mnist(Some(empty.path())), &["train-images-idx3-ubyte", empty.path().to_str().unwrap()]);
    rejects(mnist(Some(Path::new("/no/such/folder"))), &["/no/such/folder"]);
    assert!(mnist(None).unwrap().synthetic);
}

#[test]
fn fewer_images_than_the_official_ones_are_refused_unless_allowed() {
    let folder = folder();
    rejects(mnist(Some(folder.path())), &["train-images-idx3-ubyte", "3 images", "60000", "--allow-partial"]);
    let data = partial(folder.path()).unwrap();
    let note = data.partial.unwrap();
    assert!(note.contains("3 of 60000") && note.contains("2 of 10000"), "{note}");
}

#[test]
fn every_fault_names_its_file() {
    let faults: [(&str, &str, Vec<u8>, &[&str]); 7] = [
        ("train", "images-idx3", encode(&[3, 28, 27], &[0; 3 * 28 * 27]), &["train-images", "[28, 27]"]),
        ("t10k", "images-idx3", encode(&[0, 28, 28], &[]), &["t10k-images", "no images"]),
        ("t10k", "labels-idx1", encode(&[3], &[0; 3]), &["t10k-labels", "3 labels for 2 images"]),
        ("train", "labels-idx1", encode(&[3], &[0, 10, 1]), &["train-labels", "label 1 is 10"]),
        ("train", "images-idx3", encode(&[3, 28, 28], &[0; 3 * 784 - 1]), &["train-images", "cut short"]),
        ("t10k", "images-idx3", encode(&[2], &[0; 2]), &["t10k-images", "1 axes"]),
        ("t10k", "labels-idx1", b"not an idx file".to_vec(), &["t10k-labels", "no IDX file"]),
    ];
    for (prefix, kind, bytes, parts) in faults {
        let folder = folder();
        put(folder.path(), prefix, kind, &bytes);
        rejects(partial(folder.path()), parts);
    }
    let folder = folder();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    rejects(partial(folder.path()), &["train-images-idx3-ubyte.gz"]);
}

#[test]
fn the_real_files() {
    let root = std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from);
    let Some(root) = root.filter(|root| root.join("mnist").is_dir()) else {
        eprintln!("skipped: SPIKING_DATA_DIR does not name a folder with MNIST");
        return;
    };
    let data = mnist(Some(&root)).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000));
    let n = (60_000 * 784) as f64;
    let mean =
        (0..60_000).flat_map(|i| data.train.bytes(i).unwrap()).map(|&b| f64::from(b)).sum::<f64>() / n / 255.;
    let std = data.train.pixel_variance().unwrap().sqrt();
    assert!((mean - 0.13066).abs() < 1e-5 && (std - 0.30811).abs() < 1e-5, "{mean} {std}");
    // The first training image is a five; its top stroke runs to the right at row 5.
    assert_eq!(data.train.labels()[..5], [5, 0, 4, 1, 9]);
    let five = data.train.bytes(0).unwrap();
    assert_eq!(five[5 * 28 + 12..5 * 28 + 17], [3, 18, 18, 18, 126]);
}

#[test]
fn the_built_in_digits_are_always_the_same() {
    let (a, b) = (synthetic_digits().unwrap(), synthetic_digits().unwrap());
    assert_eq!((a.train.len(), a.test.len(), a.image()), (6000, 1000, (1, 28, 28)));
    assert!(a.train == b.train && a.test == b.test);
    assert_eq!((a.name.as_str(), a.synthetic), ("synthetic-digits", true));
}
