//! The three products of a layer, whichever kernel they go through, block by block.

use super::super::adjoint::Adjoint;
use super::super::events::{Events, Signal};
use super::super::gradient::WeightGradient;
use super::super::layer::sparse_events;
use super::super::memory::Workspace;
use super::*;

/// Matrix products and additions.
const BOUND: f64 = 1e-6;
/// Winograd's filtering, as a part of the terms' size: less than of the result.
const WINOGRAD_BOUND: f64 = 5e-6;

/// One item of a batch.
enum Item {
    Spikes(f64),
    Numbers,
}

impl Item {
    fn draw(&self, g: &Geometry, steps: usize, seed: u64) -> (Vec<f32>, Signal) {
        let len = steps * g.sources() * g.channels.0;
        match self {
            Self::Spikes(density) => {
                let spikes = bits(seed, len, *density);
                (as_f32(&spikes), Signal::Events(Events::pack(&spikes, g.sources(), g.channels.0)))
            }
            Self::Numbers => {
                let rows = normal(seed, "rows", len);
                (rows.clone(), Signal::Dense(rows))
            }
        }
    }
}

/// Adds `b` to `a`.
fn add(a: &mut Sums, b: &Sums) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = (a.0 + b.0, a.1 + b.1));
}

fn check(g: &Geometry, items: &[Item], steps: usize) {
    let (layer, mut workspace) = (g.layer(), Workspace::default());
    let weights = normal(1, "weights", g.taps() * g.channels.0 * g.channels.1);
    let (packed, adjoint) = (layer.pack((&weights[..]).into()), Adjoint::new(&layer, &weights));
    let is_winograd = matches!(adjoint, Adjoint::Winograd(_));
    let small = g.channels.0.min(g.channels.1) < 16;
    let same = g.kind == Kind::Conv && g.kernel == (3, 3) && (g.cfg.stride, g.cfg.padding) == (1, 1);
    assert_eq!(is_winograd, same && !small, "{g:?}");

    let mut total = WeightGradient::zeros(&layer);
    let mut wanted_total = vec![(0., 0.); weights.len()];
    for (n, item) in items.iter().enumerate() {
        let what = format!("{g:?}, item {n}, {steps} steps");
        let (rows, signal) = item.draw(g, steps, n as u64);
        let grad = normal(n as u64, "grad", steps * layer.neurons());
        let wanted = Products::new(g, &rows, &weights, &grad);

        let mut out = vec![f32::NAN; grad.len()];
        packed.currents(&layer, &layer.links, &signal, &mut out, &mut workspace);
        assert_sums(&format!("{what}: currents"), &out, &wanted.out, BOUND);

        let mut input = vec![f32::NAN; rows.len()];
        adjoint.run(&grad, &mut input, &mut workspace.dense);
        let bound = if is_winograd { WINOGRAD_BOUND } else { BOUND };
        assert_sums(&format!("{what}: input gradient"), &input, &wanted.input, bound);

        // Every item its own sum, merged in their order.
        let mut gradient = WeightGradient::zeros(&layer);
        gradient.add(&signal, &grad, &mut workspace);
        total = total.merge(gradient);
        add(&mut wanted_total, &wanted.weight);
    }
    let mut got = vec![0f32; weights.len()];
    total.write(&mut got);
    assert_sums(&format!("{g:?}: weight gradient"), &got, &wanted_total, BOUND);
}

#[test]
fn products_equal_the_formula() {
    for (i, g) in geometries().iter().enumerate() {
        let items = [Item::Spikes(0.1), Item::Numbers, Item::Spikes(0.5), Item::Spikes(0.)];
        check(g, &items, 1 + i % 4);
    }
}

/// More time steps than a block has, and a short last block, for all three products.
#[test]
fn products_equal_the_formula_over_several_blocks() {
    for channels in [(17, 33), (33, 16)] {
        for (g, steps) in [
            (Geometry::conv((3, 3), 1, 1, (7, 7)), 19),
            (Geometry::conv((3, 3), 2, 1, (28, 28)), 5),
            (Geometry::transposed((3, 3), 2, (1, 1), (7, 7)), 5),
            (Geometry::conv((1, 1), 1, 0, (1, 1)), 405),
        ] {
            check(&Geometry { channels, ..g }, &[Item::Spikes(0.1), Item::Spikes(0.9), Item::Numbers], steps);
        }
    }
}

#[test]
fn one_item_adds_to_another() {
    let g = Geometry { channels: (5, 18), ..Geometry::conv((3, 3), 1, 1, (4, 5)) };
    let (layer, mut workspace) = (g.layer(), Workspace::default());
    let weights = normal(1, "weights", 9 * 5 * 18);
    let mut wanted = vec![(0., 0.); weights.len()];
    // Lengths that differ, so that nothing of the geometry may be kept from one item for the next.
    let mut gradient = WeightGradient::zeros(&layer);
    for (n, (item, steps)) in
        [(Item::Spikes(0.2), 3), (Item::Numbers, 2), (Item::Spikes(0.2), 40), (Item::Spikes(0.8), 1)]
            .iter()
            .enumerate()
    {
        let (rows, signal) = item.draw(&g, *steps, n as u64);
        let grad = normal(n as u64, "grad", steps * layer.neurons());
        add(&mut wanted, &Products::new(&g, &rows, &weights, &grad).weight);
        gradient.add(&signal, &grad, &mut workspace);
    }
    let mut got = vec![0f32; weights.len()];
    gradient.write(&mut got);
    assert_sums("weight gradient", &got, &wanted, BOUND);
}

#[test]
fn only_few_spikes_are_events() {
    let g = Geometry { channels: (10, 1), ..Geometry::conv((1, 1), 1, 0, (10, 10)) };
    let is_sparse = |item: Item| sparse_events(&item.draw(&g, 2, 1).1, 0.5).is_some();
    assert!(is_sparse(Item::Spikes(0.)) && is_sparse(Item::Spikes(0.1)));
    assert!(!is_sparse(Item::Spikes(0.6)) && !is_sparse(Item::Spikes(1.)) && !is_sparse(Item::Numbers));
}
