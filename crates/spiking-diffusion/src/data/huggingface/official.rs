//! What the official files hash to once they are unpacked.

use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};

use super::super::{Dataset, KnownSet, Split};
use crate::error::{Error, Result};

/// SHA-256 of MNIST's files without `.gz`, in the order of [`KnownSet::files`]: computed from files with the checksums of
/// `download/remote.rs` (`gzip -dc FILE | sha256sum`).
const MNIST: [&str; 4] = [
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
];

/// The same of Fashion-MNIST.
const FASHION_MNIST: [&str; 4] = [
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
];

/// MD5 of CIFAR-10's binary batches, as other projects record them; those of the first batch and of the test batch were
/// also computed from the official images.
const CIFAR10: [&str; 6] = [
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
];

/// Images of a batch of CIFAR-10.
const BATCH: usize = 10_000;

/// The sets with known sums.
const KNOWN: [KnownSet; 3] = [KnownSet::Mnist, KnownSet::FashionMnist, KnownSet::Cifar10];

/// In the order of [`KnownSet::files`].
fn sums(set: KnownSet) -> &'static [&'static str] {
    match set {
        KnownSet::Mnist => &MNIST,
        KnownSet::FashionMnist => &FASHION_MNIST,
        KnownSet::Cifar10 => &CIFAR10,
        KnownSet::Kmnist | KnownSet::Letters => &[],
    }
}

/// The set whose official test split this is.
pub(super) fn of_test(test: &Split) -> Result<Option<KnownSet>> {
    for set in KNOWN {
        if test.len() != set.counts().1 || test.image() != shape(set) {
            continue;
        }
        let known = |file: &Vec<u8>| sums(set).contains(&&*sum(set, file));
        if unpacked(set, test)?.iter().all(known) {
            return Ok(Some(set));
        }
    }
    Ok(None)
}

/// Names and bytes of the official files, whichever order they are in.
///
/// # Errors
/// Returns an error if a part of the data is none of the official files, or if one of these is not there.
pub(super) fn files(set: KnownSet, data: &Dataset, folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    if data.image() != shape(set) {
        return Err(Error::data(
            folder,
            format!("{}: images of {:?}, expected {:?}", set.name(), data.image(), shape(set)),
        ));
    }
    let names = set.files();
    let mut found = Vec::new();
    for file in unpacked(set, &data.train)?.into_iter().chain(unpacked(set, &data.test)?) {
        let sum = sum(set, &file);
        let Some(name) = sums(set).iter().position(|known| *known == sum).and_then(|at| names.get(at)) else {
            let message = format!(
                "{}: a part of the loaded data has the checksum {sum}, which no official file has",
                set.name()
            );
            return Err(Error::data(folder, message));
        };
        found.push((name.clone(), file));
    }
    match names.iter().find(|name| found.iter().all(|(known, _)| known != *name)) {
        None => Ok(found),
        Some(name) => Err(Error::data(folder, format!("{}: the loaded data lack {name}", set.name()))),
    }
}

fn shape(set: KnownSet) -> (usize, usize, usize) {
    if set == KnownSet::Cifar10 { (3, 32, 32) } else { (1, 28, 28) }
}

/// The files that a split is in, without their names.
fn unpacked(set: KnownSet, split: &Split) -> Result<Vec<Vec<u8>>> {
    if set != KnownSet::Cifar10 {
        return Ok(vec![
            idx(&[split.len(), 28, 28], &images(split, 0..split.len())?),
            idx(&[split.len()], split.labels()),
        ]);
    }
    (0..split.len()).step_by(BATCH).map(|start| batch(split, start)).collect()
}

fn images(split: &Split, range: std::ops::Range<usize>) -> Result<Vec<u8>> {
    Ok(range.map(|i| split.bytes(i)).collect::<Result<Vec<_>>>()?.concat())
}

/// A file of bytes with these axes.
fn idx(axes: &[usize], bytes: &[u8]) -> Vec<u8> {
    let axis = |&axis: &usize| u32::try_from(axis).unwrap_or(u32::MAX).to_be_bytes();
    [&[0, 0, 8, axes.len() as u8], axes.iter().map(axis).collect::<Vec<_>>().concat().as_slice(), bytes]
        .concat()
}

/// Records of a label and an image.
fn batch(split: &Split, start: usize) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    for i in start..split.len().min(start + BATCH) {
        records.push(split.labels()[i]);
        records.extend_from_slice(split.bytes(i)?);
    }
    Ok(records)
}

/// The kind of checksum that is known of the set.
fn sum(set: KnownSet, bytes: &[u8]) -> String {
    if set == KnownSet::Cifar10 {
        format!("{:x}", Md5::digest(bytes))
    } else {
        format!("{:x}", Sha256::digest(bytes))
    }
}
