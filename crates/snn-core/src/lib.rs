//! Spiking neurons, surrogate gradients and spiking layers for Candle.

mod rng;

pub use rng::Seed;
