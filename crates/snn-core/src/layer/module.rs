//! Layers as Candle's modules, where they have that shape.

use candle_core::{Module, ModuleT, Result, Tensor};

use crate::{Drive, ReadoutLayer, SpikingLayer, SpikingNetwork, SpikingStack};

/// Spikes `[T, N, ...]` in, spikes out.
impl ModuleT for SpikingLayer {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_t(xs, train)
    }
}

/// Spikes `[T, N, ...]` in, spikes out.
impl ModuleT for SpikingStack {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(Drive::Spikes(xs), train)
    }
}

/// Spikes `[T, N, ...]` in; out what the head reads, `[N, ...]`, or the last part's spikes where there is no head.
impl ModuleT for SpikingNetwork {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        match self.head() {
            Some(_) => self.readout(Drive::Spikes(xs), train),
            None => self.forward(Drive::Spikes(xs), train),
        }
    }
}

/// Spikes `[T, N, ...]` in, their read-out `[N, ...]` out.
impl Module for ReadoutLayer {
    fn forward(&self, spikes: &Tensor) -> Result<Tensor> {
        self.forward_cat(&[spikes])
    }
}
