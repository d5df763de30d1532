//! On `candle-datasets`' own types; the network is never asked.

use std::path::PathBuf;

use candle_core::Device;

use super::*;
use crate::data::Partial;

fn labels(labels: &[u8]) -> Tensor {
    Tensor::new(labels, &Device::Cpu).unwrap()
}

fn both(images: Tensor, given: &[u8]) -> vision::Dataset {
    vision::Dataset {
        train_images: images.clone(),
        train_labels: labels(given),
        test_images: images,
        test_labels: labels(given),
        labels: 10,
    }
}

/// Bytes as `candle-datasets` hands them out.
fn floats(bytes: &[u8], shape: &[usize]) -> Tensor {
    let bytes = Tensor::from_slice(bytes, shape, &Device::Cpu).unwrap();
    (bytes.to_dtype(DType::F32).unwrap() / 255.).unwrap()
}

#[track_caller]
fn rejects<T>(result: Result<T>, parts: &[&str]) {
    let text = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
}

#[test]
fn grey_images_come_flat_and_every_byte_survives() {
    let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
    let data = Dataset::try_from(both(floats(&bytes, &[2, 256]), &[7, 3])).unwrap();
    assert_eq!(
        (data.image(), data.train.labels(), &*data.name),
        ((1, 16, 16), &[7, 3][..], "candle-datasets")
    );
    assert_eq!(data.test.bytes(1).unwrap(), &bytes[256..]);
}

#[test]
fn colour_images_come_with_width_before_height() {
    // [2, 3, 4, 5] upright; as `vision::cifar::load` permutes them: [2, 3, 5, 4].
    let bytes: Vec<u8> = (0..120).collect();
    let given = floats(&bytes, &[2, 3, 4, 5]).transpose(2, 3).unwrap();
    let data = Dataset::try_from(both(given, &[0, 9])).unwrap();
    assert_eq!(data.image(), (3, 4, 5));
    assert_eq!(data.train.bytes(1).unwrap(), &bytes[60..]);
}

#[test]
fn other_values_shapes_and_labels_are_named() {
    let images = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    for (value, shown) in [(1.5, "1.5"), (-0.1, "-0.1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let given = both(images(&[0., 1., 0.5, 1., value, 0., 0., 0.], &[2, 4]), &[0, 1]);
        rejects(Dataset::try_from(given), &["test_images", shown, "[0, 1]", "image 1"]);
    }
    rejects(Dataset::try_from(both(images(&[0.; 6], &[2, 3]), &[0, 1])), &["test_images", "[2, 3]"]);
    rejects(Dataset::try_from(both(images(&[0.; 8], &[2, 2, 2]), &[0, 1])), &["test_images", "[2, 2, 2]"]);
    rejects(Dataset::try_from(both(images(&[0.; 8], &[2, 4]), &[0, 10])), &["test_labels", "10"]);
    rejects(Dataset::try_from(both(images(&[0.; 8], &[2, 4]), &[0])), &["data", "labels"]);
}

#[test]
fn what_is_not_official_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = || Ok(both(floats(&[0; 784], &[1, 784]), &[0]));
    rejects(fill(KnownSet::Mnist, folder.path(), zeros), &["mnist", "checksum", "no official file"]);
    rejects(fill(KnownSet::Cifar10, folder.path(), zeros), &["cifar-10", "(1, 28, 28)", "(3, 32, 32)"]);
    let offline = || Err(candle_core::Error::Msg("Api error: no network".into()));
    rejects(fill(KnownSet::Mnist, folder.path(), offline), &["candle-datasets: Api error: no network"]);
    let damaged = || -> candle_core::Result<vision::Dataset> { panic!("called on a damaged image") };
    rejects(fill(KnownSet::Mnist, folder.path(), damaged), &["it panicked: called on a damaged image"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn loaders_are_those_of_candle_datasets() {
    let has = KnownSet::ALL.map(|set| loader(set).is_some());
    assert_eq!(has, [true, true, false, false, true]);
}

fn data_folder(set: KnownSet) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("SPIKING_DATA_DIR")?).join(set.name());
    folder.is_dir().then_some(folder)
}

#[test]
fn the_official_images_become_the_official_files() {
    for set in [KnownSet::Mnist, KnownSet::FashionMnist] {
        let Some(real) = data_folder(set).and_then(|folder| set.load(Some(&folder), Partial::Reject).ok())
        else {
            eprintln!("skipped: SPIKING_DATA_DIR does not name a folder with {}", set.name());
            continue;
        };
        let tensor = |split: &Split| {
            let bytes = (0..split.len()).flat_map(|i| split.bytes(i).unwrap().to_vec()).collect::<Vec<_>>();
            floats(&bytes, &[split.len(), 784])
        };
        let given = || vision::Dataset {
            train_images: tensor(&real.train),
            train_labels: labels(real.train.labels()),
            test_images: tensor(&real.test),
            test_labels: labels(real.test.labels()),
            labels: 10,
        };
        assert_eq!(Dataset::try_from(given()).unwrap().name, set.name());
        let folder = tempfile::tempdir().unwrap();
        let loaded = given();
        fill(set, folder.path(), std::panic::AssertUnwindSafe(|| Ok(loaded))).unwrap();
        let again = set.load(Some(folder.path()), Partial::Reject).unwrap();
        assert_eq!((again.train, again.test), (real.train.clone(), real.test.clone()));

        let swapped = vision::Dataset { test_labels: labels(&real.train.labels()[..10_000]), ..given() };
        let refused = fill(set, folder.path(), std::panic::AssertUnwindSafe(|| Ok(swapped)));
        rejects(refused, &[set.name(), "no official file"]);
    }
}

#[test]
fn cifar_is_recognised_in_either_order_of_its_axes() {
    let batch =
        data_folder(KnownSet::Cifar10).and_then(|folder| std::fs::read(folder.join("test_batch.bin")).ok());
    let Some(batch) = batch else {
        eprintln!("skipped: SPIKING_DATA_DIR does not name a folder with cifar-10/test_batch.bin");
        return;
    };
    let records: Vec<&[u8]> = batch.chunks(3073).collect();
    let images = records.iter().flat_map(|record| record[1..].to_vec()).collect::<Vec<_>>();
    let given: Vec<u8> = records.iter().map(|record| record[0]).collect();
    let upright = floats(&images, &[records.len(), 3, 32, 32]);
    for images_given in [upright.clone(), upright.transpose(2, 3).unwrap()] {
        let data = Dataset::try_from(both(images_given, &given)).unwrap();
        assert_eq!((&*data.name, data.test.bytes(9).unwrap()), ("cifar-10", &images[9 * 3072..10 * 3072]));
    }
}
