// An affine map by channel, that of batch norm or a fixed one, and LIF over the whole sequence in one pass: normalised currents
// live in registers. Currents are [T N, C, S], or with `constant`, which stay, [N, C, S]; neurons are [N, C, S].
#include "ops/batch_norm/cuda/planes.cuh"
#include "ops/lif/cuda/sequence.cuh"

template <class Real>
__device__ __forceinline__ void norm_lif_forward(const Real *__restrict__ xs, const Real *__restrict__ by,
                                                 Real *__restrict__ spikes, Count neurons, int steps, int constant, int size,
                                                 int channels, const Neuron<Real> &neuron) {
  for (Count n = first_element(); n < neurons; n += all_threads()) {
    const Affine<Real> map(by, n / size % channels);
    const auto current = [&](int t) { return map(xs[constant ? n : t * neurons + n]); };
    lif_spikes(neuron, steps, current, spikes + n, neurons);
  }
}

// `grads`: of the normalised currents; with `fixed`, of the currents themselves. `parts`: what norm_gradient_sums leaves, sum g and
// sum g (x - centre) with g the gradient of a normalised current, of each part of each channel of `p`, the neurons. A neuron's steps are
// added in its own type.
template <class Real>
__device__ __forceinline__ void norm_lif_backward(const Real *__restrict__ xs, const Real *__restrict__ by,
                                                  const Real *__restrict__ grad_spikes, Real *__restrict__ grads,
                                                  double *__restrict__ parts, const Planes &p, int steps, int constant,
                                                  int fixed, const Neuron<Real> &neuron, double *scratch) {
  Real *const columns = reinterpret_cast<Real *>(scratch + blockDim.x / WARP * p.width) + threadIdx.x;
  const Count neurons = (Count)p.channels * p.elements;
  sum_parts<1, Real>(p, parts, scratch, [&](int channel, Count n) {
    const Affine<Real> map(by, channel);
    Pair<Real> sum = {0, 0};
    const auto current = [&](int t) { return map(xs[constant ? n : t * neurons + n]); };
    const auto upstream = [&](int t) { return grad_spikes[t * neurons + n]; };
    const auto take = [&](int t, Real g) {
      const Count i = t * neurons + n;
      // The map is read again, because with all of it held as long as this some kernels would spill registers.
      sum.first += g;
      sum.second += g * (xs[i] - Affine<Real>(by, channel).centre);
      grads[i] = fixed ? Affine<Real>(by, channel).scale * g : g;
    };
    lif_gradients<2>(neuron, steps, constant, columns, current, upstream, [](int, Real) {}, take);
    return sum;
  });
}

#define NORM_LIF_KERNELS(Real, suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_lif_forward_##suffix(const Real *xs, const Real *by, Real *spikes, Count neurons, int steps, int constant,     \
                                int size, int channels, Neuron<Real> neuron) {                                            \
    norm_lif_forward(xs, by, spikes, neurons, steps, constant, size, channels, neuron);                                   \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_lif_backward_##suffix(const Real *xs, const Real *by, const Real *grad_spikes,                                 \
                                 Real *grads, double *parts, Planes p, int steps, int constant, int fixed,                \
                                 Neuron<Real> neuron) {                                                                   \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    norm_lif_backward(xs, by, grad_spikes, grads, parts, p, steps, constant, fixed, neuron, scratch);                     \
  }

NORM_LIF_KERNELS(float, f32)
NORM_LIF_KERNELS(double, f64)
