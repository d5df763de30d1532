//! How exactly a GPU multiplies.

use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::{Result, Tensor, bail};

use crate::Error;

/// How exactly NVIDIA's GPUs compute the products of convolutions and linear layers in f32, those of their gradients too.
///
/// Operands are rounded, and with [`Bf16`](Self::Bf16) the products as well; the tensors that hold weights, potentials, statistics and losses are f32
/// always. A spike, which is 0 or 1, is exact in all three. Candle's other matrix products, such as Muon's, are in TF32 unless this is
/// [`F32`](Self::F32). On other devices, and in f64, nothing is rounded whatever this says.
///
/// # Examples
/// ```
/// use snn_core::Precision;
/// let precision: Precision = "f32".parse()?;
/// precision.use_everywhere()?;
/// assert_eq!(Precision::in_use(), Precision::F32);
/// assert!(cfg!(feature = "cudnn") || Precision::Bf16.use_everywhere().is_err());
/// # Ok::<(), snn_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Precision {
    /// Operands and sums in f32, with mantissas of 24 bits.
    #[default]
    F32,
    /// Operands rounded to mantissas of 11 bits, sums in f32.
    Tf32,
    /// Operands and results rounded to mantissas of 8 bits (bfloat16), sums in f32. It needs the feature `cudnn`.
    Bf16,
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

static IN_USE: AtomicU8 = AtomicU8::new(Precision::F32 as u8);

impl Precision {
    /// Returns the precision of this program's products.
    #[must_use]
    pub fn in_use() -> Self {
        ALL[usize::from(IN_USE.load(Ordering::Relaxed))]
    }

    /// Sets the precision of all products of this program, Candle's own matrix products included.
    ///
    /// # Errors
    /// Returns an error if this was built without what computes it: the feature `cuda`, or `cudnn` for [`Bf16`](Self::Bf16).
    pub fn use_everywhere(self) -> Result<()> {
        let (there, feature) = match self {
            Self::F32 => (true, ""),
            Self::Tf32 => (cfg!(feature = "cuda"), "cuda"),
            Self::Bf16 => (cfg!(feature = "cudnn"), "cudnn"),
        };
        if !there {
            bail!("precision {}: this was built without the feature `{feature}`", self.name());
        }
        #[cfg(feature = "cuda")]
        candle_core::cuda_backend::set_gemm_reduced_precision_f32(self != Self::F32);
        IN_USE.store(self as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Returns its name: `f32`, `tf32` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> std::result::Result<Self, Error> {
        let named = ALL.into_iter().find(|precision| precision.name() == name);
        named.ok_or_else(|| Error::config("precision", name, "must be f32, tf32 or bf16"))
    }
}

/// `x y`, differentiable, in the precision in use.
pub(crate) fn product(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if rounds(x) {
        let [x, y] = [x, y].map(|operand| operand.to_dtype(candle_core::DType::BF16));
        return x?.matmul(&y?)?.to_dtype(candle_core::DType::F32);
    }
    x.matmul(y)
}

/// Whether products of this tensor are those of bfloat16.
#[cfg(feature = "cudnn")]
fn rounds(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == candle_core::DType::F32 && Precision::in_use() == Precision::Bf16
}
