use super::super::dense::Direction;
use super::super::direct::Direct;
use super::*;
use crate::ops::simd::Level;

/// Sums of some thousand terms in f32.
const BOUND: f64 = 1e-6;

/// The widths of vectors that this machine has, beside a fused multiplication and addition.
fn levels() -> Vec<Level> {
    let fuses = is_x86_feature_detected!("fma");
    let has = [
        (Level::Avx2, fuses && is_x86_feature_detected!("avx2")),
        (Level::Avx512, fuses && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")),
    ];
    has.into_iter().filter(|(_, has)| *has).map(|(level, _)| level).collect()
}

fn check(g: &Geometry, steps: usize, seed: u64) {
    let what = format!("{g:?}, {steps} steps");
    let (layer, (from, to)) = (g.layer(), g.channels);
    let rows = normal(seed, "rows", steps * g.sources() * from);
    let grad = normal(seed, "grad", steps * g.targets() * to);
    let weights = normal(seed, "weights", g.taps() * from * to);
    let wanted = Products::new(g, &rows, &weights, &grad);
    let run =
        |direction: &Direction<'_>, level, rows: &[f32], len, weight: &dyn Fn(usize, usize, usize) -> f32| {
            let mut out = vec![f32::NAN; len];
            Direct::at(level, direction, weight).run(rows, &mut out);
            out
        };
    let both = |level| {
        let forward = Direction::forward(&layer.links, g.channels);
        let out = run(&forward, level, &rows, grad.len(), &|c, tap, t| weights[g.weight_at(c, tap, t)]);
        let adjoint = Direction::backward(&layer.links, g.channels);
        let input = run(&adjoint, level, &grad, rows.len(), &|t, tap, c| weights[g.weight_at(c, tap, t)]);
        (out, input)
    };
    let all: Vec<_> = levels().into_iter().map(both).collect();
    for (out, input) in &all {
        assert_sums(&format!("{what}: product"), out, &wanted.out, BOUND);
        assert_sums(&format!("{what}: adjoint"), input, &wanted.input, BOUND);
        assert!(all[0].0 == *out && all[0].1 == *input, "{what}: the widths differ");
    }
}

#[test]
fn products_equal_the_formula_at_every_width() {
    for (i, g) in geometries().iter().enumerate() {
        check(g, 1 + i % 4, 1);
    }
}

/// Sums that are formed in several stretches, which end within a tap or with one.
#[test]
fn long_sums_equal_the_formula() {
    let halve = Geometry::conv((3, 3), 2, 1, (6, 7));
    let double = Geometry::transposed((3, 3), 2, (1, 1), (4, 3));
    for channels in [(3, 130), (64, 64), (600, 2), (2, 600)] {
        check(&Geometry { channels, ..halve }, 2, 2);
        check(&Geometry { channels, ..double }, 1, 3);
    }
}
