//! What the spiking denoiser sees: tokens, diffusion time and class as one current.

use candle_core::{DType, Tensor};
use candle_nn::{Init, VarBuilder};
use snn_core::embedding;

use crate::{SdidConfig, TokenInput};

/// Tokens, diffusion time and class to `[N, channels, H', W']`.
#[derive(Debug)]
pub(crate) enum Input {
    Raw,
    Embedding { token: Tensor, position: Tensor, time: Tensor, class: Option<Tensor> },
}

impl Input {
    /// And the number of channels.
    pub(crate) fn new(cfg: &SdidConfig, vb: &VarBuilder<'_>) -> candle_core::Result<(Self, usize)> {
        let TokenInput::Embedding { dim } = cfg.token_input else { return Ok((Self::Raw, 2)) };
        let table = |name: &str, rows: usize| {
            vb.get_with_hints((rows, dim), &format!("{name}.weight"), Init::Randn { mean: 0., stdev: 1. })
        };
        let token = table("token", cfg.codes + 1)?;
        let position = table("position", cfg.height * cfg.width)?;
        let time = table("time", cfg.steps + 1)?;
        let class = cfg.classes.map(|classes| table("class", classes + 1)).transpose()?;
        Ok((Self::Embedding { token, position, time, class }, dim))
    }

    /// `classes: u32 [N]`; none of them has a class if there are none.
    pub(crate) fn forward(
        &self,
        h_t: &Tensor,
        t: &Tensor,
        classes: Option<&Tensor>,
        dtype: DType,
    ) -> candle_core::Result<Tensor> {
        let (n, h, w) = h_t.dims3()?;
        match self {
            Self::Raw => {
                let t = t.reshape((n, 1, 1))?.broadcast_as((n, h, w))?;
                Tensor::stack(&[h_t, &t], 1)?.to_dtype(dtype)
            }
            Self::Embedding { token, position, time, class } => {
                let tokens = embedding(token, &h_t.flatten_all()?)?.reshape((n, h * w, ()))?;
                let times = embedding(time, t)?.unsqueeze(1)?;
                let mut sum = tokens.broadcast_add(position)?.broadcast_add(&times)?;
                if let Some(class) = class {
                    let vectors = match classes {
                        Some(classes) => embedding(class, classes)?.unsqueeze(1)?,
                        None => class.narrow(0, class.dim(0)? - 1, 1)?.unsqueeze(0)?,
                    };
                    sum = sum.broadcast_add(&vectors)?;
                }
                sum.transpose(1, 2)?.contiguous()?.reshape((n, (), h, w))
            }
        }
    }
}
