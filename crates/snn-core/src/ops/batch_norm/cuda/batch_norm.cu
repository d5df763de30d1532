// Batch normalisation of [M, C, S] over M and S. A block adds a part of a channel, then a warp each channel's parts in
// f64, in one order. What follows is one affine map of an element, with coefficients by channel.
#include "ops/batch_norm/cuda/planes.cuh"

// Of the channel of a warp, in the warp's first thread. All of its threads call it.
__device__ __forceinline__ Pair<double> sum_of_parts(const Planes &p, const double *parts, int channel) {
  Pair<double> sum = {0, 0};
  for (int part = threadIdx.x % WARP; part < p.parts; part += WARP) {
    sum.first += parts[2 * ((Count)channel * p.parts + part)];
    sum.second += parts[2 * ((Count)channel * p.parts + part) + 1];
  }
  return {warp_sums(sum.first, 1), warp_sums(sum.second, 1)};
}

// Around a value of the channel itself, so that a large mean does not swallow a small variance.
template <class Real> __device__ __forceinline__ Real pivot(const Planes &p, const Real *xs, int channel) {
  return xs[(Count)channel * p.size];
}

// The mean in the element type, and what that rounds off.
template <class Real> struct Centre {
  __device__ __forceinline__ explicit Centre(double mean) : centre((Real)mean), rest(mean - (double)centre) {}
  Real centre;
  double rest;
};

#define NORM_KERNELS(Real, suffix)                                                                                        \
  /* sum (x - pivot), sum (x - pivot)^2 */                                                                                \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_sums_##suffix(const Real *xs, double *parts, Planes p) {                                                       \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    sum_parts<8, Real>(p, parts, scratch, [&](int channel, Count i) {                                                     \
      const Real d = xs[i] - pivot(p, xs, channel);                                                                       \
      return Pair<Real>{d, d * d};                                                                                        \
    });                                                                                                                   \
  }                                                                                                                       \
  /* `moments`: the means, then the biased variances. */                                                                  \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_moments_##suffix(const Real *xs, const double *parts, double *moments, Planes p) {                             \
    for (Count c = first_element() / WARP; c < p.channels; c += all_threads() / WARP) {                                   \
      const auto sum = sum_of_parts(p, parts, (int)c);                                                                    \
      if (threadIdx.x % WARP != 0) continue;                                                                              \
      const double off = sum.first / p.elements, variance = sum.second / p.elements - off * off;                          \
      moments[c] = (double)pivot(p, xs, (int)c) + off;                                                                    \
      moments[p.channels + c] = variance > 0 ? variance : 0;                                                              \
    }                                                                                                                     \
  }                                                                                                                       \
  /* `by`: each channel's `Affine`. */                                                                                    \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_coefficients_##suffix(const double *moments, const Real *weight, const Real *bias, Real *by, int channels,     \
                                 double eps) {                                                                            \
    for (Count c = first_element(); c < channels; c += all_threads()) {                                                   \
      const Centre<Real> mean(moments[c]);                                                                                \
      const double scale = (double)weight[c] * (1 / sqrt(moments[channels + c] + eps));                                   \
      by[3 * c] = mean.centre;                                                                                            \
      by[3 * c + 1] = (Real)scale;                                                                                        \
      by[3 * c + 2] = (Real)((double)bias[c] - scale * mean.rest);                                                        \
    }                                                                                                                     \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_affine_##suffix(const Real *xs, const Real *by, Real *ys, Count elements, int size, int channels) {            \
    for (Count i = first_element(); i < elements; i += all_threads()) {                                                   \
      ys[i] = Affine<Real>(by, i / size % channels)(xs[i]);                                                               \
    }                                                                                                                     \
  }                                                                                                                       \
  /* sum g, sum g (x - centre) with the mean's centre */                                                                  \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_gradient_sums_##suffix(const Real *xs, const Real *grad, const double *moments, double *parts, Planes p) {     \
    DYNAMIC_SHARED(double, scratch);                                                                                      \
    sum_parts<8, Real>(p, parts, scratch, [&](int channel, Count i) {                                                     \
      const Real g = grad[i];                                                                                             \
      return Pair<Real>{g, g * (xs[i] - Centre<Real>(moments[channel]).centre)};                                          \
    });                                                                                                                   \
  }                                                                                                                       \
  /* The gradients of bias and weight, `[2, C]`, and the map of (grad, x) that the input's is: scale grad + slope (x -    \
     centre) + offset. */                                                                                                 \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_gradients_##suffix(const double *parts, const double *moments, const Real *weight, Real *grads, Real *by,      \
                              Planes p, double eps) {                                                                     \
    for (Count c = first_element() / WARP; c < p.channels; c += all_threads() / WARP) {                                   \
      const auto sum = sum_of_parts(p, parts, (int)c);                                                                    \
      if (threadIdx.x % WARP != 0) continue;                                                                              \
      const Centre<Real> mean(moments[c]);                                                                                \
      const double inverse = 1 / sqrt(moments[p.channels + c] + eps), scale = (double)weight[c] * inverse;                \
      const double grad_weight = (sum.second - mean.rest * sum.first) * inverse;                                          \
      const double slope = -scale * inverse * grad_weight / p.elements;                                                   \
      grads[c] = (Real)sum.first;                                                                                         \
      grads[p.channels + c] = (Real)grad_weight;                                                                          \
      by[4 * c] = (Real)scale;                                                                                            \
      by[4 * c + 1] = (Real)slope;                                                                                        \
      by[4 * c + 2] = mean.centre;                                                                                        \
      by[4 * c + 3] = (Real)(-scale * sum.first / p.elements - slope * mean.rest);                                        \
    }                                                                                                                     \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      norm_input_gradient_##suffix(const Real *xs, const Real *grad, const Real *by, Real *ys, Count elements, int size,  \
                                   int channels) {                                                                        \
    for (Count i = first_element(); i < elements; i += all_threads()) {                                                   \
      const Real *const of = by + 4 * (i / size % channels);                                                              \
      ys[i] = of[0] * grad[i] + of[1] * (xs[i] - of[2]) + of[3];                                                          \
    }                                                                                                                     \
  }

NORM_KERNELS(float, f32)
NORM_KERNELS(double, f64)
