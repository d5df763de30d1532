//! An SDID laid out for sampling: it computes the receptive field of the positions that are asked for, and nothing else.

use candle_core::Tensor;
use snn_core::{PreparedStack, PreparedTokenStack, ReadoutLayer};

use crate::input::Input;
use crate::{LogitsAt, NoisyCodes, Result, Sdid};

/// See the module.
pub(crate) struct Prepared<'a> {
    sdid: &'a Sdid,
    stack: Layers,
    head: ReadoutLayer,
}

/// The spiking layers, by what the first of them reads.
enum Layers {
    OnNumbers(PreparedStack),
    OnTokens(PreparedTokenStack),
}

impl<'a> Prepared<'a> {
    /// With thresholds so many times as high as those that were trained.
    pub(crate) fn new(sdid: &'a Sdid, threshold_scale: Option<f64>) -> candle_core::Result<Self> {
        let (h, w) = (sdid.cfg.height, sdid.cfg.width);
        let scaled = threshold_scale.map(|scale| sdid.stack.with_threshold_scale(scale)).transpose()?;
        let stack = scaled.as_ref().unwrap_or(&sdid.stack);
        let stack = match &sdid.input {
            Input::Raw => Layers::OnNumbers(stack.prepare(&[sdid.input_channels, h, w])?),
            Input::Embedding { embedding, .. } => {
                Layers::OnTokens(stack.prepare_on_tokens(embedding, (h, w))?)
            }
        };
        Ok(Self { sdid, stack, head: sdid.head.detached() })
    }
}

impl LogitsAt for Prepared<'_> {
    fn logits_at(&self, noisy: &NoisyCodes<'_>, positions: &[Vec<u32>]) -> Result<Tensor> {
        let (Sdid { cfg, input, read, .. }, head) = (self.sdid, &self.head);
        let (seen, readout) = (head.reach((cfg.height, cfg.width), positions)?, head.readout());
        let sums = match &self.stack {
            Layers::OnNumbers(stack) => {
                let current = self.sdid.current(noisy)?;
                stack.readout_of_at(self.sdid.drive(&current), readout, read, &seen)?
            }
            Layers::OnTokens(stack) => {
                self.sdid.check(noisy)?;
                let of_image = input.of_image(noisy)?;
                stack.readout_of_at(noisy.h_t, &of_image, cfg.time_steps, readout, read, &seen)?
            }
        };
        Ok(head.forward_sums_at(&[sums], cfg.time_steps, positions)?)
    }
}
