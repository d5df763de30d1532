// The distance of two spike trains by their postsynaptic potentials, and its gradients; a thread a neuron. PSP is linear: one
// potential of the difference is enough.
#include "ops/cuda/prelude.cuh"

// p[t] = decay p[t-1] + gain x[t]
template <class Real> struct Synapse {
  Real decay, gain;
};

// `parts`: each block's part of the sum.
template <class Real>
__device__ __forceinline__ void psp_distances(const Real *__restrict__ a, const Real *__restrict__ b,
                                              double *__restrict__ parts, Count neurons, int steps,
                                              const Synapse<Real> &by, double *scratch) {
  double sum = 0;
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    Real p = 0, squares = 0;
#pragma unroll 4
    for (int t = 0; t < steps; ++t) {
      p = by.decay * p + by.gain * (a[t * neurons + n] - b[t * neurons + n]);
      squares += p * p;
    }
    sum += (double)squares;
  }
  sum = block_sums(sum, 1, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// q[t] = 2 p[t] + decay q[t+1], and q[t] / tau is the gradient of a distance in `a`. `ys` has two of them, one after another: times the
// gradient of the first distance, and times minus that of the second.
template <class Real>
__device__ __forceinline__ void psp_gradients(const Real *__restrict__ a, const Real *__restrict__ b,
                                              const Real *__restrict__ grad, Real *__restrict__ ys, Count neurons,
                                              int steps, const Synapse<Real> &by, double tau) {
  const Real first = (Real)((double)grad[0] / tau), second = (Real)(-(double)grad[1] / tau);
  Real *const others = ys + steps * neurons;
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    Real p = 0;
#pragma unroll 4
    for (int t = 0; t < steps; ++t) {
      p = by.decay * p + by.gain * (a[t * neurons + n] - b[t * neurons + n]);
      ys[t * neurons + n] = p;
    }
    Real q = 0;
#pragma unroll 4
    for (int t = steps - 1; t >= 0; --t) {
      q = Real(2) * ys[t * neurons + n] + by.decay * q;
      ys[t * neurons + n] = q * first;
      others[t * neurons + n] = q * second;
    }
  }
}

#define PSP_KERNELS(Real, suffix)                                                                                         \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      psp_distances_##suffix(const Real *a, const Real *b, double *parts, Count neurons, int steps, Synapse<Real> by) {   \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    psp_distances(a, b, parts, neurons, steps, by, scratch);                                                              \
  }                                                                                                                       \
  /* One block adds the parts, in one order; the distance stands there twice. */                                          \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      psp_total_##suffix(const double *parts, Real *distances, int number) {                                              \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    double sum = 0;                                                                                                       \
    for (int i = threadIdx.x; i < number; i += blockDim.x) sum += parts[i];                                             \
    sum = block_sums(sum, 1, scratch);                                                                                    \
    if (threadIdx.x == 0) distances[0] = distances[1] = (Real)sum;                                                        \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      psp_gradients_##suffix(const Real *a, const Real *b, const Real *grad, Real *ys, Count neurons, int steps,          \
                             Synapse<Real> by, double tau) {                                                              \
    psp_gradients(a, b, grad, ys, neurons, steps, by, tau);                                                               \
  }

PSP_KERNELS(float, f32)
PSP_KERNELS(double, f64)
