//! The five data sets: their real files where they are, small made-up ones for every error.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use spiking_diffusion::data::{Dataset, KnownSet, Partial, Split};
use spiking_diffusion::snn_core::Seed;

use crate::idx::{encode, gzip};
use crate::rejects;

const ALLOW: Partial = Partial::Allow(Seed(0));

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn letters_folder(labels: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let n = labels.len();
    let pixels: Vec<u8> = (0..n * 784).map(|i| (i % 784 / 28) as u8).collect();
    write(folder.path(), "emnist-letters-test-images-idx3-ubyte", &encode(&[n, 28, 28], &pixels));
    write(folder.path(), "emnist-letters-test-labels-idx1-ubyte", &encode(&[n], labels));
    folder
}

#[test]
fn a_missing_set_says_what_to_put_where() {
    let folder = tempfile::tempdir().unwrap();
    for set in [KnownSet::FashionMnist, KnownSet::Kmnist, KnownSet::Letters, KnownSet::Cifar10] {
        let files = set.files();
        let parts: Vec<&str> =
            files.iter().map(String::as_str).chain([set.name(), set.source(), "--download"]).collect();
        rejects(set.load(None, ALLOW), &parts);
        rejects(set.load(Some(folder.path()), ALLOW), &parts);
    }
}

/// The files of a set, of one image (and label 1) each.
fn little(set: KnownSet) -> Vec<(String, Vec<u8>)> {
    let content = |name: &str| match name {
        name if name.ends_with(".bin") => [vec![1], vec![7; 3072]].concat(),
        name if name.contains("images") => encode(&[1, 28, 28], &[9; 784]),
        _ => encode(&[1], &[1]),
    };
    set.files().into_iter().map(|name| (name.clone(), content(&name))).collect()
}

#[test]
fn the_folders_of_torchvision_and_of_archives_are_found() {
    for (set, folders) in [
        (KnownSet::Mnist, &["", "mnist", "MNIST/raw", "MNIST", "mnist/MNIST/raw", "mnist/raw"][..]),
        (
            KnownSet::FashionMnist,
            &["", "fashion-mnist", "FashionMNIST/raw", "fashion-mnist/FashionMNIST/raw"],
        ),
        (KnownSet::Kmnist, &["", "kmnist", "KMNIST/raw", "KMNIST"]),
        (
            KnownSet::Letters,
            &["", "emnist-letters", "EMNIST/raw", "gzip", "emnist-letters/gzip", "EMNIST/raw"],
        ),
        (KnownSet::Cifar10, &["", "cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"]),
    ] {
        for folder in folders {
            let root = tempfile::tempdir().unwrap();
            let inner = root.path().join(folder);
            std::fs::create_dir_all(&inner).unwrap();
            little(set).iter().for_each(|(name, bytes)| write(&inner, name, bytes));
            let data = set.load(Some(root.path()), ALLOW).unwrap();
            assert_eq!(data.test.len(), 1, "{} in {folder}", set.name());
            assert_eq!(set.load(Some(&inner), ALLOW).unwrap().train, data.train);
            if let Some(parent) = inner.parent().filter(|_| folder.contains('/')) {
                assert_eq!(set.load(Some(parent), ALLOW).unwrap().train, data.train, "{folder}");
            }
        }
    }
    // `raw` of another set holds files of the same names.
    let root = tempfile::tempdir().unwrap();
    let other = root.path().join("FashionMNIST/raw");
    std::fs::create_dir_all(&other).unwrap();
    little(KnownSet::FashionMnist).iter().for_each(|(name, bytes)| write(&other, name, bytes));
    rejects(KnownSet::Mnist.load(Some(root.path()), ALLOW), &["holds none of the set's files"]);
    for folder in [root.path().join("FashionMNIST"), other] {
        let parts = ["holds none of the set's files", "by its name it is that of fashion-mnist"];
        rejects(KnownSet::Mnist.load(Some(&folder), ALLOW), &parts);
    }
    // And so may the folder itself.
    for (name, mut bytes) in little(KnownSet::Mnist) {
        bytes.iter_mut().skip(16).for_each(|pixel| *pixel = 3);
        write(root.path(), &name, &bytes);
    }
    let of_folder = |folder: &Path| KnownSet::FashionMnist.load(Some(folder), ALLOW).unwrap().train;
    assert_eq!(of_folder(root.path()), of_folder(&root.path().join("FashionMNIST")));
    assert_ne!(KnownSet::Mnist.load(Some(root.path()), ALLOW).unwrap().train, of_folder(root.path()));
}

#[test]
fn names_of_7_zip_and_browsers_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in little(KnownSet::Mnist) {
        let bytes = if name.contains("labels") { gzip(&bytes) } else { bytes };
        write(folder.path(), &name.replace("-idx", ".idx"), &bytes);
    }
    assert_eq!(KnownSet::Mnist.load(Some(folder.path()), ALLOW).unwrap().train.len(), 1);
}

#[test]
fn what_comes_near_is_named() {
    let here = |set: KnownSet, names: &[&str], parts: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with('/') {
                std::fs::create_dir_all(path).unwrap();
            } else {
                std::fs::write(path, encode(&[1], &[1])).unwrap();
            }
        }
        rejects(set.load(Some(folder.path()), ALLOW), &[parts, &[", but `"]].concat());
    };
    let archive = "an archive, which wants unpacking";
    let python = "not of the binary version";
    here(
        KnownSet::Mnist,
        &["train-images-idx3-ubyte (1).gz"],
        &["`train-images-idx3-ubyte (1).gz` (another name)"],
    );
    here(KnownSet::Mnist, &["mnist.npz", "notes.txt"], &["`mnist.npz` (another name)"]);
    here(
        KnownSet::Mnist,
        &["MNIST/raw/Train_Images.IDX3"],
        &["but `MNIST/raw/Train_Images.IDX3` (another name), `MNIST` (a folder): put "],
    );
    here(KnownSet::Kmnist, &["archive.zip"], &["`archive.zip`", archive]);
    here(
        KnownSet::Letters,
        &["gzip.zip", "gzip/emnist-balanced-train-images-idx3-ubyte.gz"],
        &["`gzip.zip`", archive, "gzip/emnist-balanced"],
    );
    here(KnownSet::Cifar10, &["cifar-10-binary.tar.gz"], &["`cifar-10-binary.tar.gz`", archive]);
    here(KnownSet::Cifar10, &["cifar-10-python.tar.gz"], &["`cifar-10-python.tar.gz`", python]);
    here(KnownSet::Cifar10, &["cifar-10-batches-py/data_batch_1"], &["`cifar-10-batches-py`", python]);
    here(KnownSet::Cifar10, &["data_batch_1", "test_batch"], &["`data_batch_1`", "`test_batch`", python]);
    let images = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
    let few = [&images[..], &["train-images-idx3-ubyte"]].concat();
    here(
        KnownSet::Mnist,
        &[&few[..], &["train-labels.idx1-ubyte.part"]].concat(),
        &["holds neither `train-labels-idx1-ubyte` nor", "`train-labels.idx1-ubyte.part` (another name)"],
    );
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "data_batch_1.bin", &[vec![1], vec![7; 3072]].concat().repeat(10_000));
    write(folder.path(), "data_batch_2 (1).bin", &[]);
    let parts = ["lacks `data_batch_2.bin`", "`data_batch_2 (1).bin` (another name)"];
    rejects(KnownSet::Cifar10.load(Some(folder.path()), Partial::Reject), &parts);
}

#[test]
fn a_folder_is_said_to_be_missing_empty_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train-images-idx3-ubyte");
    for set in KnownSet::ALL {
        let known = [set.source(), "--data-dir", "--download", set.name()];
        let load = |path: &Path| set.load(Some(path), Partial::Reject);
        rejects(load(folder.path()), &[&known[..], &["is empty: put "]].concat());
        rejects(
            load(&folder.path().join("no/where")),
            &[&known[..], &["no/where: there is no such folder: put "]].concat(),
        );
        std::fs::write(&file, "").unwrap();
        rejects(load(&file), &[&known[..], &["is a file, not a folder: put "]].concat());
        std::fs::remove_file(&file).unwrap();
        assert!(!set.source().contains("lecun"));
        if set != KnownSet::Mnist {
            rejects(
                set.load(None, ALLOW),
                &[&known[..], &["`--data-dir` = none: ", "is not built in: put "]].concat(),
            );
        }
    }
    rejects(
        KnownSet::Mnist.load(Some(folder.path()), ALLOW),
        &["mnist/train-images-idx3-ubyte.gz and so on"],
    );
}

#[test]
fn letters_stand_upright_and_a_lone_split_is_cut() {
    let folder = letters_folder(&[1, 26, 3, 4, 5, 6, 7, 8, 9, 10]);
    rejects(KnownSet::Letters.load(Some(folder.path()), Partial::Reject), &["test-images", "10", "20800"]);
    let data = KnownSet::Letters.load(Some(folder.path()), ALLOW).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (9, 1));
    let partial = data.partial.unwrap();
    assert!(partial.contains("10 of 20800") && partial.contains("90/10"), "{partial}");
    let row: Vec<u8> = (0..28).collect();
    assert_eq!(data.train.bytes(0).unwrap()[..28], row);
    let mut labels = [data.train.labels(), data.test.labels()].concat();
    labels.sort_unstable();
    assert_eq!(labels, [0, 2, 3, 4, 5, 6, 7, 8, 9, 25]);
    let wrong = letters_folder(&[1, 0]);
    rejects(KnownSet::Letters.load(Some(wrong.path()), ALLOW), &["test-labels", "label 1 is 0"]);
}

#[test]
fn a_full_label_file_serves_fewer_images() {
    let folder = letters_folder(&[1; 10]);
    let labels = encode(&[20_800], &[2; 20_800]);
    write(folder.path(), "emnist-letters-test-labels-idx1-ubyte", &labels);
    let data = KnownSet::Letters.load(Some(folder.path()), ALLOW).unwrap();
    assert!(data.partial.unwrap().contains("first 10 of 20800"));
}

#[test]
fn cifar_names_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let load = |partial| KnownSet::Cifar10.load(Some(folder.path()), partial);
    let record = |label: u8| [vec![label], vec![7; 3072]].concat();
    write(folder.path(), "test_batch.bin", &record(3).repeat(2));
    write(folder.path(), "data_batch_1.bin", &record(9).repeat(3));
    rejects(load(Partial::Reject), &["data_batch_1.bin", "3 images", "10000"]);
    let data = load(ALLOW).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.image()), (3, 2, (3, 32, 32)));
    assert!(data.partial.unwrap().contains("data_batch_2.bin has 0 of 10000"));
    write(folder.path(), "test_batch.bin", &record(3)[1..]);
    rejects(load(ALLOW), &["test_batch.bin", "3072 bytes"]);
    write(folder.path(), "test_batch.bin", &record(10));
    rejects(load(ALLOW), &["test_batch.bin", "label 0 is 10"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..Default::default() })]

    #[test]
    fn no_bytes_make_the_cifar_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), records in 0usize..3) {
        let folder = tempfile::tempdir().unwrap();
        let whole: Vec<u8> = bytes.iter().copied().cycle().take(records * 3073).collect();
        for bytes in [bytes, whole] {
            write(folder.path(), "test_batch.bin", &bytes);
            let _ = KnownSet::Cifar10.load(Some(folder.path()), ALLOW);
        }
    }
}

/// The real set; a message where none of its image files is there.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn real(set: KnownSet, partial: Partial) -> Option<Dataset> {
    let root = std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from);
    let has = |root: &PathBuf| {
        let there = |file: &String| {
            [file.clone(), format!("{file}.gz")].iter().any(|f| root.join(set.name()).join(f).is_file())
        };
        set.files().iter().filter(|file| !file.contains("labels")).any(there)
    };
    let Some(root) = root.filter(has) else {
        eprintln!("skipped: SPIKING_DATA_DIR does not name a folder with {}", set.name());
        return None;
    };
    Some(set.load(Some(&root), partial).unwrap())
}

/// Mean and standard deviation of all splits' pixels in [0, 1], as NumPy finds them.
#[track_caller]
fn assert_moments(splits: &[&Split], mean: f64, std: f64) {
    let bytes = || splits.iter().flat_map(|s| (0..s.len()).flat_map(move |i| s.bytes(i).unwrap()));
    let n = bytes().count() as f64;
    let found = bytes().map(|&b| f64::from(b)).sum::<f64>() / n / 255.;
    let variance = bytes().map(|&b| (f64::from(b) / 255. - found).powi(2)).sum::<f64>() / n;
    assert!(
        (found - mean).abs() < 2e-6 && (variance.sqrt() - std).abs() < 2e-6,
        "{found} {}",
        variance.sqrt()
    );
}

#[test]
fn real_fashion_mnist() {
    let Some(data) = real(KnownSet::FashionMnist, Partial::Reject) else { return };
    assert_moments(&[&data.train], 0.286041, 0.353024);
    assert_moments(&[&data.test], 0.286849, 0.352444);
    assert_eq!(data.train.labels()[..5], [9, 0, 0, 3, 0]);
    assert_eq!(data.train.bytes(0).unwrap()[14 * 28 + 12..14 * 28 + 16], [237, 226, 217, 223]);
}

/// The official first test image among those of a set whose lone test split was cut.
fn has_row(data: &Dataset, at: usize, row: &[u8]) -> bool {
    let holds = |s: &Split| (0..s.len()).any(|i| s.bytes(i).unwrap()[at..].starts_with(row));
    holds(&data.train) || holds(&data.test)
}

#[test]
fn real_kmnist() {
    let Some(data) = real(KnownSet::Kmnist, ALLOW) else { return };
    if data.train.len() + data.test.len() == 10_000 {
        assert_moments(&[&data.train, &data.test], 0.184557, 0.341612);
    }
    assert!(has_row(&data, 14 * 28 + 8, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 75, 255, 241]));
}

#[test]
fn real_letters() {
    let Some(data) = real(KnownSet::Letters, ALLOW) else { return };
    if data.train.len() + data.test.len() == 10_000 {
        assert_moments(&[&data.train, &data.test], 0.16501, 0.32552);
    }
    assert!(has_row(
        &data,
        14 * 28 + 4,
        &[253, 254, 255, 254, 242, 246, 252, 254, 254, 254, 255, 254, 233, 173, 22]
    ));
}

#[test]
fn real_cifar10() {
    let Some(data) = real(KnownSet::Cifar10, ALLOW) else { return };
    assert_moments(&[&data.test], 0.476585, 0.251219);
    let first = data.test.bytes(0).unwrap();
    let corner: Vec<&[u8]> = (0..3).map(|c| &first[c * 1024..c * 1024 + 4]).collect();
    assert_eq!(corner, [[158, 159, 165, 166], [112, 111, 116, 118], [49, 47, 51, 53]]);
    if data.train.len() == 10_000 {
        assert_moments(&[&data.train], 0.474671, 0.252512);
    }
}
