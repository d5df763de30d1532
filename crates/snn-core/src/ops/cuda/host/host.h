// The parts of CUDA C that the kernels use, in C++: a block's threads are threads, its barrier is one, and its shared memory
// is a heap block of the size that the launch says. ThreadSanitizer and AddressSanitizer then see what the kernels do.
#pragma once
// Not <cmath>, after which the unqualified fabs, exp and sqrt of a float are those of a double.
#include <math.h>
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __grid_constant__

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
};

namespace host {

// Two barriers, used in turn. ThreadSanitizer takes a thread that leaves a barrier late to have seen all that came to the same
// barrier before that: with one, also those who come to it again, and what they did between would never be a race.
struct Barrier {
  explicit Barrier(unsigned int threads) {
    for (pthread_barrier_t &barrier : barriers) pthread_barrier_init(&barrier, nullptr, threads);
  }
  Barrier(const Barrier &) = delete;
  ~Barrier() {
    for (pthread_barrier_t &barrier : barriers) pthread_barrier_destroy(&barrier);
  }
  // `waits` counts the thread's own.
  void wait(unsigned int &waits) { pthread_barrier_wait(&barriers[waits++ % 2]); }
  pthread_barrier_t barriers[2];
};

// The threads of a warp exchange registers through slots.
struct Warp {
  explicit Warp(unsigned int threads) : barrier(threads), threads(threads) {}
  Barrier barrier;
  unsigned int threads;
  double slots[32];
};

struct Block {
  explicit Block(unsigned int threads) : barrier(threads) {
    for (unsigned int from = 0; from < threads; from += 32)
      warps.push_back(std::make_unique<Warp>(threads - from < 32 ? threads - from : 32));
  }
  Barrier barrier;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<unsigned char[]> shared;
};

inline thread_local Block *block = nullptr;
// How often the thread has waited for its block, and for its warp.
inline thread_local unsigned int block_waits = 0, warp_waits = 0;

[[noreturn]] inline void fail(const char *what, const char *name) {
  std::fprintf(stderr, "%s: %s\n", name, what);
  std::exit(2);
}

} // namespace host

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

#define DYNAMIC_SHARED(Type, name) Type *const name = reinterpret_cast<Type *>(host::block->shared.get())

inline void __syncthreads() { host::block->barrier.wait(host::block_waits); }

// The value of the lane so far behind, or the own where there is none.
template <class T> T __shfl_down_sync(unsigned int mask, T value, unsigned int offset) {
  static_assert(sizeof(T) <= sizeof(double), "a register pair at most");
  if (mask != 0xffffffffu) host::fail("only whole warps", "__shfl_down_sync");
  host::Warp &warp = *host::block->warps[threadIdx.x / 32];
  const unsigned int lane = threadIdx.x % 32;
  std::memcpy(&warp.slots[lane], &value, sizeof(T));
  warp.barrier.wait(host::warp_waits);
  T other = value;
  if (lane + offset < warp.threads) std::memcpy(&other, &warp.slots[lane + offset], sizeof(T));
  warp.barrier.wait(host::warp_waits);
  return other;
}

template <class T> T atomicAdd(T *address, T value) {
  T old, sum;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do sum = old + value;
  while (!__atomic_compare_exchange(address, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
