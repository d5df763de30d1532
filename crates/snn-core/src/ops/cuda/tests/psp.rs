//! Distances of spike trains: the gradients bit for bit, the sum as it rounds in another order.

use candle_core::{DType, Result, Tensor};

use super::host::{self, bytes, tensor};
use super::{Cases, shapes};
use crate::ops::Real;
use crate::ops::cuda::launch::Launch;
use crate::ops::testing::{assert_relative, random, run};
use crate::ops::time::cuda::{self, psp_gradients, psp_total};
use crate::psp_distances;

fn check<F: Real>(bound: f64) -> Result<()> {
    let (mut gradients, mut sums) = (Cases::<F>::new(), Vec::new());
    for (i, shape) in shapes().into_iter().enumerate() {
        let tau = 1. + i as f64 / 2.;
        let both = [random("a", &shape, F::DTYPE)?, random("b", &shape, F::DTYPE)?];
        let distances = |x: &[Tensor]| {
            let (first, second) = psp_distances(&x[0], &x[1], tau)?;
            Tensor::stack(&[first, second], 0)
        };
        let (wanted, [a, b]) = (run(distances, &both)?, &both);
        let upstream = random("upstream", &[2], F::DTYPE)?;
        let operands =
            vec![bytes::<F>(a), bytes::<F>(b), bytes::<F>(&upstream), Cases::<F>::empty(2 * a.elem_count())];
        let wanted_gradients = Tensor::stack(&wanted[1..], 0)?;
        gradients.add(
            &format!("{shape:?}"),
            psp_gradients::<F>(a.layout(), b.layout(), upstream.layout(), tau)?,
            operands,
            vec![(3, wanted_gradients, 0.)],
        );
        let launch = cuda::psp_distances::<F>(a.layout(), b.layout(), tau)?;
        for grid in [launch.grid, 1] {
            let parts = vec![0xff; launch.grid as usize * DType::F64.size_in_bytes()];
            let operands = vec![bytes::<F>(a), bytes::<F>(b), parts];
            sums.push(((Launch { grid, ..launch.clone() }, operands), wanted[0].clone()));
        }
    }
    gradients.check();

    let first: Vec<_> = sums.iter().map(|(launch, _)| launch.clone()).collect();
    let Some(first) = host::run(&first) else { return Ok(()) };
    let totals = first.iter().zip(&sums).map(|(left, ((launch, _), _))| {
        // The parts of the blocks that ran.
        let number = launch.grid as usize;
        let parts = left[2][..number * DType::F64.size_in_bytes()].to_vec();
        Ok((psp_total::<F>(number)?, vec![parts, Cases::<F>::empty(2)]))
    });
    let totals = totals.collect::<Result<Vec<_>>>()?;
    for (left, (_, wanted)) in host::run(&totals).unwrap().iter().zip(&sums) {
        assert_relative("distances", &tensor::<F>(&left[1], &[2])?, wanted, bound);
    }
    Ok(())
}

#[test]
fn single_precision_is_the_cpus() -> Result<()> {
    check::<f32>(1e-7)
}

#[test]
fn double_precision_is_the_cpus() -> Result<()> {
    check::<f64>(1e-14)
}
