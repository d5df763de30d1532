//! A kernel launch as data.

use candle_core::{DType, Layout, Result, bail};

use crate::ops::Real;
use crate::ops::backend::MAX_SHARED;

/// Threads a block at most, `MAX_BLOCK` of `prelude.cuh`.
pub(crate) const MAX_BLOCK: usize = 128;
/// Threads a block, the first that leaves room for its shared memory; whole warps.
const BLOCKS: [u32; 3] = [MAX_BLOCK as u32, 64, 32];
/// Threads that exchange registers.
const WARP: u32 = 32;
/// The most blocks of a launch: kernels pass several times where there is more to do.
const MAX_GRID: u64 = 16_384;

/// What a kernel takes, in the order of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
    /// A pointer to so many bytes.
    Operand { name: &'static str, bytes: usize },
    /// A struct of pointers to so many bytes each, all of one name; the struct's pointers behind them, up to `slots`, are null.
    Table { name: &'static str, bytes: Vec<usize>, slots: usize },
    /// A number, or a struct of them, as its bytes.
    Value(Vec<u8>),
}

/// A kernel, its grid and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The kernel's file: a name in [`source`](super::source).
    pub(crate) file: &'static str,
    pub(crate) kernel: String,
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) shared: u32,
    pub(crate) arguments: Vec<Argument>,
}

impl Launch {
    /// A thread for each of the elements, of which a block takes `shared(block)` bytes of shared memory.
    pub(crate) fn new(
        file: &'static str,
        kernel: &str,
        dtype: DType,
        elements: usize,
        shared: impl Fn(usize) -> usize,
    ) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            bail!("{kernel}: wants f32 or f64, not {dtype:?}")
        }
        let fits = |block: &u32| shared(*block as usize) <= MAX_SHARED;
        let Some(block) = BLOCKS.into_iter().find(fits) else {
            let least = shared(WARP as usize);
            bail!("{kernel}: a block wants {least} bytes of shared memory and gets at most {MAX_SHARED}")
        };
        let grid = (elements as u64).div_ceil(u64::from(block)).clamp(1, MAX_GRID);
        Ok(Self {
            file,
            kernel: format!("{kernel}_{}", dtype.as_str()),
            grid: grid as u32,
            block,
            shared: shared(block as usize) as u32,
            arguments: Vec::new(),
        })
    }

    /// A pointer to so many elements of `dtype`.
    pub(crate) fn operand(mut self, name: &'static str, elements: usize, dtype: DType) -> Self {
        self.arguments.push(Argument::Operand { name, bytes: elements * dtype.size_in_bytes() });
        self
    }

    /// A struct of `slots` pointers, of which the first point to so many elements of `dtype` each.
    pub(crate) fn table(
        mut self,
        name: &'static str,
        elements: &[usize],
        slots: usize,
        dtype: DType,
    ) -> Self {
        let bytes = elements.iter().map(|elements| elements * dtype.size_in_bytes()).collect();
        self.arguments.push(Argument::Table { name, bytes, slots });
        self
    }

    /// An array of `slots` `Count`s, the last ones 0.
    pub(crate) fn counts(mut self, elements: &[usize], slots: usize) -> Self {
        let all = elements.iter().chain(std::iter::repeat(&0)).take(slots);
        self.arguments.push(Argument::Value(all.flat_map(|&n| (n as i64).to_le_bytes()).collect()));
        self
    }

    /// A `Count` of `prelude.cuh`.
    pub(crate) fn count(mut self, elements: usize) -> Self {
        self.arguments.push(Argument::Value((elements as i64).to_le_bytes().to_vec()));
        self
    }

    /// An `int`; the error names it.
    pub(crate) fn int(mut self, name: &str, value: usize) -> Result<Self> {
        let Ok(int) = i32::try_from(value) else { bail!("{}: {name} is {value}, too many", self.kernel) };
        self.arguments.push(Argument::Value(int.to_le_bytes().to_vec()));
        Ok(self)
    }

    /// A struct of numbers in the kernel's element type and then of flags.
    pub(crate) fn record<F: Real>(mut self, numbers: &[F], flags: &[i32]) -> Self {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|&x| bytes_of(x)).collect();
        bytes.extend(flags.iter().flat_map(|flag| flag.to_le_bytes()));
        self.arguments.push(Argument::Value(bytes));
        self
    }
}

/// The bytes of a number in its own type.
pub(crate) fn bytes_of<F: Real>(x: F) -> Vec<u8> {
    let x = x.to_f64();
    // Exact: an f32 has come from f32.
    if F::DTYPE == DType::F32 { (x as f32).to_le_bytes().to_vec() } else { x.to_le_bytes().to_vec() }
}

/// Bytes of a number for each warp, in which `block_sums` adds one number each.
pub(crate) fn warp_scratch(block: usize) -> usize {
    block / WARP as usize * size_of::<f64>()
}

/// Refuses, by name, an operand whose elements do not lie in a row.
pub(crate) fn contiguous(kernel: &str, name: &str, layout: &Layout) -> Result<()> {
    if layout.is_contiguous() {
        return Ok(());
    }
    bail!("{kernel}: {name} of shape {:?} is not contiguous", layout.dims())
}

/// Refuses, by name, an operand of another shape.
pub(crate) fn shaped(kernel: &str, name: &str, layout: &Layout, dims: &[usize]) -> Result<()> {
    contiguous(kernel, name, layout)?;
    if layout.dims() == dims {
        return Ok(());
    }
    bail!("{kernel}: {name} has shape {:?}, not {dims:?}", layout.dims())
}
