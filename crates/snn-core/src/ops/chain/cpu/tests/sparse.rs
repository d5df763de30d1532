use super::super::events::{ByChannel, Events};
use super::super::sparse::{by_tile, gather, target_rows, tile, weight_gradient};
use super::*;

/// Sums of some thousand terms in f32.
const BOUND: f64 = 1e-6;

/// Spikes over some time steps, of which the kernels get all but the first.
struct Case {
    g: Geometry,
    links: Links,
    events: Events,
    times: Range<usize>,
    weights: Vec<f32>,
    grad: Vec<f32>,
    wanted: Products,
}

impl Case {
    fn new(g: &Geometry, steps: usize, density: f64, seed: u64) -> Self {
        let size = g.sources() * g.channels.0;
        let spikes = bits(seed, (1 + steps) * size, density);
        let weights = normal(seed, "weights", g.taps() * g.channels.0 * g.channels.1);
        let grad = normal(seed, "grad", steps * g.targets() * g.channels.1);
        let wanted = Products::new(g, &as_f32(&spikes[size..]), &weights, &grad);
        let events = Events::pack(&spikes, g.sources(), g.channels.0);
        Self { g: *g, links: g.layer().links, events, times: 1..1 + steps, weights, grad, wanted }
    }

    /// Target channels of the tile that begins at `first`, in the lanes of a row; zeros in the lanes left over.
    fn lanes<const L: usize>(&self, first: usize, value: impl Fn(usize) -> f32) -> [f32; L] {
        let last = self.g.channels.1;
        std::array::from_fn(|i| if first + i < last { value(first + i) } else { 0. })
    }

    fn forward<const L: usize>(&self) -> Vec<f32> {
        let (rows, (from, to)) = (self.grad.len() / self.g.channels.1, self.g.channels);
        let mut out = vec![0f32; self.grad.len()];
        for first in (0..to).step_by(L) {
            let row =
                |tap: usize, c: usize| self.lanes::<L>(first, |t| self.weights[self.g.weight_at(c, tap, t)]);
            let packed: Vec<f32> = (0..self.g.taps() * from).flat_map(|i| row(i / from, i % from)).collect();
            // It adds to what is there.
            let mut tile = vec![1f32; rows * L];
            gather::<L>(&self.links, &self.events, self.times.clone(), &packed, &mut tile);
            for (out, tile) in out.chunks_exact_mut(to).zip(tile.chunks_exact(L)) {
                out.iter_mut().skip(first).zip(tile).for_each(|(o, t)| *o = t - 1.);
            }
        }
        out
    }

    fn gradient<const L: usize>(&self) -> Vec<f32> {
        let (taps, (from, to)) = (self.g.taps(), self.g.channels);
        let table = target_rows(&self.links, self.times.len());
        let mut spikes = ByChannel::default();
        self.events.by_channel(self.times.clone(), &mut spikes);
        let mut out = vec![0f32; self.weights.len()];
        for first in (0..to).step_by(L) {
            let rows = self.grad.chunks_exact(to).map(|grads| self.lanes::<L>(first, |t| grads[t]));
            let rows: Vec<f32> = rows.chain([[0.; L]]).flatten().collect();
            let mut tile = vec![1f32; from * taps * L];
            weight_gradient::<L>(taps, &spikes, &table, &rows, &mut tile);
            for (i, tile) in tile.chunks_exact(L).enumerate() {
                for (t, value) in (first..to).zip(tile) {
                    out[self.g.weight_at(i / taps, i % taps, t)] = value - 1.;
                }
            }
        }
        out
    }

    fn check(&self, what: &str) {
        let (out, gradient) =
            by_tile!(tile(self.g.channels.1), L => (self.forward::<L>(), self.gradient::<L>()));
        assert_sums(&format!("{what}: sums"), &out, &begun_at_one(&self.wanted.out), BOUND);
        assert_sums(&format!("{what}: gradient"), &gradient, &begun_at_one(&self.wanted.weight), BOUND);
    }
}

#[test]
fn kernels_equal_the_formula() {
    for (i, g) in geometries().iter().enumerate() {
        for density in DENSITIES {
            Case::new(g, 1 + i % 4, density, 1).check(&format!("{g:?}, density {density}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn kernels_equal_the_formula_at_random(
        g in geometry(),
        steps in 1usize..=5,
        density in prop::sample::select(&DENSITIES[..]),
        seed: u64,
    ) {
        Case::new(&g, steps, density, seed).check(&format!("{g:?}"));
    }
}

#[test]
fn tiles_hold_their_channels() {
    for channels in CHANNELS.into_iter().chain([32, 64]) {
        let width = tile(channels);
        assert!([16, 32, 64].contains(&width) && (width == 64 || width >= channels), "{channels}: {width}");
    }
}
