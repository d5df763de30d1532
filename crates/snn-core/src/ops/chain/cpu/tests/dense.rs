use super::super::dense::Direction;
use super::super::scratch::Scratch;
use super::*;

/// Sums of some thousand terms in f32.
const BOUND: f64 = 1e-6;

/// Both directions of a layer, with buffers that have seen other layers.
fn check(g: &Geometry, steps: usize, seed: u64, scratch: &mut Scratch) {
    let what = format!("{g:?}, {steps} steps");
    let (layer, (from, to)) = (g.layer(), g.channels);
    let rows = normal(seed, "rows", steps * g.sources() * from);
    let grad = normal(seed, "grad", steps * g.targets() * to);
    let weights = normal(seed, "weights", g.taps() * from * to);
    let wanted = Products::new(g, &rows, &weights, &grad);

    let direction = Direction::forward(&layer.links, g.channels);
    let packed = direction.pack(|c, tap, t| weights[g.weight_at(c, tap, t)]);
    let mut out = vec![f32::NAN; grad.len()];
    direction.run(&rows, &packed, &mut out, scratch);
    assert_sums(&format!("{what}: product"), &out, &wanted.out, BOUND);

    // It adds to what is there; unpacked by packing where each weight lies.
    let places = direction.pack(|c, tap, t| g.weight_at(c, tap, t) as f32);
    let mut into = vec![1f32; weights.len()];
    direction.weight_gradient(&rows, &grad, &mut into, scratch);
    let mut gradient = vec![f32::NAN; weights.len()];
    places.iter().zip(&into).for_each(|(&place, value)| gradient[place as usize] = value - 1.);
    assert_sums(&format!("{what}: weight gradient"), &gradient, &begun_at_one(&wanted.weight), BOUND);

    let adjoint = Direction::backward(&layer.links, g.channels);
    let packed = adjoint.pack(|t, tap, c| weights[g.weight_at(c, tap, t)]);
    let mut input = vec![f32::NAN; rows.len()];
    adjoint.run(&grad, &packed, &mut input, scratch);
    assert_sums(&format!("{what}: adjoint"), &input, &wanted.input, BOUND);

    // <W x, y> = <x, W' y>, as a part of the size of all the terms that the two are sums of.
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (left, right) = (dot(&out, &grad), dot(&rows, &input));
    let size: f64 = wanted.out.iter().zip(&grad).map(|(sum, g)| sum.1 * f64::from(g.abs())).sum();
    assert!((left - right).abs() <= BOUND * size, "{what}: {left} and {right} of {size}");
}

#[test]
fn products_equal_the_formula() {
    let mut scratch = Scratch::default();
    for (i, g) in geometries().iter().enumerate() {
        check(g, 1 + i % 4, 1, &mut scratch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn products_equal_the_formula_at_random(
        first in geometry(),
        second in geometry(),
        steps in 1usize..=5,
        seed: u64,
    ) {
        let mut scratch = Scratch::default();
        check(&first, steps, seed, &mut scratch);
        check(&second, 6 - steps, seed, &mut scratch);
    }
}
