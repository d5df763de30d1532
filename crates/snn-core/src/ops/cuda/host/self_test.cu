// Kernels that test the host runner: one that is right and uses all of host.h, and two that a sanitizer must refuse.
#include "ops/cuda/prelude.cuh"

// Sums the elements; every block adds its part.
extern "C" __global__ void self_sum(const double *xs, double *sum, Count elements) {
  DYNAMIC_SHARED(double, scratch);
  double part = 0;
  for (Count i = first_element(); i < elements; i += all_threads()) part += xs[i];
  part = block_sums(part, 1, scratch);
  if (threadIdx.x == 0) atomicAdd(sum, part);
}

// Reads a neighbour's number without waiting for it.
extern "C" __global__ void self_race(double *out) {
  DYNAMIC_SHARED(double, scratch);
  scratch[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = scratch[(threadIdx.x + 1) % blockDim.x];
}

// Adds to one number from two blocks, without an atomic operation.
extern "C" __global__ void self_race_of_blocks(double *out) {
  if (threadIdx.x == 0) *out += 1;
}

// Writes one element more than there are in shared memory.
extern "C" __global__ void self_overrun(double *out) {
  DYNAMIC_SHARED(double, scratch);
  scratch[threadIdx.x + 1] = threadIdx.x;
  out[threadIdx.x] = scratch[threadIdx.x + 1];
}

// Writes one element more than the operand has.
extern "C" __global__ void self_overrun_of_operand(double *out) { out[threadIdx.x + 1] = 1; }
