//! `.pth` files as `torch.save` writes them of a state dict: a zip archive of one pickle and the bytes of the tensors.

use std::io::{Cursor, Write};
use std::path::Path;

use candle_core::{DType, Tensor};
use snn_core::write_atomically;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::{Error, Result};

/// Writes tensors, f32 or i64, to a file that `torch.load` reads (with `weights_only=True`, its default, too) as an `OrderedDict` in this
/// order, for `load_state_dict`. Equal tensors give equal bytes; a reader sees all of the file or what was there before.
///
/// # Errors
/// Returns an error, with the file's name, if a tensor is of another type or has 2^31 elements or more, or if the file cannot be written.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use spiking_diffusion::metrics::WeightFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("layer.pth");
/// let weight = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// spiking_diffusion::pytorch::write_pth(&path, &[("layer.weight".into(), weight)])?;
/// assert_eq!(WeightFile::open(&path)?.values("layer.weight", &[2, 2])?, [1., 2., 3., 4.]);
/// # Ok(()) }
/// ```
pub fn write_pth(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let explain = |e: &dyn std::fmt::Display| Error::data(path, e.to_string());
    let mut pickle = Pickle::begin();
    let mut storages = Vec::with_capacity(tensors.len());
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let wrong = |e: &dyn std::fmt::Display| Error::data(path, format!("`{name}`: {e}"));
        let (class, bytes) = storage(tensor).map_err(|e| wrong(&e))?;
        pickle.entry(name, key, class, tensor.dims()).map_err(|e| wrong(&e))?;
        storages.push((key, bytes));
    }
    let archive = archive(&pickle.end(), &storages).map_err(|e| explain(&e))?;
    Ok(write_atomically(path, &archive)?)
}

/// The folder in the archive; any name will do.
const FOLDER: &str = "archive";
/// Where PyTorch's own files put the bytes of a tensor: at multiples of this.
const ALIGNMENT: u16 = 64;

fn archive(
    pickle: &[u8],
    storages: &[(usize, Vec<u8>)],
) -> std::result::Result<Vec<u8>, zip::result::ZipError> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("{FOLDER}/{name}"), stored.with_alignment(ALIGNMENT))?;
        Ok::<(), zip::result::ZipError>(zip.write_all(bytes)?)
    };
    add("data.pkl", pickle)?;
    add("byteorder", b"little")?;
    for (key, bytes) in storages {
        add(&format!("data/{key}"), bytes)?;
    }
    add("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The class of a tensor's storage, and the storage: its elements one behind the other, little-endian.
fn storage(tensor: &Tensor) -> candle_core::Result<(&'static str, Vec<u8>)> {
    let elements = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => {
            ("FloatStorage", elements.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        DType::I64 => {
            ("LongStorage", elements.to_vec1::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        other => candle_core::bail!("is {other:?}; f32 and i64 are written"),
    })
}

/// A pickle of protocol 2 in the making. The opcodes are those of Python's `pickletools`.
struct Pickle(Vec<u8>);

impl Pickle {
    /// `OrderedDict()`, whose items follow.
    fn begin() -> Self {
        let mut pickle = Self(vec![0x80, 2]);
        pickle.ordered_dict();
        pickle.0.push(b'(');
        pickle
    }

    /// Name and tensor: `_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`.
    fn entry(
        &mut self,
        name: &str,
        key: usize,
        class: &str,
        dims: &[usize],
    ) -> std::result::Result<(), String> {
        let count = dims.iter().product();
        self.text(name)?;
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.push(b'(');
        // The storage by its persistent id: ("storage", its class, its key, its device, its length).
        self.0.push(b'(');
        self.text("storage")?;
        self.global("torch", class);
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.number(count)?;
        self.0.extend(b"tQ");
        self.number(0)?;
        self.tuple(dims)?;
        let mut strides: Vec<usize> =
            dims.iter().rev().scan(1, |behind, dim| Some(std::mem::replace(behind, *behind * dim))).collect();
        strides.reverse();
        self.tuple(&strides)?;
        self.0.push(0x89);
        self.ordered_dict();
        self.0.extend(b"tR");
        Ok(())
    }

    /// The items, and the end.
    fn end(mut self) -> Vec<u8> {
        self.0.extend(b"u.");
        self.0
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").into_bytes());
    }

    fn text(&mut self, text: &str) -> std::result::Result<(), String> {
        let length = u32::try_from(text.len()).map_err(|_| "the name is too long".to_owned())?;
        self.0.push(b'X');
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn number(&mut self, number: usize) -> std::result::Result<(), String> {
        let number = i32::try_from(number).map_err(|_| format!("{number} is too large for the file"))?;
        self.0.push(b'J');
        self.0.extend(number.to_le_bytes());
        Ok(())
    }

    fn tuple(&mut self, numbers: &[usize]) -> std::result::Result<(), String> {
        self.0.push(b'(');
        numbers.iter().try_for_each(|number| self.number(*number))?;
        self.0.push(b't');
        Ok(())
    }
}
