use super::super::events::{Events, Signal};
use super::super::gradient::WeightGradient;
use super::super::linear;
use super::super::memory::{Buffer, Workspace};
use super::*;

/// The sum of a batch, against the sums of its groups, each formed item by item, one added to the other: bit by bit.
#[test]
fn a_sum_of_all_items_equals_the_sums_of_groups() {
    for (i, &(channels, items, group, steps)) in [
        ((70, 10), 5, 2, 3),
        ((300, 64), 9, 2, 4),
        ((20, 130), 3, 1, 7),
        ((257, 33), 1, 1, 1),
        ((12, 16), 2, 2, 450), // more time steps than a stretch has
    ]
    .iter()
    .enumerate()
    {
        let layer = Geometry { channels, ..Geometry::conv((1, 1), 1, 0, (1, 1)) }.layer();
        let signal = |n| {
            let spikes = bits(n as u64, steps * channels.0, if n == 1 { 0. } else { 0.15 });
            Signal::Events(Events::pack(&spikes, 1, channels.0))
        };
        let signals: Vec<_> = (0..items).map(signal).collect();
        let grads = normal(i as u64, "grads", items * steps * channels.1);
        let each = steps * channels.1;

        let mut workspace = Workspace::default();
        let mut total = WeightGradient::zeros(&layer);
        for (signals, grads) in signals.chunks(group).zip(grads.chunks(group * each)) {
            let mut gradient = WeightGradient::zeros(&layer);
            for (signal, grads) in signals.iter().zip(grads.chunks(each)) {
                gradient.add(signal, grads, &mut workspace);
            }
            total = total.merge(gradient);
        }
        let mut wanted = vec![0f32; channels.0 * channels.1];
        total.write(&mut wanted);

        let buffer = |grads: &[f32]| {
            let mut buffer = Buffer::new(grads.len());
            buffer.copy_from_slice(grads);
            buffer
        };
        let groups: Vec<_> = grads.chunks(group * each).map(buffer).collect();
        let events = linear::events(&layer, &signals).expect("few spikes");
        let mut got = vec![f32::NAN; wanted.len()];
        linear::weight_gradient(&layer, &events, &groups, group, &mut got);
        assert_eq!(got, wanted, "{channels:?}, {items} items, groups of {group}, {steps} steps");
    }
}

#[test]
fn other_layers_and_other_signals_go_by_groups() {
    let events = |spikes: &[u8]| Signal::Events(Events::pack(spikes, 1, 4));
    let linear = Geometry { channels: (4, 3), ..Geometry::conv((1, 1), 1, 0, (1, 1)) }.layer();
    let few = [events(&[0, 1, 0, 0])];
    assert!(linear::events(&linear, &few).is_some());
    assert!(linear::events(&linear, &[events(&[1, 1, 1, 0])]).is_none(), "too many spikes");
    assert!(linear::events(&linear, &[Signal::Dense(vec![0.5; 4])]).is_none());
    let transposed = Geometry { channels: (4, 3), ..Geometry::transposed((1, 1), 1, (0, 0), (1, 1)) }.layer();
    assert!(linear::events(&transposed, &few).is_none(), "whose weights lie the other way");
}

/// Tile after tile for several items, against item after item: bit by bit.
#[test]
fn currents_of_several_items_are_those_of_each() {
    for (i, &(channels, items, steps)) in
        [((70, 10), 5, 3), ((300, 64), 3, 4), ((20, 130), 2, 7), ((257, 33), 1, 450)].iter().enumerate()
    {
        let layer = Geometry { channels, ..Geometry::conv((1, 1), 1, 0, (1, 1)) }.layer();
        let weights = normal(i as u64, "weights", channels.0 * channels.1);
        let packed = layer.pack(weights.as_slice().into());
        let signal = |n| {
            let spikes = bits(n as u64, steps * channels.0, if n == 1 { 0. } else { 0.15 });
            Signal::Events(Events::pack(&spikes, 1, channels.0))
        };
        let signals: Vec<_> = (0..items).map(signal).collect();
        let mut workspace = Workspace::default();
        let all = packed.all_currents(&layer, &layer.links, &signals, steps, &mut workspace);
        assert_eq!(all.len(), items);
        for (signal, got) in signals.iter().zip(&all) {
            let mut wanted = vec![0f32; steps * channels.1];
            packed.currents(&layer, &layer.links, signal, &mut wanted, &mut workspace);
            assert_eq!(got[..], wanted[..], "{channels:?}");
        }
    }
}
