//! The dense product backward: from the gradient of a layer's currents to that of its input.

use std::borrow::Cow;

use super::dense::Direction;
#[cfg(target_arch = "x86_64")]
use super::direct::Direct;
use super::layer::{FORWARD_ROWS, Layer};
use super::scratch::Scratch;
use super::winograd::Winograd;
use crate::geometry::Kind;

/// The weights of a layer's input gradient.
pub(super) enum Adjoint<'a> {
    Winograd(Winograd),
    #[cfg(target_arch = "x86_64")]
    Direct(Direct),
    Product(Direction<'a>, Cow<'a, [f32]>),
}

impl<'a> Adjoint<'a> {
    pub(super) fn new(layer: &'a Layer, weights: &'a [f32]) -> Self {
        let (source, target) = layer.channels;
        match layer.links.same_3x3 {
            Some(map) if source.min(target) >= 16 => {
                Self::Winograd(Winograd::new(map, (target, source), |t, tap, c| {
                    // The adjoint turns the filter round.
                    weights[layer.weight_index(c, 8 - tap, t)]
                }))
            }
            _ => {
                let direction = Direction::backward(&layer.links, layer.channels);
                let weight = |t: usize, tap: usize, c: usize| weights[layer.weight_index(c, tap, t)];
                #[cfg(target_arch = "x86_64")]
                if let Some(direct) = Direct::new(&direction, weight) {
                    return Self::Direct(direct);
                }
                let packed = || direction.pack(weight);
                // The weights of a single tap already lie as the product reads them.
                let as_it_is = layer.links.kind == Kind::Conv && layer.links.taps == 1;
                let weights = if as_it_is { Cow::Borrowed(weights) } else { Cow::Owned(packed()) };
                Self::Product(direction, weights)
            }
        }
    }

    /// Time steps that [`run`](Self::run) is best called with.
    pub(super) fn block(&self, targets: usize) -> usize {
        match self {
            Self::Winograd(winograd) => winograd.maps_a_block(),
            _ => (FORWARD_ROWS / targets).max(1),
        }
    }

    /// Whether [`run`](Self::run) is as fast with any number of time steps.
    pub(super) fn takes_any_block(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let any = matches!(self, Self::Direct(_));
        #[cfg(not(target_arch = "x86_64"))]
        let any = false;
        any
    }

    /// From the gradient of the currents to that of the layer's input.
    pub(super) fn run(&self, grads: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        match self {
            Self::Winograd(winograd) => winograd.run(grads, out, scratch),
            #[cfg(target_arch = "x86_64")]
            Self::Direct(direct) => direct.run(grads, out),
            Self::Product(direction, weights) => direction.run(grads, weights, out, scratch),
        }
    }
}
