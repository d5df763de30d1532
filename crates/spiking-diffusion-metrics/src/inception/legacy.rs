//! `.pth` files from before PyTorch 1.6: pickles one behind the other, then the bytes of the storages.

use std::collections::HashMap;
use std::path::Path;

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{Device, Result, Tensor, bail};

/// Pickle protocol 2, and PyTorch's magic number as a long of ten bytes.
const MAGIC: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// Whether a file starts like one of `torch.save` before PyTorch 1.6.
pub(crate) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// All tensors of a state dict.
///
/// The pickles are: magic number, protocol version, system, state dict, list of storage keys. Each storage then has
/// its number of elements (`i64`, little endian) and their bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else { bail!("no magic number") };
    let (_version, _system) = (unpickle(&mut rest)?, unpickle(&mut rest)?);
    let infos = tensor_infos(unpickle(&mut rest)?)?;
    let Object::List(keys) = unpickle(&mut rest)? else { bail!("no list of storages") };
    let mut storages = HashMap::new();
    for key in keys {
        let Object::Unicode(key) = key else { bail!("a storage key is not a string") };
        let Some(info) = infos.iter().find(|info| storage_key(info) == key) else {
            bail!("no tensor in storage `{key}`")
        };
        let Some((count, behind)) = rest.split_first_chunk::<8>() else {
            bail!("storage `{key}` is cut off")
        };
        let size = usize::try_from(i64::from_le_bytes(*count)).ok();
        let size = size.and_then(|count| count.checked_mul(info.dtype.size_in_bytes()));
        let Some((data, behind)) = size.and_then(|size| behind.split_at_checked(size)) else {
            bail!("storage `{key}` is cut off")
        };
        storages.insert(key, data);
        rest = behind;
    }
    infos.iter().map(|info| Ok((info.name.clone(), tensor(info, &storages)?))).collect()
}

fn unpickle(rest: &mut &[u8]) -> Result<Object> {
    let mut stack = Stack::empty();
    stack.read_loop(rest)?;
    stack.finalize()
}

fn tensor_infos(state: Object) -> Result<Vec<TensorInfo>> {
    let Object::Dict(entries) = state else { bail!("no state dict") };
    let infos = entries.into_iter().map(|(name, value)| value.into_tensor_info(name, Path::new("")));
    Ok(infos.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Candle joins an empty folder and the key.
fn storage_key(info: &TensorInfo) -> &str {
    info.path.trim_start_matches('/')
}

fn tensor(info: &TensorInfo, storages: &HashMap<String, &[u8]>) -> Result<Tensor> {
    let size = info.dtype.size_in_bytes();
    let (start, count) = (info.layout.start_offset(), info.layout.shape().elem_count());
    let bytes = start.checked_mul(size).zip(count.checked_mul(size));
    let data = storages.get(storage_key(info)).zip(bytes);
    let data = data.and_then(|(data, (start, len))| data.get(start..)?.get(..len));
    match data {
        Some(data) if info.layout.is_contiguous() => {
            Tensor::from_raw_buffer(data, info.dtype, info.layout.dims(), &Device::Cpu)
        }
        _ => bail!("`{}` is not a contiguous part of its storage", info.name),
    }
}
