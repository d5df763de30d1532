//! Every kernel against its CPU op, on the host. `scripts/check-cuda` runs these with sanitizers.

mod conv;
#[cfg(feature = "cuda")]
mod device;
mod host;
mod lif;
mod nearest;
mod norm;
mod norm_lif;
mod plif;
mod psp;
mod refused;
mod runner;
mod sums;

use candle_core::Tensor;

use super::launch::Launch;
use super::source::programs;
use crate::ops::Real;
use crate::ops::testing::{assert_identical, assert_relative};

/// What a launch must leave: `(operand, wanted, bound)`; a bound of 0 asks for the same numbers.
type Wanted = Vec<(usize, Tensor, f64)>;

/// Launches and what they must leave.
struct Cases<F> {
    launches: Vec<(Launch, Vec<Vec<u8>>)>,
    wanted: Vec<(String, Wanted)>,
    element: std::marker::PhantomData<F>,
}

impl<F: Real> Cases<F> {
    fn new() -> Self {
        Self { launches: Vec::new(), wanted: Vec::new(), element: std::marker::PhantomData }
    }

    /// An operand that a kernel must fill itself: NaN until then.
    fn empty(elements: usize) -> Vec<u8> {
        vec![0xff; elements * F::DTYPE.size_in_bytes()]
    }

    /// The launch as it is, and with a grid of two and of one, which is too small for most shapes.
    fn add(&mut self, what: &str, launch: Launch, operands: Vec<Vec<u8>>, wanted: Wanted) {
        assert!(programs().any(|file| file == launch.file), "{}", launch.file);
        for grid in [launch.grid, 2, 1] {
            if grid <= launch.grid {
                self.launches.push((Launch { grid, ..launch.clone() }, operands.clone()));
                self.wanted.push((format!("{what}, grid {grid}"), wanted.clone()));
            }
        }
    }

    fn check(self) {
        let Some(results) = host::run(&self.launches) else { return };
        for (left, (what, wanted)) in results.iter().zip(&self.wanted) {
            for (i, wanted, bound) in wanted {
                let what = format!("{what}, operand {i}");
                let got = host::tensor::<F>(&left[*i], wanted.dims()).expect(&what);
                if *bound == 0. {
                    assert_identical(&what, &got, wanted);
                } else {
                    assert_relative(&what, &got, wanted, *bound);
                }
            }
        }
    }
}

/// `[T, N]`: one of each, odd ones, more neurons than a block and than a small grid, and some at random.
fn shapes() -> Vec<[usize; 2]> {
    use rand::Rng as _;
    let mut rng = crate::Seed(17).rng("cuda shapes");
    let mut shapes = vec![[1, 1], [16, 1], [1, 129], [3, 300], [16, 77]];
    shapes.extend((0..3).map(|_| [rng.random_range(1..20), rng.random_range(1..400)]));
    shapes
}
