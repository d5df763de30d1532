// One step of AdamW on some parameters, in place and in one pass: both moments, then the parameter. The roundings are those of
// adamw/cpu.rs, with the zeros that are added there to turn -0 into 0.
#include "ops/cuda/prelude.cuh"

// Laid out as launch.rs writes it.
template <class Real> struct Step {
  Real b1, b2, c1, c2, keep, size, inverse, eps;
};

template <class Real>
__device__ __forceinline__ void adamw(Real *__restrict__ param, Real *__restrict__ moments, const Real *__restrict__ grad,
                                      Count elements, const Step<Real> &by) {
  const Real zero = 0;
  for (Count i = first_element(); i < elements; i += all_threads()) {
    const Real g = grad[i];
    const Real m = (moments[i] * by.b1 + zero) + (g * by.c1 + zero);
    const Real v = (moments[elements + i] * by.b2 + zero) + (g * g * by.c2 + zero);
    moments[i] = m;
    moments[elements + i] = v;
    const Real update = (m * by.size + zero) / ((sqrt(v) * by.inverse + zero) + by.eps);
    param[i] = (param[i] * by.keep + zero) - update;
  }
}

// Parameters of a launch at most; launch.rs fills the rest with null.
constexpr int SLOTS = 32;
template <class Real> struct Pointers {
  Real *at[SLOTS];
};
struct Counts {
  Count of[SLOTS];
};

#define ADAMW_KERNEL(Real, suffix)                                                                                        \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      adamw_##suffix(const __grid_constant__ Pointers<Real> params, const __grid_constant__ Pointers<Real> moments,       \
                     const __grid_constant__ Pointers<const Real> grads, const __grid_constant__ Counts counts, int number, \
                     Step<Real> by) {                                                                                     \
    for (int i = 0; i < number; ++i) adamw(params.at[i], moments.at[i], grads.at[i], counts.of[i], by);                   \
  }

ADAMW_KERNEL(float, f32)
ADAMW_KERNEL(double, f64)
