//! What the spiking denoiser sees: tokens, diffusion time and class as one current.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use snn_core::TokenEmbedding;

use crate::{NoisyCodes, SdidConfig, TokenInput};

/// Tokens, diffusion time and class to `[N, channels, H', W']`.
#[derive(Debug)]
pub(crate) enum Input {
    Raw,
    Embedding { embedding: TokenEmbedding, classes: Option<usize> },
}

impl Input {
    /// And the number of channels.
    pub(crate) fn new(cfg: &SdidConfig, vb: &VarBuilder<'_>) -> Result<(Self, usize)> {
        let TokenInput::Embedding { dim } = cfg.token_input else { return Ok((Self::Raw, 2)) };
        let table = |name: &str, rows: usize| {
            vb.get_with_hints((rows, dim), &format!("{name}.weight"), Init::Randn { mean: 0., stdev: 1. })
        };
        let (token, position) = (table("token", cfg.codes + 1)?, table("position", cfg.height * cfg.width)?);
        let mut of_item = vec![table("time", cfg.steps + 1)?];
        if let Some(classes) = cfg.classes {
            of_item.push(table("class", classes + 1)?);
        }
        let embedding = TokenEmbedding::new(token, position, of_item)?;
        Ok((Self::Embedding { embedding, classes: cfg.classes }, dim))
    }

    pub(crate) fn forward(&self, noisy: &NoisyCodes<'_>, dtype: DType) -> Result<Tensor> {
        let NoisyCodes { h_t, t, .. } = noisy;
        match self {
            Self::Raw => {
                let t = t.reshape((t.dim(0)?, 1, 1))?.broadcast_as(h_t.dims())?;
                Tensor::stack(&[*h_t, &t], 1)?.to_dtype(dtype)
            }
            Self::Embedding { embedding, .. } => embedding.forward(h_t, &self.of_image(noisy)?),
        }
    }

    /// What is looked up for a whole image: the time and, where there are classes, its own, or that which says that it has none.
    pub(crate) fn of_image(&self, NoisyCodes { t, classes, .. }: &NoisyCodes<'_>) -> Result<Vec<Tensor>> {
        let mut all = vec![(*t).clone()];
        if let Self::Embedding { classes: Some(known), .. } = self {
            let none = || Tensor::full(*known as u32, t.dims(), t.device());
            all.push(classes.map_or_else(none, |classes| Ok(classes.clone()))?);
        }
        Ok(all)
    }
}
