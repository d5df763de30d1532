use super::super::scratch::Scratch;
use super::super::winograd::Winograd;
use super::*;

/// Of up to 64 source channels; measured: 4.2e-5 (5x9), 3.6e-5 (7x7 and 14x14), 2e-6 where tiles are of 4x4.
const BOUND: f64 = 5e-5;
/// The products at the points are sums over the source channels, and so their rounding grows with these. Measured:
/// 6.2e-5 of 128 channels, 5.4e-5 of 256, 8.0e-5 of 512 (all 7x7).
const WIDE_BOUND: f64 = 1e-4;
/// Of the filter's norm, for the single position where it is worst; measured: 9.4e-5. 2.6e-5 over all positions.
const WORST_BOUND: f64 = 2e-4;
const MAPS: [(usize, usize); 9] =
    [(1, 1), (4, 4), (5, 9), (7, 7), (8, 8), (14, 14), (28, 28), (1, 15), (13, 2)];

fn geometry_of(map: (usize, usize), channels: (usize, usize)) -> Geometry {
    Geometry { channels, ..Geometry::conv((3, 3), 1, 1, map) }
}

fn winograd(g: &Geometry, weights: &[f32]) -> Winograd {
    Winograd::new(g.source, g.channels, |c, tap, t| weights[g.weight_at(c, tap, t)])
}

fn run(g: &Geometry, weights: &[f32], rows: &[f32], scratch: &mut Scratch) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.len() / g.channels.0 * g.channels.1];
    winograd(g, weights).run(rows, &mut out, scratch);
    out
}

/// `|got - wanted| / |wanted|`
fn relative(got: &[f32], wanted: &Sums) -> f64 {
    let itself = wanted.iter().map(|w| (w.0, w.0)).collect();
    distance(got, &itself)
}

#[test]
fn equals_the_plain_product() {
    let mut scratch = Scratch::default();
    for map in MAPS {
        for (channels, maps) in [
            ((16, 16), 1),
            ((33, 17), 3),
            ((3, 40), 2),
            ((64, 32), 1),
            ((128, 16), 1),
            ((256, 16), 1),
            ((512, 64), 1),
        ] {
            let g = geometry_of(map, channels);
            let weights = normal(1, "weights", 9 * channels.0 * channels.1);
            let rows = normal(2, "rows", maps * g.sources() * channels.0);
            let none = vec![0.; maps * g.targets() * channels.1];
            let wanted = Products::new(&g, &rows, &weights, &none).out;
            let error = relative(&run(&g, &weights, &rows, &mut scratch), &wanted);
            let bound = if channels.0 > 64 { WIDE_BOUND } else { BOUND };
            assert!(error < bound, "{g:?}, {maps} maps: {error:e}");
        }
    }
}

#[test]
fn a_single_one_gives_the_filter() {
    let mut scratch = Scratch::default();
    for map in MAPS {
        let g = geometry_of(map, (2, 3));
        let weights = normal(3, "weights", 9 * 2 * 3);
        let (mut all, mut all_wanted) = (Vec::new(), Vec::new());
        let triples = g.triples();
        for position in 0..g.sources() {
            let (mut rows, channel) = (vec![0f32; g.sources() * 2], position % 2);
            rows[position * 2 + channel] = 1.;
            let out = run(&g, &weights, &rows, &mut scratch);
            let mut wanted = vec![(0., 0.); out.len()];
            for (_, tap, p) in triples.iter().filter(|(q, ..)| *q == position) {
                (0..3).for_each(|t| wanted[p * 3 + t].0 = f64::from(weights[g.weight_at(channel, *tap, t)]));
            }
            let filter = (0..9 * 3).map(|i| f64::from(weights[g.weight_at(channel, i / 3, i % 3)]));
            let norm = filter.map(|w| w * w).sum::<f64>().sqrt();
            let sized = wanted.iter().map(|w| (w.0, norm / (out.len() as f64).sqrt())).collect();
            let worst = distance(&out, &sized);
            assert!(worst < WORST_BOUND, "{map:?}, one at {position}: {worst:e}");
            all.extend(out);
            all_wanted.extend(wanted);
        }
        let error = relative(&all, &all_wanted);
        assert!(error < BOUND, "{map:?}: {error:e}");
    }
}

#[test]
fn a_filter_of_a_single_one_moves_the_map() {
    let mut scratch = Scratch::default();
    for map in MAPS {
        let g = geometry_of(map, (2, 2));
        let rows = normal(4, "rows", g.sources() * 2);
        for tap in 0..9 {
            let mut weights = vec![0f32; 9 * 2 * 2];
            weights[g.weight_at(0, tap, 1)] = 1.;
            weights[g.weight_at(1, tap, 0)] = 1.;
            let out = run(&g, &weights, &rows, &mut scratch);
            let wanted = Products::new(&g, &rows, &weights, &vec![0.; out.len()]).out;
            // A narrow map shows some taps nothing: noise is a part of what moved, not of what is left of it.
            let of_rows = wanted.iter().zip(&rows).map(|(w, x)| (w.0, f64::from(*x))).collect();
            let error = distance(&out, &of_rows);
            assert!(error < BOUND, "{map:?}, tap {tap}: {error:e}");
        }
    }
}

#[test]
fn a_map_does_not_depend_on_its_neighbours() {
    let mut scratch = Scratch::default();
    for map in MAPS {
        let g = geometry_of(map, (17, 16));
        let weights = normal(5, "weights", 9 * 17 * 16);
        let size = g.sources() * 17;
        let rows = normal(6, "rows", 3 * size);
        let all = run(&g, &weights, &rows, &mut scratch);
        for (n, (rows, all)) in rows.chunks_exact(size).zip(all.chunks_exact(g.targets() * 16)).enumerate() {
            let alone = run(&g, &weights, rows, &mut scratch);
            let wanted = all.iter().map(|&x| (f64::from(x), f64::from(x))).collect();
            assert_sums(&format!("{map:?}, map {n}"), &alone, &wanted, BOUND);
        }
    }
    assert!(winograd(&geometry_of((7, 7), (1, 1)), &[0.; 9]).maps_a_block() >= 1);
}
