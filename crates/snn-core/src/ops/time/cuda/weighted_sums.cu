// Sums over time: ys[r] = sum_t weights[r][t] xs[t], a thread a neuron. The gradient is the same kernel with the weights
// transposed. The weights wait in shared memory.
#include "ops/cuda/prelude.cuh"

template <class Real>
__device__ __forceinline__ void weighted_sums(const Real *__restrict__ xs, const Real *__restrict__ weights,
                                              Real *__restrict__ ys, Count neurons, int steps, int rows, Real *shared) {
  for (int i = threadIdx.x; i < rows * steps; i += blockDim.x) shared[i] = weights[i];
  __syncthreads();
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    for (int row = 0; row < rows; ++row) {
      Real sum = 0;
#pragma unroll 4
      for (int t = 0; t < steps; ++t) sum += shared[row * steps + t] * xs[t * neurons + n];
      ys[row * neurons + n] = sum;
    }
  }
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK)
    weighted_sums_f32(const float *xs, const float *weights, float *ys, Count neurons, int steps, int rows) {
  DYNAMIC_SHARED(float, shared);
  weighted_sums(xs, weights, ys, neurons, steps, rows, shared);
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK)
    weighted_sums_f64(const double *xs, const double *weights, double *ys, Count neurons, int steps, int rows) {
  DYNAMIC_SHARED(double, shared);
  weighted_sums(xs, weights, ys, neurons, steps, rows, shared);
}
