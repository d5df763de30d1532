//! The IDX format of MNIST and its relatives, plain or gzipped.
//!
//! Big-endian: two zero bytes, the element type (`0x08` for bytes), the number of axes, the length of each axis as a
//! `u32`, then the elements, last axis fastest.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::gzip;
use crate::error::{Error, Result};

/// Holds an array of bytes, as the files of MNIST and its like do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Length of each axis.
    pub dims: Vec<usize>,
    /// Elements, last axis fastest.
    pub bytes: Vec<u8>,
}

/// What other files begin with that are taken for these ones.
const OTHERS: [(&[u8], &str); 6] = [
    (b"PK", "a zip archive, which wants unpacking"),
    (b"7z", "a 7z archive, which wants unpacking"),
    (b"BZh", "a bzip2 file, which wants unpacking"),
    (b"\x1f\x8b", "gzip within gzip"),
    (b"<", "a web page"),
    (b"vers", "a pointer of Git LFS"),
];

/// Reads a file of bytes with this many axes, plain or gzipped, whatever its name says. Gzip may have several members, and
/// zeros behind them.
///
/// # Errors
/// Returns an error, with the file and the offending value, if the file is missing, is no IDX file, is damaged, has another element type or
/// number of axes, or is too short or too long.
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("labels-idx1-ubyte");
/// std::fs::write(&path, [0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4])?;
/// assert_eq!(spiking_diffusion::data::idx::read(&path, 1)?.bytes, [5, 0, 4]);
/// # Ok(()) }
/// ```
pub fn read(path: &Path, axes: usize) -> Result<Idx> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let mut content = gzip::open(file).map_err(Error::io(path))?;
    parse(&mut content, axes).map_err(|message| Error::data(path, message))
}

/// Finds `folder/name` or `folder/name.gz`, whichever exists, or the same with `.idx` for `-idx`, as 7-Zip unpacks it.
///
/// # Errors
/// Returns an error if none does.
pub fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let found = names(name).into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::data(folder, format!("holds neither `{name}` nor `{name}.gz`")))
}

/// What the file of this name may be called.
pub(super) fn names(name: &str) -> [String; 4] {
    let dotted = name.replace("-idx", ".idx");
    [name.to_owned(), format!("{name}.gz"), dotted.clone(), format!("{dotted}.gz")]
}

fn parse(reader: &mut impl Read, axes: usize) -> std::result::Result<Idx, String> {
    let mut magic = [0; 4];
    fill(reader, &mut magic, "the magic number")?;
    if magic[..2] != [0, 0] {
        if let Some((_, kind)) = OTHERS.iter().find(|(begin, _)| magic.starts_with(begin)) {
            return Err(format!("is no IDX file but {kind}"));
        }
        return Err(format!("is no IDX file: it begins with {magic:02x?} instead of two zero bytes"));
    }
    if magic[2] != 8 {
        return Err(format!("holds elements of type {:#04x}, expected bytes (0x08)", magic[2]));
    }
    if usize::from(magic[3]) != axes {
        return Err(format!("has {} axes, expected {axes}", magic[3]));
    }
    let mut dims = Vec::with_capacity(axes);
    for axis in 0..axes {
        let mut length = [0; 4];
        fill(reader, &mut length, &format!("the length of axis {axis}"))?;
        dims.push(u32::from_be_bytes(length) as usize);
    }
    let wanted = dims.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let wanted = wanted.ok_or_else(|| format!("claims the impossible shape {dims:?}"))?;
    // The header is not trusted with an allocation: the vector grows with what is really there.
    let mut bytes = Vec::new();
    let limit = (wanted as u64).saturating_add(1);
    reader.take(limit).read_to_end(&mut bytes).map_err(|e| format!("is damaged: {e}"))?;
    match bytes.len() {
        n if n < wanted => Err(format!("is cut short: shape {dims:?} needs {wanted} bytes, it holds {n}")),
        n if n > wanted => Err(format!("holds more than the {wanted} bytes of shape {dims:?}")),
        _ => Ok(Idx { dims, bytes }),
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8], what: &str) -> std::result::Result<(), String> {
    reader.read_exact(buffer).map_err(|e| format!("{what} cannot be read: {e}"))
}
