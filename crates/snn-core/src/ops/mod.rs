//! The custom operations, a folder (or, where short, a file) each: `mod.rs` holds the contract and the twin, `cpu.rs` the
//! kernel, `tests.rs` what holds the two together. `chain` is the engine that spiking layers run on.
//!
//! `backend` decides, for all of them, which backend runs a tensor: our kernels for its device, or the twin, made of Candle's own
//! operations. Its first lines say how a backend more is added. `cuda` has what the CUDA kernels share, which some ops have beside
//! their `cpu`.

pub(crate) mod adamw;
pub(crate) mod backend;
pub(crate) mod batch_norm;
pub(crate) mod chain;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
#[cfg(target_arch = "x86_64")]
mod fma;
mod gemm;
pub(crate) mod lerp;
pub(crate) mod lif;
pub(crate) mod nearest;
pub(crate) mod norm_lif;
pub(crate) mod precision;
pub(crate) mod rows;
mod simd;
pub(crate) mod squares;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod time;
mod turn;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, Layout, Result, Tensor, WithDType, bail};

pub(crate) use crate::room::room;

/// A variance that rounding took below 0 is 0; one of a spoilt channel stays what it is, no number.
pub(crate) fn not_negative(variance: f64) -> f64 {
    if variance < 0. { 0. } else { variance }
}

/// f32 and f64, the element types of the kernels.
pub(crate) trait Real: WithDType + std::ops::Neg<Output = Self> {
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    fn storage(values: Vec<Self>) -> CpuStorage;
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn atan(self) -> Self;
    fn abs(self) -> Self;
    fn erf(self) -> Self;
    fn next_up(self) -> Self;
    /// The larger of the two; NaN where `self` is.
    fn at_least(self, other: Self) -> Self;
    /// The smaller of the two; NaN where `self` is.
    fn at_most(self, other: Self) -> Self;
}

macro_rules! real {
    ($t:ident, $variant:ident) => {
        impl Real for $t {
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
            fn storage(values: Vec<Self>) -> CpuStorage {
                CpuStorage::$variant(values)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $t::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $t::ln(self)
            }
            #[inline(always)]
            fn atan(self) -> Self {
                $t::atan(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                candle_core::cpu::erf::erf_f64(self as f64) as $t
            }
            #[inline(always)]
            fn next_up(self) -> Self {
                $t::next_up(self)
            }
            #[inline(always)]
            fn at_least(self, other: Self) -> Self {
                if self < other { other } else { self }
            }
            #[inline(always)]
            fn at_most(self, other: Self) -> Self {
                if self > other { other } else { self }
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// The rows of `[steps, neurons]`, cut into the blocks of neurons of tasks.
pub(crate) fn columns<F>(values: &mut [F], neurons: usize, block: usize) -> Vec<Vec<&mut [F]>> {
    let mut columns: Vec<Vec<&mut [F]>> = (0..neurons.div_ceil(block)).map(|_| Vec::new()).collect();
    for row in values.chunks_exact_mut(neurons.max(1)) {
        columns.iter_mut().zip(row.chunks_mut(block)).for_each(|(column, part)| column.push(part));
    }
    columns
}

/// The elements of a contiguous operand.
pub(crate) fn operand<'a, F: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [F]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("custom op: operand of shape {:?} is not contiguous", layout.shape())
    };
    match F::slice(storage) {
        Some(values) => Ok(&values[start..end]),
        None => bail!("custom op: an operand is {:?}, the first {:?}", storage.dtype(), F::DTYPE),
    }
}

/// Whether all operands have one element type; the error says which has which.
pub(crate) fn same_type(op: &str, operands: &[(&str, &Tensor)]) -> Result<()> {
    if operands.windows(2).all(|pair| pair[0].1.dtype() == pair[1].1.dtype()) {
        return Ok(());
    }
    let types: Vec<_> = operands.iter().map(|(name, t)| format!("{name} is {:?}", t.dtype())).collect();
    bail!("{op}: element types differ: {}", types.join(", "))
}

/// Runs `$body` with `$F` = f32 or f64, whichever `$storage` holds.
macro_rules! by_dtype {
    ($storage:expr, $name:expr, $F:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $F = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $F = f64;
                $body
            }
            other => {
                use candle_core::backend::BackendStorage as _;
                candle_core::bail!("{}: wants f32 or f64, not {:?}", $name, other.dtype())
            }
        }
    };
}
pub(crate) use by_dtype;

/// Threads that operations compute on: those of rayon's pool, which `RAYON_NUM_THREADS` sets. They never change a result.
#[must_use]
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on one of the [`threads`] that operations compute on, if `device` is the CPU. It never changes a result.
///
/// Any other thread hands over each loop of an operation by itself, and sleeps until it is done: with two threads a fifth of a training
/// step. The trainings of the crate `snn-train` do this themselves; in a loop of your own wrap each step, from the forward pass to
/// the optimiser, or each batch that you compute.
///
/// `work` must not wait for other threads that call operations, which may need the very thread that it waits on; and no other thread may use
/// parameters that `work` moves (evaluate copies of them, in a network of their own), because Candle locks them meanwhile. Work within
/// [`exchanging`](crate::exchanging) does, and so it stays on its thread, as does all work for a GPU.
///
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let xs = Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu)?;
/// let sum = snn_core::on_workers(xs.device(), || xs.sum_all()?.to_scalar::<f32>())?;
/// assert_eq!(sum, 6.);
/// # Ok(()) }
/// ```
pub fn on_workers<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    let stays = !device.is_cpu() || crate::exchange::current().is_some();
    if stays { work() } else { rayon::scope(|_| work()) }
}

#[cfg(test)]
mod tests {
    use super::testing::in_shards;
    use super::*;

    #[test]
    fn work_goes_to_the_workers_but_for_shards_that_wait_for_each_other() -> Result<()> {
        let here = || std::thread::current().id();
        assert_ne!(here(), on_workers(&Device::Cpu, here));
        on_workers(&Device::Cpu, || assert_eq!(here(), on_workers(&Device::Cpu, here)));
        for (shard, work) in in_shards(2, |_| Ok((here(), on_workers(&Device::Cpu, here))))? {
            assert_eq!(shard, work);
        }
        Ok(())
    }
}
