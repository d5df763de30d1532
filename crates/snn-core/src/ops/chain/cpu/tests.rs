//! The kernels against plain loops over the formula.

mod dense;
#[cfg(target_arch = "x86_64")]
mod direct;
mod layer;
mod linear;
mod neuron;
mod norm;
mod sparse;
mod winograd;

use candle_core::{DType, Device};
use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::geometry::{Kind, Links, NOWHERE};
use crate::ops::chain::spec::{Scaling, Spec};
use crate::{ConvConfig, LifConfig, Seed};

/// The geometry of one layer.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    kind: Kind,
    kernel: (usize, usize),
    cfg: ConvConfig,
    /// Source and target channels.
    channels: (usize, usize),
    source: (usize, usize),
}

impl Geometry {
    fn conv(kernel: (usize, usize), stride: usize, padding: usize, source: (usize, usize)) -> Self {
        let cfg = ConvConfig::new(kernel.0, stride, padding);
        Self { kind: Kind::Conv, kernel, cfg, channels: (3, 5), source }
    }

    fn transposed(
        kernel: (usize, usize),
        stride: usize,
        (padding, output_padding): (usize, usize),
        source: (usize, usize),
    ) -> Self {
        let conv = Self::conv(kernel, stride, padding, source);
        Self { kind: Kind::Transposed, cfg: conv.cfg.with_output_padding(output_padding), ..conv }
    }

    /// Rows and columns of the output, if there are any.
    fn target(&self) -> Option<(usize, usize)> {
        let ConvConfig { stride, padding, output_padding, .. } = self.cfg;
        let len = |n: usize, k: usize| match self.kind {
            Kind::Conv => Some((n + 2 * padding).checked_sub(k)? / stride + 1),
            Kind::Transposed => {
                ((n - 1) * stride + k + output_padding).checked_sub(2 * padding).filter(|&n| n > 0)
            }
        };
        Some((len(self.source.0, self.kernel.0)?, len(self.source.1, self.kernel.1)?))
    }

    fn layer(&self) -> Layer {
        let target = self.target().expect("a geometry with an output");
        let Self { kind, kernel, cfg, channels, source } = *self;
        let geometry = crate::geometry::Geometry { kind, conv: cfg, kernel, channels, source, target };
        Layer::new(&Spec {
            geometry,
            lif: LifConfig::default(),
            learns: false,
            scaling: Scaling::Fixed,
            flattened: 1,
        })
    }

    fn sources(&self) -> usize {
        self.source.0 * self.source.1
    }

    fn targets(&self) -> usize {
        self.target().map_or(0, |(h, w)| h * w)
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Where the weight from channel `c` through a tap to channel `t` lies.
    fn weight_at(&self, c: usize, tap: usize, t: usize) -> usize {
        let (sources, targets) = self.channels;
        match self.kind {
            Kind::Conv => (t * sources + c) * self.taps() + tap,
            Kind::Transposed => (c * targets + t) * self.taps() + tap,
        }
    }

    /// All `(source position, tap, target position)` that belong together, from the formula, in ascending order.
    fn triples(&self) -> Vec<(usize, usize, usize)> {
        let ((h, w), (kh, kw), (oh, ow)) = (self.source, self.kernel, self.target().expect("an output"));
        let ConvConfig { stride, padding, .. } = self.cfg;
        let belong = |&(i, k, o): &(usize, usize, usize)| match self.kind {
            Kind::Conv => o * stride + k == i + padding,
            Kind::Transposed => i * stride + k == o + padding,
        };
        let axis = |n: usize, k: usize, out: usize| {
            let all = (0..n * k * out).map(move |i| (i / (k * out), i / out % k, i % out));
            all.filter(belong).collect::<Vec<_>>()
        };
        let (rows, columns) = (axis(h, kh, oh), axis(w, kw, ow));
        let mut triples: Vec<_> = rows
            .iter()
            .flat_map(|r| columns.iter().map(|c| (r.0 * w + c.0, r.1 * kw + c.1, r.2 * ow + c.2)))
            .collect();
        triples.sort_unstable();
        triples
    }
}

/// Sums of products, each with the sum of its terms' sizes.
type Sums = Vec<(f64, f64)>;

/// What a layer makes of `rows` (channels last), and the gradients of its input and weights, by the formula, in f64.
struct Products {
    out: Sums,
    input: Sums,
    weight: Sums,
}

impl Products {
    fn new(g: &Geometry, rows: &[f32], weights: &[f32], grad: &[f32]) -> Self {
        let (sources, targets, (from, to)) = (g.sources(), g.targets(), g.channels);
        let sums = |len: usize| vec![(0f64, 0f64); len];
        let (mut out, mut input, mut weight) = (sums(grad.len()), sums(rows.len()), sums(weights.len()));
        let add = |sum: &mut (f64, f64), a: f32, b: f32| {
            let term = f64::from(a) * f64::from(b);
            *sum = (sum.0 + term, sum.1 + term.abs());
        };
        let triples = g.triples();
        for step in 0..rows.len() / (sources * from) {
            for &(q, tap, p) in &triples {
                for c in 0..from {
                    let x = (step * sources + q) * from + c;
                    for t in 0..to {
                        let (w, y) = (g.weight_at(c, tap, t), (step * targets + p) * to + t);
                        add(&mut out[y], rows[x], weights[w]);
                        add(&mut input[x], grad[y], weights[w]);
                        add(&mut weight[w], grad[y], rows[x]);
                    }
                }
            }
        }
        Self { out, input, weight }
    }
}

/// `|got - wanted|` as a part of the size of the terms, both in the Euclidean norm.
fn distance(got: &[f32], wanted: &Sums) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance = norm(&mut got.iter().zip(wanted).map(|(g, w)| f64::from(*g) - w.0));
    let size = norm(&mut wanted.iter().map(|w| w.1));
    // Of nothing, nothing must come.
    if size == 0. { if distance == 0. { 0. } else { f64::INFINITY } } else { distance / size }
}

#[track_caller]
fn assert_sums(what: &str, got: &[f32], wanted: &Sums, bound: f64) {
    let distance = distance(got, wanted);
    assert!(distance <= bound, "{what}: relative error {distance:e}, allowed {bound:e}");
}

/// The same sums, begun at one instead of zero: that one is a term like the others, and rounds like them.
fn begun_at_one(sums: &Sums) -> Sums {
    sums.iter().map(|&(value, size)| (value, if size == 0. { 0. } else { size + 1. })).collect()
}

fn normal(seed: u64, label: &str, len: usize) -> Vec<f32> {
    let values = Seed(seed).normal(label, len, (0., 1.), DType::F32, &Device::Cpu);
    values.and_then(|values| values.to_vec1()).expect(label)
}

/// Zeros and ones, a fraction of `density` of them ones.
fn bits(seed: u64, len: usize, density: f64) -> Vec<u8> {
    let mut rng = Seed(seed).rng("bits");
    (0..len).map(|_| u8::from(rng.random::<f64>() < density)).collect()
}

fn as_f32(bits: &[u8]) -> Vec<f32> {
    bits.iter().map(|&b| f32::from(b)).collect()
}

const DENSITIES: [f64; 5] = [0., 0.01, 0.1, 0.5, 1.];
/// Below, at and above the widths of the tiles.
const CHANNELS: [usize; 7] = [1, 3, 16, 17, 33, 65, 130];

/// Every kernel, stride and padding that the strategies below draw from, and the odd ones out.
fn geometries() -> Vec<Geometry> {
    let mut all = vec![
        Geometry::conv((1, 1), 1, 0, (7, 5)),
        Geometry::conv((1, 1), 2, 0, (5, 4)),
        // As many positions in as out, and yet not the same ones.
        Geometry::conv((1, 1), 2, 1, (3, 3)),
        Geometry::conv((1, 1), 1, 1, (4, 2)),
        Geometry::conv((3, 3), 1, 1, (7, 7)),
        Geometry::conv((3, 3), 2, 1, (7, 6)),
        Geometry::conv((3, 3), 3, 2, (5, 8)),
        Geometry::conv((5, 5), 1, 2, (4, 6)),
        Geometry::conv((5, 5), 2, 0, (9, 7)),
        Geometry::conv((2, 2), 2, 0, (6, 5)),
        Geometry::conv((2, 2), 1, 1, (3, 4)),
        Geometry::conv((4, 4), 2, 1, (8, 6)),
        Geometry::conv((4, 4), 3, 2, (7, 7)),
        Geometry::conv((2, 1), 1, 0, (4, 4)),
        Geometry::conv((3, 3), 1, 1, (1, 1)),
        Geometry::transposed((1, 1), 1, (0, 0), (4, 5)),
        Geometry::transposed((1, 1), 2, (0, 1), (3, 4)),
        Geometry::transposed((1, 1), 2, (1, 0), (3, 3)),
        Geometry::transposed((3, 3), 1, (1, 0), (5, 6)),
        Geometry::transposed((3, 3), 2, (1, 1), (7, 7)),
        Geometry::transposed((3, 3), 3, (0, 2), (3, 2)),
        Geometry::transposed((5, 5), 2, (2, 1), (4, 3)),
        Geometry::transposed((2, 2), 2, (0, 0), (5, 4)),
        Geometry::transposed((4, 4), 2, (1, 0), (4, 4)),
        Geometry::transposed((4, 4), 3, (1, 2), (3, 3)),
    ];
    for (i, g) in all.iter_mut().enumerate() {
        g.channels = (CHANNELS[i % CHANNELS.len()], CHANNELS[(3 * i + 2) % CHANNELS.len()]);
    }
    all
}

/// Any geometry with an output.
fn geometry() -> impl Strategy<Value = Geometry> {
    let kernel = || prop_oneof![Just(1usize), Just(2), Just(3), Just(4), Just(5)];
    let channels = || prop::sample::select(&CHANNELS[..5]);
    let map = (1usize..=8, 1usize..=8);
    (any::<bool>(), (kernel(), kernel()), (1usize..=3, 0usize..=2, 0usize..=2), (channels(), channels()), map)
        .prop_map(|(transposed, kernel, (stride, padding, extra), channels, source)| {
            let g = match transposed {
                true => Geometry::transposed(kernel, stride, (padding, extra % stride), source),
                false => Geometry::conv(kernel, stride, padding, source),
            };
            Geometry { channels, ..g }
        })
        .prop_filter("an output", |g| g.target().is_some())
}

#[test]
fn links_are_the_formula() {
    for g in geometries() {
        let links = g.layer().links;
        let tapped = |tap: usize| links.by_tap[tap].iter().map(move |&(p, q)| (q as usize, tap, p as usize));
        let mut got: Vec<_> = (0..g.taps()).flat_map(tapped).collect();
        got.sort_unstable();
        assert_eq!(got, g.triples(), "{g:?}");
        let table = |of: &[u32], len: usize| {
            let places = of.iter().enumerate().filter(|(_, at)| **at != NOWHERE);
            places.map(|(i, &at)| (i % len, i / len, at as usize)).collect::<Vec<_>>()
        };
        let mut by_target = table(&links.source_of, g.targets());
        by_target.iter_mut().for_each(|(p, _, q)| std::mem::swap(p, q));
        by_target.sort_unstable();
        let mut by_source = table(&links.target_of, g.sources());
        by_source.sort_unstable();
        assert_eq!((by_target, by_source), (g.triples(), g.triples()), "{g:?}");
    }
}
