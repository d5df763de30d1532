//! How a residual block joins what went round it and what went through it.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// Joins the two branches of a residual block, `y = g(f(x), x)`: the spike-element-wise (SEW) function of Fang et al. 2021.
///
/// `x` is the skip branch, `f(x)` the output of the block's layers. SpikingJelly's argument `cnf` is the same choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SewFunction {
    /// `f(x) + x`: counts of spikes, which may exceed 1.
    Add,
    /// `f(x) x`: a spike where both have one.
    And,
    /// `(1 - f(x)) x`: the spikes of `x` but for those that `f(x)` has too.
    Iand,
}

impl SewFunction {
    /// Joins both; differentiable in both.
    ///
    /// # Shapes
    /// `through` and `round` of any shape, the same for both -> that shape.
    /// # Errors
    /// Returns an error if shapes or element types differ.
    /// # Examples
    /// ```
    /// # use candle_core::{Device, Tensor};
    /// # use snn_core::SewFunction;
    /// # fn main() -> candle_core::Result<()> {
    /// let (f, x) = (Tensor::new(&[0f32, 1., 1.], &Device::Cpu)?, Tensor::new(&[1f32, 0., 1.], &Device::Cpu)?);
    /// assert_eq!(SewFunction::Add.join(&f, &x)?.to_vec1::<f32>()?, [1., 1., 2.]);
    /// assert_eq!(SewFunction::Iand.join(&f, &x)?.to_vec1::<f32>()?, [1., 0., 0.]);
    /// # Ok(()) }
    /// ```
    pub fn join(self, through: &Tensor, round: &Tensor) -> Result<Tensor> {
        match self {
            Self::Add => through + round,
            Self::And => through * round,
            Self::Iand => round * (1. - through)?,
        }
    }
}
