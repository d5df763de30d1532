// What every kernel includes. NVRTC compiles the kernels for a GPU; with SNN_HOST defined the system's C++ compiler runs the
// same files on the CPU (host/host.h).
#pragma once

#ifdef SNN_HOST
#include "host/host.h"
#else
#define INFINITY __int_as_float(0x7f800000)
// The block's dynamic shared memory, of which the launch says how much there is.
#define DYNAMIC_SHARED(Type, name)                          \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  Type *const name = reinterpret_cast<Type *>(name##_bytes)
#endif

// Neurons and elements are counted in 64 bits.
typedef long long Count;

// Threads a warp, and the most threads of a block that any launch asks for (launch.rs).
constexpr int WARP = 32;
constexpr int MAX_BLOCK = 128;

// The thread's first element, and the distance to its next: a grid that is too small passes several times.
__device__ __forceinline__ Count first_element() { return (Count)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ Count all_threads() { return (Count)gridDim.x * blockDim.x; }

// `width` sums of a warp, in the same order every time: of the threads whose numbers leave the same remainder, in the first of them. `width`
// is a power of two, a warp at most. All threads of the warp call it.
__device__ __forceinline__ double warp_sums(double value, int width) {
  for (int offset = WARP / 2; offset >= width; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// The same of a block, in its first threads; `scratch` holds `width` numbers for each warp. All threads of the block call it.
__device__ __forceinline__ double block_sums(double value, int width, double *scratch) {
  const int lane = threadIdx.x % WARP;
  value = warp_sums(value, width);
  if (lane < width) scratch[threadIdx.x / WARP * width + lane] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x < (unsigned int)width)
    for (unsigned int warp = 0; warp < blockDim.x / WARP; ++warp) sum += scratch[warp * width + lane];
  // Nobody writes the scratch again before it is read.
  __syncthreads();
  return sum;
}
