// The arithmetic of one neuron and one time step: lif/neuron.rs and Surrogate::derivative_of, operation by operation, so that
// both round alike (compiled without contraction of products and sums).
#pragma once
#include "ops/cuda/prelude.cuh"

// Which surrogate; launch.rs numbers them.
enum SurrogateKind { ATAN, SIGMOID, RECTANGLE, TRIANGLE, GAUSSIAN, WINDOW };

// Laid out as launch.rs writes it: the numbers, then the flags.
template <class Real> struct Neuron {
  Real leak, drive, rest, tau, threshold, fires_from, origin, clears, jump, v_reset, through_reset;
  // The two constants of the surrogate's derivative.
  Real a, b;
  int divides, decay_input, hard, surrogate;

  // The same with this 1/tau.
  __device__ __forceinline__ void set_rate(Real rate) {
    leak = Real(1) - rate;
    drive = decay_input ? rate : Real(1);
    rest = rate * v_reset;
    divides = 0;
  }

  // What 1/tau multiplies, or without its input: the derivative of H in it.
  __device__ __forceinline__ Real flow(Real v, Real x) const { return (decay_input ? x : Real(0)) - (v - v_reset); }

  __device__ __forceinline__ Real charge(Real v, Real x) const {
    const Real scaled = leak * v + drive * x + rest;
    if (!divides) return scaled;
    const Real flowing = flow(v, x);
    const Real h = v + flowing / tau + (decay_input ? Real(0) : x);
    return fabs(flowing) < Real(INFINITY) ? h : scaled;
  }

  // The gradient of X[t], given that of H[t]; that of V[t-1] takes its place.
  __device__ __forceinline__ Real discharge(Real &gradient) const {
    const Real gh = gradient;
    if (!divides) {
      gradient = leak * gh;
      return drive * gh;
    }
    const Real share = gh / tau;
    gradient = gh - share;
    return decay_input ? share : gh;
  }

  __device__ __forceinline__ bool fires(Real h) const { return h >= fires_from; }

  __device__ __forceinline__ Real reset(Real h) const {
    if (!fires(h)) return h;
    return hard ? v_reset : h - threshold;
  }

  __device__ __forceinline__ Real within(Real x) const {
    if (fabs(x) < a) return b;
    return fabs(x) >= a ? Real(0) : x;
  }

  // The surrogate's derivative at a potential.
  __device__ __forceinline__ Real slope(Real h) const {
    const Real x = h - origin;
    switch (surrogate) {
    case ATAN: {
      const Real u = a * x;
      return b / (Real(1) + u * u);
    }
    case SIGMOID: {
      const Real g = Real(1) / (Real(1) + exp(a * x));
      return b * g * (Real(1) - g);
    }
    case TRIANGLE: {
      const Real height = Real(1) - fabs(x) / a;
      return (height < Real(0) ? Real(0) : height) / a;
    }
    case GAUSSIAN: {
      const Real u = x / a;
      return exp(Real(-0.5) * u * u) * b;
    }
    default: // RECTANGLE, WINDOW
      return within(x);
    }
  }

  // The gradient of H[t], given those of S[t] and V[t].
  __device__ __forceinline__ Real charge_gradient(Real h, Real gs, Real gv) const {
    const Real s = fires(h) ? Real(1) : Real(0);
    const Real through_h = Real(1) - clears * s;
    const Real through_s = jump - clears * h;
    const Real steepness = slope(h);
    const Real spike = (gs + through_reset * (gv * through_s)) * steepness;
    return (steepness > Real(0) ? spike : Real(0)) + gv * through_h;
  }
};
