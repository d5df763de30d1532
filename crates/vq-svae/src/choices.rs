//! Where VQ-SVAEs differ: one choice each.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Says how the decoder's gradient gets past the nearest code (Eq. 7), which has no derivative: by the straight-through estimator the gradient
/// of one tensor is copied to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StraightThrough {
    /// From the generator's spikes `z^Q_{1:T}` to the encoder's `z^E_{1:T}` (the paper's text).
    ///
    /// The decoder's gradient then passes *around* the adaptive spike generator (ASG), which learns from its own term of the loss
    /// alone, while the codebook learns from the dense and the ASG term.
    Spikes,
    /// From the embedding `z^Q` to `z^E`, in front of the adaptive spike generator (the released code).
    Embedding,
}

/// How each term of the loss, Eq. 9, becomes one number from its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Every term is a mean over all its elements; the reconstruction term is a mean squared error.
    Mean,
    /// As printed in the paper, every term is a sum over one image's elements, averaged over the batch; the reconstruction term
    /// is a norm, not squared.
    Sum,
}

/// The form of the second term of Eq. 9, which ties `z^E` and `z^Q` together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DenseTerm {
    /// `|z^E - z^Q|^2`, which pulls on both alike (the paper's text).
    Unbalanced,
    /// `|z^Q - sg z^E|^2 + commitment |z^E - sg z^Q|^2`, where `sg` stops the gradient (the released code).
    Balanced {
        /// Weight of the encoder's share.
        commitment: f64,
    },
}

/// What the reconstruction term is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reconstruction {
    /// It is not divided (the paper's text).
    Plain,
    /// It is divided by the variance of the training pixels (the released code).
    OverVariance {
        /// The variance of the training pixels; MNIST's is 0.0949.
        variance: f64,
    },
}

/// How the read-out `x` of the decoder's last layer becomes pixels, which lie in [-0.5, 0.5].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `tanh x` (the released code). Black and white, at -0.5 and 0.5, lie on its slope, and so come out a little off.
    #[default]
    Tanh,
    /// `tanh x`, clamped to the pixels' range (our own): what lies beyond black is black, and no longer counts as an error. The
    /// gradient goes straight through the clamp, so that a pixel on the wrong side can come back. See
    /// [`margin`](crate::VqSvaeConfig::margin), too.
    ClampedTanh,
    /// `x` itself (the VQ-VAE of the released code).
    Linear,
}

impl Activation {
    /// Pixels, of which a clamp leaves `margin` beyond black and white.
    pub(crate) fn pixels(self, x: &Tensor, margin: f64) -> candle_core::Result<Tensor> {
        match self {
            Self::Tanh => x.tanh(),
            Self::ClampedTanh => {
                let wide = x.tanh()?;
                wide.clamp(-0.5 - margin, 0.5 + margin)?.detach() + (&wide - wide.detach())?
            }
            Self::Linear => Ok(x.clone()),
        }
    }
}

/// A network without spikes, for a spiking one to be compared with. It has one time step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutSpikes {
    /// The twin of the spiking network (ours): ReLU instead of every neuron, and all else as it is.
    Twin,
    /// The VQ-VAE of the released code: convolutions without a norm, ReLU behind all but the encoder's last and the decoder's last, and no
    /// spike generator, so that the decoder reads the code vectors. Its loss has the first two terms of Eq. 9.
    VqVae,
}
