// LIF and parametric LIF over the whole sequence, forward and backward. One thread a neuron; the threads of a warp read
// neighbouring neurons of one time step.
#include "ops/lif/cuda/sequence.cuh"

// With `constant`, the current has no time axis.
template <class Real>
__device__ __forceinline__ void lif_forward(const Real *__restrict__ xs, Real *__restrict__ spikes, Count neurons, int steps,
                                            int constant, const Neuron<Real> &neuron) {
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    const auto current = [&](int t) { return xs[constant ? n : t * neurons + n]; };
    lif_spikes(neuron, steps, current, spikes + n, neurons);
  }
}

// Returns the thread's part of the gradient of 1/tau, if that is wanted.
template <bool LEARNED, class Real>
__device__ __forceinline__ double lif_backward(const Real *__restrict__ xs, const Real *__restrict__ grad_spikes,
                                               Real *__restrict__ grad_xs, Count neurons, int steps, int constant,
                                               const Neuron<Real> &neuron, Real *membranes) {
  Real *const columns = membranes + threadIdx.x;
  const int stride = blockDim.x;
  double grad_rate = 0;
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    const auto current = [&](int t) { return xs[constant ? n : t * neurons + n]; };
    const auto upstream = [&](int t) { return grad_spikes[t * neurons + n]; };
    const auto charged = [&](int t, Real gh) {
      if (!LEARNED) return;
      const Real before = t > 0 ? neuron.reset(*(columns + t * stride - stride)) : neuron.v_reset;
      grad_rate += (double)(gh * neuron.flow(before, current(t)));
    };
    const auto take = [&](int t, Real gx) { grad_xs[t * neurons + n] = gx; };
    lif_gradients<sizeof(Real) == sizeof(float) ? 4 : 2>(neuron, steps, constant, columns, current, upstream, charged, take);
  }
  return grad_rate;
}

template <class Real> __device__ __forceinline__ Real rate_of(const Real *w) { return Real(1) / (Real(1) + exp(-*w)); }

#define LIF_KERNELS(Real, suffix)                                                                                         \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      lif_forward_##suffix(const Real *xs, Real *spikes, Count neurons, int steps, int constant, Neuron<Real> neuron) {   \
    lif_forward(xs, spikes, neurons, steps, constant, neuron);                                                            \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      lif_backward_##suffix(const Real *xs, const Real *grad_spikes, Real *grad_xs, Count neurons, int steps,             \
                            int constant, Neuron<Real> neuron) {                                                          \
    DYNAMIC_SHARED(Real, membranes);                                                                                      \
    lif_backward<false>(xs, grad_spikes, grad_xs, neurons, steps, constant, neuron, membranes);                           \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      plif_forward_##suffix(const Real *xs, const Real *w, Real *spikes, Count neurons, int steps, int constant,          \
                            Neuron<Real> neuron) {                                                                        \
    neuron.set_rate(rate_of(w));                                                                                          \
    lif_forward(xs, spikes, neurons, steps, constant, neuron);                                                            \
  }                                                                                                                       \
  /* `parts`: each block's part of the gradient of 1/tau. */                                                              \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      plif_backward_##suffix(const Real *xs, const Real *w, const Real *grad_spikes, Real *grad_xs, double *parts,        \
                             Count neurons, int steps, int constant, Neuron<Real> neuron) {                               \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    Real *const membranes = reinterpret_cast<Real *>(scratch + blockDim.x / WARP);                                        \
    neuron.set_rate(rate_of(w));                                                                                          \
    const double part =                                                                                                   \
        lif_backward<true>(xs, grad_spikes, grad_xs, neurons, steps, constant, neuron, membranes);                        \
    const double sum = block_sums(part, 1, scratch);                                                                      \
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;                                                                        \
  }                                                                                                                       \
  /* One block adds the parts, in one order. */                                                                           \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      plif_weight_gradient_##suffix(const double *parts, const Real *w, Real *grad_w, int number) {                       \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    double sum = 0;                                                                                                       \
    for (int i = threadIdx.x; i < number; i += blockDim.x) sum += parts[i];                                               \
    sum = block_sums(sum, 1, scratch);                                                                                    \
    const double rate = (double)rate_of(w);                                                                               \
    if (threadIdx.x == 0) *grad_w = (Real)(sum * rate * (1 - rate));                                                      \
  }

LIF_KERNELS(float, f32)
LIF_KERNELS(double, f64)
