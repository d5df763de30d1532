// One neuron over the whole sequence, forward and backward, whatever its currents come from. The membrane lives in a register
// forward; backward it is computed again, and the potentials of all time steps wait in a column of shared memory that no other
// thread touches, the gradients of the spikes in another.
#pragma once
#include "ops/lif/cuda/neuron.cuh"

// `current(t)` is X[t]; S[t] goes to `spikes[t * stride]`.
template <class Real, class Current>
__device__ __forceinline__ void lif_spikes(const Neuron<Real> &neuron, int steps, Current current,
                                           Real *__restrict__ spikes, Count stride) {
  Real v = neuron.v_reset;
#pragma unroll 4
  for (int t = 0; t < steps; ++t) {
    const Real h = neuron.charge(v, current(t));
    spikes[t * stride] = neuron.fires(h) ? Real(1) : Real(0);
    v = neuron.reset(h);
  }
}

// `upstream(t)` is the gradient of S[t]; `charged(t, gradient)` hears of that of H[t], and `take(t, gradient)` takes that of X[t]:
// with `constant`, of a current that stays, their sum once, as that of X[0]. `columns` has 2 numbers for each step, those of a thread
// `blockDim.x` apart: potentials, and behind them upstream gradients. What the potentials and gradients need is read from memory on the way up, `AHEAD`
// steps at once, in each kernel as many as spill none of its registers.
template <int AHEAD, class Real, class Current, class Upstream, class Charged, class Take>
__device__ __forceinline__ void lif_gradients(const Neuron<Real> &neuron, int steps, int constant, Real *columns,
                                              Current current, Upstream upstream, Charged charged, Take take) {
  const int stride = blockDim.x;
  Real *const gradients = columns + steps * stride;
  Real v = neuron.v_reset;
#pragma unroll 1
  for (int from = 0; from < steps; from += AHEAD) {
    Real x[AHEAD], g[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; ++k)
      if (from + k < steps) {
        x[k] = current(from + k);
        g[k] = upstream(from + k);
      }
#pragma unroll
    for (int k = 0; k < AHEAD; ++k)
      if (from + k < steps) {
        const Real h = neuron.charge(v, x[k]);
        columns[(from + k) * stride] = h;
        gradients[(from + k) * stride] = g[k];
        v = neuron.reset(h);
      }
  }
  Real gv = 0, sum = 0;
// Not unrolled: the divisions' slow paths would spill registers.
#pragma unroll 1
  for (int t = steps - 1; t >= 0; --t) {
    Real gh = neuron.charge_gradient(columns[t * stride], gradients[t * stride], gv);
    charged(t, gh);
    const Real gx = neuron.discharge(gh);
    gv = gh;
    if (!constant) take(t, gx);
    else sum = t + 1 < steps ? sum + gx : gx;
  }
  if (constant) take(0, sum);
}
