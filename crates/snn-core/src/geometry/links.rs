//! Which source position of a convolution reaches which target position, tap by tap.

use super::{Axis, ConvConfig, Kind};

/// Marks a tap that falls into the padding.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Lists which source position of a layer reaches which target position. Each tap joins a source position to at most one
/// target position, and the other way round.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) kind: Kind,
    pub(crate) sources: usize,
    pub(crate) targets: usize,
    pub(crate) taps: usize,
    /// `(target, source)` of each tap.
    pub(crate) by_tap: Vec<Vec<(u32, u32)>>,
    /// `[tap][target]` -> source or [`NOWHERE`].
    pub(crate) source_of: Vec<u32>,
    /// `[tap][source]` -> target or [`NOWHERE`].
    pub(crate) target_of: Vec<u32>,
    /// Whether it is a convolution of 3x3, stride 1, padding 1, and then the size of the map.
    pub(crate) same_3x3: Option<(usize, usize)>,
}

impl Links {
    /// The links of a layer from a map `source` to a map `target`, in rows and columns.
    pub(crate) fn new(
        kind: Kind,
        cfg: &ConvConfig,
        (kh, kw): (usize, usize),
        source: (usize, usize),
        target: (usize, usize),
    ) -> Self {
        // A transposed convolution is the adjoint: its output plays the image, its input the map.
        let (image, map) = if kind == Kind::Conv { (source, target) } else { (target, source) };
        let ConvConfig { stride, padding, .. } = *cfg;
        let rows = Axis { image: image.0, map: map.0, kernel: kh, stride, padding };
        let columns = Axis { image: image.1, map: map.1, kernel: kw, stride, padding };
        let pairs = |tap: usize| {
            let (ys, xs) = (rows.joined(tap / kw), columns.joined(tap % kw));
            let mut pairs = Vec::with_capacity(ys.len() * xs.len());
            for y in ys {
                let row = (y * stride + tap / kw - padding) * image.1;
                pairs.extend(xs.clone().map(|x| {
                    let (at, pixel) = (y * map.1 + x, row + x * stride + tap % kw - padding);
                    let (p, q) = if kind == Kind::Conv { (at, pixel) } else { (pixel, at) };
                    (p as u32, q as u32)
                }));
            }
            pairs
        };
        let by_tap = (0..kh * kw).map(pairs).collect();
        let same = kind == Kind::Conv && (kh, kw, cfg.stride, cfg.padding) == (3, 3, 1, 1);
        let links = Self::of(kind, by_tap, source.0 * source.1, target.0 * target.1);
        Self { same_3x3: same.then_some(source), ..links }
    }

    fn of(kind: Kind, by_tap: Vec<Vec<(u32, u32)>>, sources: usize, targets: usize) -> Self {
        let taps = by_tap.len();
        let (mut source_of, mut target_of) = (vec![NOWHERE; taps * targets], vec![NOWHERE; taps * sources]);
        for (tap, pairs) in by_tap.iter().enumerate() {
            for &(p, q) in pairs {
                source_of[tap * targets + p as usize] = q;
                target_of[tap * sources + q as usize] = p;
            }
        }
        Self { kind, sources, targets, taps, by_tap, source_of, target_of, same_3x3: None }
    }

    /// The sources that reach these targets, in ascending order; at least one, so that there is always a signal.
    pub(crate) fn reaching(&self, targets: &[u32]) -> Vec<u32> {
        let mut reached = vec![false; self.sources];
        for tap in self.source_of.chunks_exact(self.targets) {
            for &p in targets {
                if let Some(reached) = reached.get_mut(tap[p as usize] as usize) {
                    *reached = true;
                }
            }
        }
        let mut sources: Vec<u32> =
            (0..).zip(&reached).filter(|(_, reached)| **reached).map(|(q, _)| q).collect();
        if sources.is_empty() {
            sources.push(0);
        }
        sources
    }

    /// The links between these sources and targets, both in ascending order and numbered anew.
    pub(crate) fn part(&self, sources: &[u32], targets: &[u32]) -> Self {
        let numbers = |positions: &[u32], all: usize| {
            let mut numbers = vec![NOWHERE; all];
            (0..).zip(positions).for_each(|(i, &position)| numbers[position as usize] = i);
            numbers
        };
        let (q_of, p_of) = (numbers(sources, self.sources), numbers(targets, self.targets));
        let renumber = |&(p, q): &(u32, u32)| (p_of[p as usize], q_of[q as usize]);
        let known = |&(p, q): &(u32, u32)| p != NOWHERE && q != NOWHERE;
        let taps = self.by_tap.iter().map(|pairs| pairs.iter().map(renumber).filter(known).collect());
        Self::of(self.kind, taps.collect(), sources.len(), targets.len())
    }

    /// The index of a weight in the layer's own order.
    pub(crate) fn weight_index(
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
