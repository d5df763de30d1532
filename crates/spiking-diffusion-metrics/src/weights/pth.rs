//! `.pth` files: what `torch.save` makes of a state dict.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, copy, sink};
use std::path::{Path, PathBuf};

use candle_core::pickle::Object;
use candle_core::{Device, Tensor};
use zip::ZipArchive;

use super::pickle::{Entries, Entry, Reason, entries, unpickle};

/// A `.pth` file of PyTorch 1.6 or later is a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";
/// One from before is pickles one behind the other: protocol 2, and PyTorch's magic number as a long of ten bytes, first.
const MAGIC: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
/// Bytes of the longest pickle that is read; one tensor takes about 250.
const LONGEST: u64 = 1 << 26;

/// A state dict of which the values are still to be read.
pub(super) struct Pth {
    pub(super) entries: Entries,
    storages: Storages,
}

enum Storages {
    /// The archive, and the folder in it.
    Zip(PathBuf, String),
    Memory(HashMap<String, Vec<u8>>),
}

impl Pth {
    /// Whether a file starts like one.
    pub(super) fn starts(start: &[u8]) -> bool {
        start.starts_with(ZIP) || start.starts_with(&MAGIC)
    }

    pub(super) fn open(path: &Path) -> Result<Self, Reason> {
        let mut start = Vec::new();
        let file = || File::open(path).map_err(|e| e.to_string());
        file()?.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(|e| e.to_string())?;
        if start.starts_with(ZIP) {
            return Self::open_zip(path);
        }
        let mut bytes = Vec::new();
        file()?.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Self::from_legacy(&bytes)
    }

    fn open_zip(path: &Path) -> Result<Self, Reason> {
        let mut archive = archive(path)?;
        let names: Vec<String> =
            archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let folders = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
        let folder = folders.min_by_key(|folder| folder.len()).ok_or("holds no data.pkl")?.to_owned();
        let order = format!("{folder}byteorder");
        if names.contains(&order) && member(&mut archive, &order, LONGEST)? != b"little" {
            return Err("was written on a machine whose byte order is not little-endian".into());
        }
        let pickle = member(&mut archive, &format!("{folder}data.pkl"), LONGEST)?;
        let entries = entries(&unpickle(&mut pickle.as_slice())?)?;
        Ok(Self { entries, storages: Storages::Zip(path.to_owned(), folder) })
    }

    /// The pickles are: magic number, protocol version, system, state dict, list of storage keys. Each storage then has
    /// its number of elements (`i64`, little endian) and their bytes.
    fn from_legacy(bytes: &[u8]) -> Result<Self, Reason> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or("no magic number")?;
        let (_version, _system) = (unpickle(&mut rest)?, unpickle(&mut rest)?);
        let entries = entries(&unpickle(&mut rest)?)?;
        let Object::List(keys) = unpickle(&mut rest)? else { return Err("no list of storages".into()) };
        let mut storages = HashMap::new();
        for key in keys {
            let Object::Unicode(key) = key else { return Err("a storage key is not a string".into()) };
            let mut tensors = entries.values().flatten();
            let tensor = tensors.find(|entry| entry.storage == key);
            let tensor =
                tensor.ok_or_else(|| format!("no tensor that is read here is in storage `{key}`"))?;
            let (count, behind) =
                rest.split_first_chunk::<8>().ok_or_else(|| format!("storage `{key}` is cut off"))?;
            let size = usize::try_from(i64::from_le_bytes(*count)).ok();
            let size = size.and_then(|count| count.checked_mul(tensor.dtype.size_in_bytes()));
            let parts = size.and_then(|size| behind.split_at_checked(size));
            let (data, behind) = parts.ok_or_else(|| format!("storage `{key}` is cut off"))?;
            storages.insert(key, data.to_owned());
            rest = behind;
        }
        Ok(Self { entries, storages: Storages::Memory(storages) })
    }

    /// The tensor that an entry describes.
    pub(super) fn tensor(&self, entry: &Entry) -> Result<Tensor, Reason> {
        let size = entry.dtype.size_in_bytes();
        let (start, len) = entry.span()?;
        let bytes = start.checked_mul(size).zip(len.checked_mul(size));
        let (start, len) = bytes.ok_or_else(|| cut_off(&entry.storage))?;
        let mut data = self.read(&entry.storage, start, len)?;
        if !entry.is_contiguous() {
            let mut ordered = Vec::with_capacity(data.len());
            entry.gather(0, &data, &mut ordered);
            data = ordered;
        }
        Tensor::from_raw_buffer(&data, entry.dtype, &entry.dims, &Device::Cpu).map_err(|e| e.to_string())
    }

    /// `len` bytes of a storage, from `start` on.
    fn read(&self, storage: &str, start: usize, len: usize) -> Result<Vec<u8>, Reason> {
        let data = match &self.storages {
            Storages::Memory(storages) => {
                let data = storages.get(storage).ok_or_else(|| format!("there is no storage `{storage}`"))?;
                data.get(start..).and_then(|data| data.get(..len)).map(<[u8]>::to_vec)
            }
            Storages::Zip(path, folder) => {
                let (mut archive, name) = (archive(path)?, format!("{folder}data/{storage}"));
                let mut file = archive.by_name(&name).map_err(|e| format!("{name}: {e}"))?;
                let skipped = copy(&mut file.by_ref().take(start as u64), &mut sink());
                skipped.map_err(|e| format!("{name}: {e}"))?;
                let mut data = Vec::new();
                let read = file.by_ref().take(len as u64).read_to_end(&mut data);
                // Behind the last byte the archive says whether they are what was written.
                let checked = read.and_then(|_| copy(&mut file, &mut sink()));
                checked.map_err(|e| format!("{name}: {e}"))?;
                (data.len() == len).then_some(data)
            }
        };
        data.ok_or_else(|| cut_off(storage))
    }
}

fn cut_off(storage: &str) -> Reason {
    format!("lies beyond the end of storage `{storage}`")
}

fn archive(path: &Path) -> Result<ZipArchive<BufReader<File>>, Reason> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())
}

fn member(archive: &mut ZipArchive<BufReader<File>>, name: &str, most: u64) -> Result<Vec<u8>, Reason> {
    let mut file = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?.take(most);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
    Ok(bytes)
}

/// Most axes of a tensor.
const AXES: usize = 8;

impl Entry {
    /// Where in its storage the tensor starts, and over how many elements it reaches.
    fn span(&self) -> Result<(usize, usize), Reason> {
        let wrong =
            || format!("has a shape or strides that are not read here: {:?}, {:?}", self.dims, self.strides);
        let product = |all: usize, dim: &usize| all.checked_mul(*dim);
        let count =
            self.dims.iter().try_fold(1, product).filter(|_| self.dims.len() <= AXES).ok_or_else(wrong)?;
        if count == 0 {
            return Ok((self.offset, 0));
        }
        let mut axes = self.dims.iter().zip(&self.strides);
        let reach =
            axes.try_fold(1usize, |all, (dim, stride)| all.checked_add((dim - 1).checked_mul(*stride)?));
        // A tensor whose elements overlap could be of any size, whatever the file's.
        Ok((self.offset, reach.filter(|reach| *reach >= count).ok_or_else(wrong)?))
    }

    /// Whether the elements lie in the order of the tensor.
    fn is_contiguous(&self) -> bool {
        let mut behind = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(dim, stride)| {
            let fits = *dim == 1 || *stride == behind;
            behind *= dim;
            fits
        })
    }

    /// Appends the elements of a part of the tensor, from `axis` on, in the order of the tensor; `data` starts with the first.
    fn gather(&self, axis: usize, data: &[u8], out: &mut Vec<u8>) {
        let size = self.dtype.size_in_bytes();
        let Some((dim, stride)) = self.dims.get(axis).zip(self.strides.get(axis)) else {
            out.extend(data.iter().take(size));
            return;
        };
        for i in 0..*dim {
            self.gather(axis + 1, data.get(i * stride * size..).unwrap_or_default(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn entry(offset: usize, dims: &[usize], strides: &[usize]) -> Entry {
        let (dims, strides) = (dims.to_vec(), strides.to_vec());
        Entry { dtype: DType::U8, storage: "0".into(), offset, dims, strides }
    }

    fn read(entry: &Entry) -> Result<Vec<u8>, Reason> {
        let storages = Storages::Memory(HashMap::from([("0".to_owned(), (0..24).collect())]));
        let tensor = Pth { entries: Entries::new(), storages }.tensor(entry)?;
        assert_eq!(tensor.dims(), entry.dims);
        Ok(tensor.flatten_all().unwrap().to_vec1().unwrap())
    }

    #[test]
    fn elements_come_in_the_order_of_the_tensor() {
        assert_eq!(read(&entry(1, &[2, 2], &[2, 1])).unwrap(), [1, 2, 3, 4]);
        assert_eq!(read(&entry(0, &[2, 3], &[1, 2])).unwrap(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(read(&entry(2, &[2, 1, 2], &[12, 7, 3])).unwrap(), [2, 5, 14, 17]);
        assert_eq!(read(&entry(23, &[], &[])).unwrap(), [23]);
        assert_eq!(read(&entry(7, &[3, 0], &[1, 1])).unwrap(), [0u8; 0]);
    }

    #[test]
    fn what_lies_outside_or_overlaps_is_refused() {
        for (offset, dims, strides) in [
            (0, &[25][..], &[1][..]),
            (24, &[], &[]),
            (0, &[2, 2], &[23, 1]),
            (0, &[4], &[0]),
            (0, &[usize::MAX, 2], &[1, 1]),
            (usize::MAX, &[2], &[1]),
            (0, &[2, 2], &[usize::MAX, 1]),
            (0, &[1; 9], &[1; 9]),
        ] {
            assert!(read(&entry(offset, dims, strides)).is_err(), "{offset} {dims:?} {strides:?}");
        }
    }
}
