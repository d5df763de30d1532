//! One batch in shards: how the statistics of each become those of all, whoever computes which shard.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Result;

/// Sums batch statistics over the shards of one batch, which are computed apart (on threads of a process, or on machines), so that batch
/// norm sees the whole batch: PyTorch's `SyncBatchNorm`.
///
/// In training a batch norm calls [`merge`](Self::merge) with the sums of its shard, forward and backward, as often in each shard, and gets
/// those of all shards. Mean, variance and gradients are then those of the whole batch. [`exchanging`] sets an exchange for a thread; the crate
/// `snn-train` does so in its trainings over many workers.
pub trait Exchange: Debug + Send + Sync {
    /// Waits until every shard has given its numbers, as many of each, and returns them merged, the same to all. In which
    /// order they are merged must follow from the number of shards alone.
    ///
    /// # Errors
    /// Returns an error if another shard has failed or gives something else.
    fn merge(&self, own: Vec<f64>, merge: Merge) -> Result<Vec<f64>>;

    /// Says whether this shard moves the running statistics, which the shards of one process share: one of them must.
    fn leads(&self) -> bool;
}

/// Takes the numbers of further shards into those of the shards before them.
pub type Merge = fn(&mut [f64], &[f64]);

/// The plain sum.
pub(crate) fn add(total: &mut [f64], next: &[f64]) {
    total.iter_mut().zip(next).for_each(|(total, next)| *total += next);
}

thread_local! {
    /// Who carries for what this thread computes. A forward pass has no argument for it: it runs through code of the user's own.
    static CURRENT: RefCell<Option<Arc<dyn Exchange>>> = const { RefCell::new(None) };
}

/// Puts back what was there, whichever way the work ends.
struct Before(Option<Arc<dyn Exchange>>);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Runs `work` on this thread as one shard of a batch: every training pass of a batch norm inside it takes its statistics from `exchange`.
/// The backward passes may run later, but must then run in all shards.
///
/// # Examples
/// A batch of one shard is the whole batch:
/// ```
/// # use std::sync::Arc;
/// # use candle_core::{DType, Device, Result, Tensor};
/// # use snn_core::{Exchange, LifConfig, Merge, ParamStore, Seed, SpikingLayer, exchanging};
/// #[derive(Debug)]
/// struct Alone;
///
/// impl Exchange for Alone {
///     fn merge(&self, own: Vec<f64>, _merge: Merge) -> Result<Vec<f64>> {
///         Ok(own)
///     }
///     fn leads(&self) -> bool {
///         true
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::linear(4, 8, LifConfig::default(), store.builder())?;
/// let xs = Seed(1).normal("xs", (6, 2, 4), (0., 1.), DType::F32, &Device::Cpu)?;
/// let (plain, shard) = (layer.forward_t(&xs, true)?, exchanging(Arc::new(Alone), || layer.forward_t(&xs, true))?);
/// assert_eq!(plain.flatten_all()?.to_vec1::<f32>()?, shard.flatten_all()?.to_vec1::<f32>()?);
/// # Ok(()) }
/// ```
pub fn exchanging<R>(exchange: Arc<dyn Exchange>, work: impl FnOnce() -> R) -> R {
    let _before = Before(CURRENT.replace(Some(exchange)));
    work()
}

/// Who carries for this thread.
pub(crate) fn current() -> Option<Arc<dyn Exchange>> {
    CURRENT.with_borrow(Clone::clone)
}
