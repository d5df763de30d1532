//! Operations along the time axis: weighted sums, and the distance of two spike trains by their postsynaptic potentials.
//!
//! Candle would make a dozen passes and tensors of each; these make one.

mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::backend::Backend;
#[cfg(feature = "cuda")]
use super::cuda::gpu::by_element;
use super::{Real, by_dtype, columns, operand};

/// Neurons a task: constant, so that sums are formed alike on any number of threads.
const CHUNK: usize = 1024;

/// `ys[r] = sum_t weights[r][t] xs[t]`; `xs: [T, ...]` where there is a kernel, each row of `T` weights -> `[rows, ...]`.
pub(crate) fn weighted_sums(xs: &Tensor, weights: Vec<Vec<f64>>) -> Result<Tensor> {
    xs.contiguous()?.apply_op1(WeightedSums { weights })
}

struct WeightedSums {
    weights: Vec<Vec<f64>>,
}

impl WeightedSums {
    /// The adjoint map, which carries gradients back.
    fn transposed(&self) -> Self {
        Self { weights: transposed(&self.weights) }
    }
}

/// The weights of the adjoint map: of each time step, those of all rows.
pub(crate) fn transposed(weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let steps = weights.first().map_or(0, Vec::len);
    (0..steps).map(|t| weights.iter().map(|row| row[t]).collect()).collect()
}

impl CustomOp1 for WeightedSums {
    fn name(&self) -> &'static str {
        "weighted_sums"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let neurons = layout.dims()[1..].iter().product();
        let dims = [&[self.weights.len()], &layout.dims()[1..]].concat();
        let ys = by_dtype!(storage, "weighted_sums", F => {
            F::storage(self.forward(operand::<F>(storage, layout)?, neurons))
        });
        Ok((ys, dims.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, xs: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let dims = [&[self.weights.len()], &layout.dims()[1..]].concat();
        let ys = by_element!(xs, "weighted_sums", F => cuda::run::sums::<F>(&self.weights, xs, layout)?);
        Ok((ys, dims.into()))
    }

    fn bwd(&self, _xs: &Tensor, _ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.apply_op1_no_bwd(&self.transposed()).map(Some)
    }
}

/// `sum_{t, i} (PSP(a)[t, i] - PSP(b)[t, i])^2` twice, `[2]`: the first is differentiable in `a` only, the second in `b` only
/// (see [`psp_distances`](crate::psp_distances)); `a, b: [T, ...]` where there is a kernel.
pub(crate) fn psp_distances(a: &Tensor, b: &Tensor, tau: f64) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, PspDistances { tau })
}

struct PspDistances {
    tau: f64,
}

impl CustomOp2 for PspDistances {
    fn name(&self) -> &'static str {
        "psp_distances"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sum = by_dtype!(s1, "psp_distances", F => {
            let (a, b) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?);
            let sums: Vec<f64> = chunks(l1).into_par_iter().map(|c| self.forward(a, b, c)).collect();
            F::storage(vec![F::from_f64(sums.iter().sum()); 2])
        });
        Ok((sum, 2.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let both =
            by_element!(s1, "psp_distances", F => cuda::run::distances::<F>(s1, l1, s2, l2, self.tau)?);
        Ok((both, 2.into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (a, b) = (a.contiguous()?, b.contiguous()?);
        #[cfg(feature = "cuda")]
        if Backend::of(&a) == Backend::Cuda {
            // The gradient stays where it is.
            let both = cuda::run::psp_gradients_of(&a, &b, &grad.contiguous()?, self.tau)?;
            return Ok((Some(both.get(0)?), Some(both.get(1)?)));
        }
        let grad: Vec<f64> = grad.to_dtype(candle_core::DType::F64)?.to_vec1()?;
        let both = a.apply_op2_no_bwd(&b, &PspGradients { tau: self.tau, scales: [grad[0], -grad[1]] })?;
        Ok((Some(both.get(0)?), Some(both.get(1)?)))
    }
}

/// `(first neuron, number, neurons, time steps)` of each task.
fn chunks(layout: &Layout) -> Vec<(usize, usize, usize, usize)> {
    let neurons: usize = layout.dims()[1..].iter().product();
    let steps = layout.dims()[0];
    (0..neurons).step_by(CHUNK).map(|from| (from, CHUNK.min(neurons - from), neurons, steps)).collect()
}

/// The gradient of a distance in `a`, times each of two scales: `[2, T, ...]`.
struct PspGradients {
    tau: f64,
    scales: [f64; 2],
}

impl CustomOp2 for PspGradients {
    fn name(&self) -> &'static str {
        "psp_distances_backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let grad = by_dtype!(s1, "psp_distances", F => {
            let (a, b) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?);
            let neurons = l1.dims()[1..].iter().product();
            let mut grad = vec![F::from_f64(0.); 2 * a.len()];
            columns(&mut grad, neurons, CHUNK).into_par_iter().enumerate().for_each(|(i, rows)| {
                self.forward(a, b, (i * CHUNK, neurons), rows);
            });
            F::storage(grad)
        });
        Ok((grad, [&[2], l1.dims()].concat().into()))
    }
}

/// The values of one tensor with the gradient of another.
pub(crate) struct StraightThrough;

impl CustomOp2 for StraightThrough {
    fn name(&self) -> &'static str {
        "straight_through"
    }

    fn cpu_fwd(
        &self,
        values: &CpuStorage,
        layout: &Layout,
        _carrier: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let copy = by_dtype!(values, "straight_through", F => {
            F::storage(operand::<F>(values, layout)?.par_iter().copied().collect())
        });
        Ok((copy, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        values: &CudaStorage,
        layout: &Layout,
        _carrier: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let copy = by_element!(values, "straight_through", F => cuda::run::copy::<F>(values, layout)?);
        Ok((copy, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _values: &Tensor,
        _carrier: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((None, Some(grad.clone())))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ops::testing::{assert_relative, check_gradients, check_threads, random, run};
    use crate::{psp, psp_distance, psp_distances, psp_distances_reference, straight_through};

    /// The twin: two trains of potentials, and their difference.
    fn distance_reference(a: &Tensor, b: &Tensor, tau: f64) -> Result<Tensor> {
        (psp(a, tau)? - psp(b, tau)?)?.sqr()?.sum_all()
    }

    #[test]
    fn distance_agrees_with_its_twin() -> Result<()> {
        for (shape, tau) in [(&[5, 2, 3][..], 2.), (&[1, 7], 1.), (&[16, 5000], 3.5)] {
            let (a, b) = (random("a", shape, DType::F64)?, random("b", shape, DType::F64)?);
            let fast = run(|x| psp_distance(&x[0], &x[1], tau), &[a.clone(), b.clone()])?;
            let slow = run(|x| distance_reference(&x[0], &x[1], tau), &[a.clone(), b.clone()])?;
            for (fast, slow) in fast.iter().zip(&slow) {
                assert_relative("psp distance", fast, slow, 1e-12);
            }
            let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
            let single = run(|x| psp_distance(&x[0], &x[1], tau), &[a, b])?;
            for (single, slow) in single.iter().zip(&slow) {
                assert_relative("psp distance in f32", &single.to_dtype(DType::F64)?, slow, 1e-5);
            }
        }
        Ok(())
    }

    #[test]
    fn each_of_two_distances_has_one_gradient() -> Result<()> {
        let inputs = [random("a", &[4, 3, 7], DType::F64)?, random("b", &[4, 3, 7], DType::F64)?];
        // Weighted, so that the two do not cancel.
        let sum = |(in_a, in_b): (Tensor, Tensor)| (in_a * 3.)? + (in_b * 0.5)?;
        let fast = run(|x| sum(psp_distances(&x[0], &x[1], 2.)?), &inputs)?;
        let slow = run(|x| sum(psp_distances_reference(&x[0], &x[1], 2.)?), &inputs)?;
        for (fast, slow) in fast.iter().zip(&slow) {
            assert_relative("psp distances", fast, slow, 1e-12);
        }
        Ok(())
    }

    #[test]
    fn gradients_are_finite_differences() -> Result<()> {
        let (a, b) = (random("a", &[4, 3], DType::F64)?, random("b", &[4, 3], DType::F64)?);
        check_gradients("psp_distance", |x| psp_distance(&x[0], &x[1], 2.), &[a.clone(), b], 1e-5, 1e-7)?;
        let weights = vec![vec![0.5, -1., 2., 0.25], vec![1., 0., -0.5, 3.]];
        check_gradients("weighted_sums", |x| weighted_sums(&x[0], weights.clone()), &[a], 1e-5, 1e-8)
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        let (a, b) = (random("a", &[6, 9001], DType::F32)?, random("b", &[6, 9001], DType::F32)?);
        check_threads(|| {
            let distance = run(|x| psp_distance(&x[0], &x[1], 2.), &[a.clone(), b.clone()])?;
            let sum =
                run(|x| weighted_sums(&x[0], vec![vec![0.3; 6], vec![0.1; 6]]), std::slice::from_ref(&a))?;
            Ok([distance, sum].concat())
        })
    }

    #[test]
    fn straight_through_has_the_values_of_one_and_the_gradient_of_the_other() -> Result<()> {
        let (a, b) = (random("a", &[3, 4], DType::F64)?, random("b", &[3, 4], DType::F64)?);
        let out = run(|x| straight_through(&x[0], &x[1]), &[a.clone(), b])?;
        assert_relative("value", &out[0], &a, 0.);
        assert_relative("gradient in the values", &out[1], &a.zeros_like()?, 0.);
        assert_relative("gradient in the carrier", &out[2], &random("upstream", &[3, 4], DType::F64)?, 0.);
        Ok(())
    }

    #[test]
    fn unfit_operands_are_errors() -> Result<()> {
        let (a, b) = (random("a", &[3, 4], DType::F64)?, random("b", &[3, 5], DType::F64)?);
        assert!(psp_distance(&a, &b, 2.).is_err() && straight_through(&a, &b).is_err());
        assert!(psp_distance(&a, &a, 0.5).is_err());
        assert!(psp_distance(&a.sum_all()?, &a.sum_all()?, 2.).is_err());
        Ok(())
    }
}
