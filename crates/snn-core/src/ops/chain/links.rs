//! Which source position of a convolution reaches which target position, tap by tap.

use crate::ConvConfig;

/// Marks a tap that falls into the padding.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What kind of linear map a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Weight `[target, source, kh, kw]`.
    Conv,
    /// Weight `[source, target, kh, kw]`.
    Transposed,
}

/// The geometry of a layer. Each tap joins a source position to at most one target position, and the other way round.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) kind: Kind,
    pub(super) sources: usize,
    pub(super) targets: usize,
    pub(super) taps: usize,
    /// `(target, source)` of each tap.
    pub(super) by_tap: Vec<Vec<(u32, u32)>>,
    /// `[tap][target]` -> source or [`NOWHERE`].
    pub(super) source_of: Vec<u32>,
    /// `[tap][source]` -> target or [`NOWHERE`].
    pub(super) target_of: Vec<u32>,
    /// Whether it is a convolution of 3x3, stride 1, padding 1, and then the size of the map.
    pub(super) same_3x3: Option<(usize, usize)>,
}

impl Links {
    /// Of a layer with a map `source` in and a map `target` out.
    pub(super) fn new(
        kind: Kind,
        cfg: &ConvConfig,
        (kh, kw): (usize, usize),
        source: (usize, usize),
        target: (usize, usize),
    ) -> Self {
        // A transposed convolution is the adjoint: its output plays the image, its input the map.
        let (image, map) = if kind == Kind::Conv { (source, target) } else { (target, source) };
        let (sources, targets, taps) = (source.0 * source.1, target.0 * target.1, kh * kw);
        let mut links = Self {
            kind,
            sources,
            targets,
            taps,
            by_tap: vec![Vec::new(); taps],
            source_of: vec![NOWHERE; taps * targets],
            target_of: vec![NOWHERE; taps * sources],
            same_3x3: (kind == Kind::Conv && (kh, kw, cfg.stride, cfg.padding) == (3, 3, 1, 1))
                .then_some(source),
        };
        for tap in 0..taps {
            for at in 0..map.0 * map.1 {
                let inside = |o: usize, k: usize, len: usize| {
                    (o * cfg.stride + k).checked_sub(cfg.padding).filter(|&i| i < len)
                };
                let (y, x) = (inside(at / map.1, tap / kw, image.0), inside(at % map.1, tap % kw, image.1));
                let (Some(y), Some(x)) = (y, x) else { continue };
                let pixel = y * image.1 + x;
                let (p, q) = if kind == Kind::Conv { (at, pixel) } else { (pixel, at) };
                links.by_tap[tap].push((p as u32, q as u32));
                links.source_of[tap * targets + p] = q as u32;
                links.target_of[tap * sources + q] = p as u32;
            }
        }
        links
    }

    /// The index of a weight in the layer's own order.
    pub(super) fn weight_index(
        &self,
        channels: (usize, usize),
        source: usize,
        tap: usize,
        target: usize,
    ) -> usize {
        let row = match self.kind {
            Kind::Conv => target * channels.0 + source,
            Kind::Transposed => source * channels.1 + target,
        };
        row * self.taps + tap
    }
}
