//! What tells a running statistic from a parameter: the layer that asks for it says so.

use std::cell::Cell;

use candle_core::{Result, Shape, Var};
use candle_nn::{Init, VarBuilder};

thread_local! {
    /// Whether the tensor that is being asked for is a statistic. A [`VarBuilder`] hides its backend, and has no word for it.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Ends the question, whichever way it ends.
struct Asking;

impl Drop for Asking {
    fn drop(&mut self) {
        ASKED.set(false);
    }
}

/// Asks `vb` for a running statistic, which a layer moves itself and an optimiser must not: it is created from `init`, or
/// found if it is there already.
///
/// A [`ParamStore`](crate::ParamStore) keeps it with the parameters, and in their checkpoints, but does not count it as
/// [trainable](crate::ParamStore::trainable). This does not depend on its name: what is asked for by [`VarBuilder::get`] is a
/// parameter, whatever it is called, and no name can be both. Any other backend just returns its tensor.
///
/// # Shapes
/// The statistic has the shape `shape`.
/// # Errors
/// Returns an error if `vb` has no such tensor or has it in another shape, or if a store has a parameter of this name.
/// # Examples
/// ```
/// # use candle_core::{DType, Device};
/// # use candle_nn::Init;
/// # use snn_core::{ParamStore, Seed, statistic};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let mean = statistic(&store.builder().pp("norm"), 8, "running_mean", Init::Const(0.))?;
/// mean.set(&mean.ones_like()?)?;
/// assert_eq!((store.vars().len(), store.trainable().len()), (1, 0));
/// # Ok(()) }
/// ```
pub fn statistic(vb: &VarBuilder<'_>, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Var> {
    let shape = shape.into();
    ASKED.set(true);
    let asking = Asking;
    let found = vb.get_with_hints(shape, name, init);
    drop(asking);
    Var::from_tensor(&found?)
}

/// Whether a [`statistic`] is being asked for on this thread.
pub(crate) fn asked() -> bool {
    ASKED.get()
}
