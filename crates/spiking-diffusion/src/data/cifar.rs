//! CIFAR-10's binary batches: records of a label and 3x32x32 bytes, red, green, blue.

use std::path::Path;

use super::known::KnownSet;
use super::partial::Notes;
use super::split::Split;
use crate::error::{Error, Result};

const IMAGES: usize = 10_000;
const PIXELS: usize = 3 * 32 * 32;

/// The batches that are there, or nothing where there is none.
pub(super) fn read(folder: &Path, names: &[&str], notes: &mut Notes) -> Result<Option<Split>> {
    if !names.iter().any(|name| folder.join(name).is_file()) {
        return Ok(None);
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for name in names {
        let path = folder.join(name);
        let before = labels.len();
        if !path.is_file() && !notes.allow() {
            let near = KnownSet::Cifar10.but_near(folder);
            let message =
                format!("lacks `{name}`{near}; `Partial::Allow` (--allow-partial) takes what is there");
            return Err(Error::data(folder, message));
        }
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            parse(&bytes, &mut pixels, &mut labels).map_err(|message| Error::data(&path, message))?;
        }
        notes.count(&path, labels.len() - before, IMAGES)?;
    }
    Split::new(pixels, labels, (3, 32, 32)).map(Some)
}

fn parse(bytes: &[u8], pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> std::result::Result<(), String> {
    let records = bytes.chunks_exact(PIXELS + 1);
    if bytes.is_empty() || !records.remainder().is_empty() {
        return Err(format!(
            "has {} bytes, expected a multiple of {} that is not 0",
            bytes.len(),
            PIXELS + 1
        ));
    }
    for (i, record) in records.enumerate() {
        if record[0] > 9 {
            return Err(format!("label {i} is {}, expected a value in 0..=9", record[0]));
        }
        labels.push(record[0]);
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
}
