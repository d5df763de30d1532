//! Launches on a GPU: all that only a GPU can show is in this file, and in it in [`function`], [`keep_memory`] and [`Call::run`].
//!
//! An op says with a [`Launch`] what it wants, the same that the host runner takes in the tests, and hands over its operands in the
//! launch's order. Each is checked against the bytes that the launch counts on.
#![allow(unsafe_code)] // Device memory has no safe view.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, ValidAsZeroBits,
    result, sys,
};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, DeviceId, WrapErr};
use candle_core::{Layout, Result, bail};

use super::compile::ptx;
use super::launch::{Argument, Launch};
use super::store;
use crate::ops::Real;

/// The environment variable that names another folder for compiled kernels; empty, none are kept.
const FOLDER: &str = "SNN_CORE_CUDA_CACHE";

/// The element types that have kernels.
#[cfg(not(feature = "cudnn"))]
pub(crate) trait Element: Real + CudaDType + DeviceRepr + ValidAsZeroBits {}
/// The element types that have kernels.
#[cfg(feature = "cudnn")]
pub(crate) trait Element:
    Real + CudaDType + DeviceRepr + ValidAsZeroBits + candle_core::cuda_backend::cudarc::cudnn::CudnnDataType
{
}
impl Element for f32 {}
impl Element for f64 {}

/// Runs `$body` with `$F` = f32 or f64, whichever `$storage`, on a GPU, holds.
macro_rules! by_element {
    ($storage:expr, $name:expr, $F:ident => $body:expr) => {
        match candle_core::backend::BackendStorage::dtype($storage) {
            candle_core::DType::F32 => {
                type $F = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $F = f64;
                $body
            }
            other => candle_core::bail!("{}: wants f32 or f64, not {other:?}", $name),
        }
    };
}
pub(crate) use by_element;

/// What a kernel reads, or writes, as bytes.
enum Operand<'a> {
    Read(CudaView<'a, u8>),
    Write(CudaViewMut<'a, u8>),
}

/// A launch on its way: operands join it in its order.
pub(crate) struct Call<'a> {
    device: &'a CudaDevice,
    launch: Launch,
    operands: Vec<Operand<'a>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(device: &'a CudaDevice, launch: Launch) -> Self {
        Self { device, launch, operands: Vec::new() }
    }

    /// An operand that is there: the contiguous elements of a layout.
    pub(crate) fn read<F: CudaDType + 'a>(self, storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        self.view(&elements::<F>(storage, layout)?)
    }

    /// An operand that is there, whole.
    pub(crate) fn view<F>(mut self, part: &CudaView<'a, F>) -> Result<Self> {
        // SAFETY: any number is bytes.
        let bytes = unsafe { part.transmute::<u8>(part.num_bytes()) };
        self.operands.extend(bytes.map(Operand::Read));
        Ok(self)
    }

    /// An operand that the kernel fills.
    pub(crate) fn write<F>(mut self, part: &'a mut CudaViewMut<'_, F>) -> Result<Self> {
        let length = part.num_bytes();
        // SAFETY: as above.
        let bytes = unsafe { part.transmute_mut::<u8>(length) };
        self.operands.extend(bytes.map(Operand::Write));
        Ok(self)
    }

    /// Launches, with a fresh operand in the last place that the kernel fills.
    pub(crate) fn fill<F: Element>(self, elements: usize) -> Result<CudaStorage> {
        let device = self.device;
        let mut made = uninitialised::<F>(device, elements)?;
        Call { operands: self.operands, ..Call::new(device, self.launch) }
            .write(&mut made.slice_mut(..))?
            .run()?;
        Ok(F::wrap_cuda_slice(made, device.clone()))
    }

    /// Launches. The kernel runs some time after, on the device's stream.
    pub(crate) fn run(self) -> Result<()> {
        let Launch { file, kernel, grid, block, shared, arguments } = &self.launch;
        let function = function(self.device, file, kernel)?;
        let stream = self.device.cuda_stream();
        // Each guard tells other streams, when it goes, that the operand is in use until the kernel ends.
        let (mut operands, mut pointers, mut guards) = (self.operands, Vec::new(), Vec::new());
        for operand in &mut operands {
            let (length, (pointer, guard)) = match operand {
                Operand::Read(view) => (view.num_bytes(), view.device_ptr(&stream)),
                Operand::Write(view) => (view.num_bytes(), view.device_ptr_mut(&stream)),
            };
            pointers.push((pointer, length));
            guards.push(guard);
        }
        let mut parameters = parameters(kernel, arguments, &pointers)?;
        let mut addresses: Vec<*mut c_void> = parameters.iter_mut().map(|p| p.as_mut_ptr().cast()).collect();
        stream.context().bind_to_thread().w()?;
        // SAFETY: one parameter for each that the kernel has, in its order and as long as it is there: the launch says so, and the
        // tests on the host hold it to the kernel. Operands are as long as the kernel takes them to be; what it writes are
        // operands that nobody else has, or (AdamW's) whose tensors are locked until here and which one stream works on.
        unsafe {
            let (grid, block) = ((*grid, 1, 1), (*block, 1, 1));
            result::launch_kernel(function, grid, block, *shared, stream.cu_stream(), &mut addresses).w()?;
        }
        Ok(())
    }
}

/// The bytes of each parameter, in words so that any of them is aligned.
fn parameters(kernel: &str, arguments: &[Argument], operands: &[(u64, usize)]) -> Result<Vec<Vec<u64>>> {
    let mut operands = operands.iter();
    let mut pointer = |name: &str, wanted: usize| match operands.next() {
        // Nothing is allocated as one element, since nothing cannot be.
        Some(&(pointer, bytes)) if bytes == wanted || wanted == 0 => Ok(pointer),
        Some((_, bytes)) => bail!("{kernel}: {name} has {bytes} bytes, not {wanted}"),
        None => bail!("{kernel}: {name} is missing"),
    };
    let of = |argument: &Argument| match argument {
        Argument::Operand { name, bytes } => Ok(vec![pointer(name, *bytes)?]),
        Argument::Table { name, bytes, slots } => {
            let mut words: Vec<u64> =
                bytes.iter().map(|&bytes| pointer(name, bytes)).collect::<Result<_>>()?;
            words.resize(*slots, 0);
            Ok(words)
        }
        Argument::Value(bytes) => Ok(bytes.chunks(8).map(word).collect()),
    };
    let parameters = arguments.iter().map(of).collect::<Result<_>>()?;
    if operands.next().is_some() {
        bail!("{kernel}: an operand too many")
    }
    Ok(parameters)
}

/// Up to eight bytes, as they lie in memory.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

/// The elements of a contiguous operand.
pub(crate) fn elements<'a, F: CudaDType>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, F>> {
    let slice = storage.as_cuda_slice::<F>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("custom op: operand of shape {:?} is not contiguous", layout.shape())
    };
    match slice.try_slice(start..end) {
        Some(part) => Ok(part),
        None => bail!("custom op: elements {start}..{end} of {}", slice.len()),
    }
}

/// Fresh memory for so many elements, for a kernel that fills them all.
pub(crate) fn uninitialised<F: DeviceRepr>(device: &CudaDevice, elements: usize) -> Result<CudaSlice<F>> {
    // SAFETY: it is written before it is read. The driver refuses to allocate nothing.
    unsafe { device.alloc::<F>(elements.max(1)) }
}

/// Has the driver keep the memory that tensors leave, for those to come. Else it unmaps it whenever the host waits for the device, and a
/// training step maps all of it again.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut bytes = u64::MAX;
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device's own pool, from which Candle allocates; the attribute is a number of 64 bits, and is copied.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        result::mem_pool::set_attribute(pool, threshold, (&raw mut bytes).cast()).w()
    }
}

/// The kernel of a file, compiled and loaded the first time that a program asks for one of it.
fn function(device: &CudaDevice, file: &'static str, kernel: &str) -> Result<sys::CUfunction> {
    type Compiled = HashMap<(&'static str, DeviceId), Arc<str>>;
    static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let ptx = match compiled.entry((file, device.id())) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let capability = device.cuda_stream().context().compute_capability().w()?;
            keep_memory(device)?;
            let folder = store::folder(std::env::var_os(FOLDER), dirs::cache_dir());
            entry.insert(ptx(file, capability, folder.as_deref())?.into())
        }
    };
    // Candle keeps the module of each name as long as the device is there, and the function with it.
    Ok(device.get_or_load_custom_func(kernel, file, ptx)?.cu_function())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Vec<Argument> {
        vec![
            Argument::Operand { name: "xs", bytes: 12 },
            Argument::Value(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
            Argument::Table { name: "grads", bytes: vec![8, 0], slots: 3 },
        ]
    }

    #[test]
    fn parameters_are_pointers_tables_and_bytes() -> Result<()> {
        let words = parameters("kernel", &arguments(), &[(0x10, 12), (0x20, 8), (0x30, 4)])?;
        let value =
            vec![u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]), u64::from_ne_bytes([9, 0, 0, 0, 0, 0, 0, 0])];
        assert_eq!(words, [vec![0x10], value, vec![0x20, 0x30, 0]]);
        Ok(())
    }

    #[test]
    fn operands_that_do_not_fit_are_named() {
        let says = |operands: &[(u64, usize)], part: &str| {
            let error = parameters("kernel", &arguments(), operands).expect_err("refused").to_string();
            assert!(error.contains("kernel") && error.contains(part), "{error}");
        };
        says(&[(0x10, 8), (0x20, 8), (0x30, 0)], "xs has 8 bytes, not 12");
        says(&[(0x10, 12), (0x20, 4), (0x30, 0)], "grads has 4 bytes, not 8");
        says(&[(0x10, 12), (0x20, 8)], "grads is missing");
        says(&[(0x10, 12), (0x20, 8), (0x30, 0), (0x40, 4)], "an operand too many");
    }
}
