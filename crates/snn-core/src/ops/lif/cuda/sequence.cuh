// One neuron over the whole sequence, forward and backward, whatever its currents come from. The membrane lives in a register
// forward; backward it is computed again, and the potentials of all time steps wait in a column of shared memory that no other
// thread touches.
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
// with `constant`, of a current that stays, their sum once, as that of X[0]. In double precision charges are unrolled by `DOUBLES`: each
// kernel by as many as spill none of its registers.
template <int DOUBLES, class Real, class Current, class Upstream, class Charged, class Take>
__device__ __forceinline__ void lif_gradients(const Neuron<Real> &neuron, int steps, int constant, Real *column,
                                              Current current, Upstream upstream, Charged charged, Take take) {
  const int stride = blockDim.x;
  Real v = neuron.v_reset;
#pragma unroll (sizeof(Real) == sizeof(float) ? 4 : DOUBLES)
  for (int t = 0; t < steps; ++t) {
    const Real h = neuron.charge(v, current(t));
    column[t * stride] = h;
    v = neuron.reset(h);
  }
  Real gv = 0, sum = 0;
// Not unrolled: the divisions' slow paths would spill registers.
#pragma unroll 1
  for (int t = steps - 1; t >= 0; --t) {
    Real gh = neuron.charge_gradient(column[t * stride], upstream(t), gv);
    charged(t, gh);
    const Real gx = neuron.discharge(gh);
    gv = gh;
    if (!constant) take(t, gx);
    else sum = t + 1 < steps ? sum + gx : gx;
  }
  if (constant) take(0, sum);
}
