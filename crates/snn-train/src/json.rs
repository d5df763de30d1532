//! JSON that a person may have edited.

use std::path::Path;

use crate::error::{Error, Result};

/// Reads the text of a file, without the byte-order mark that some editors put in front of it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = std::fs::read(path).map_err(Error::io(path))?;
    match text[..] {
        [0xef, 0xbb, 0xbf, ..] => drop(text.drain(..3)),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            return Err(Error::run(path, "is UTF-16 text: save it as UTF-8"));
        }
        _ => {}
    }
    Ok(text)
}
