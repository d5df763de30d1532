// How kernels go over the channels of [M, C, S], and sum over each: in f64, a block a part of a channel, in one order. Where S is 1,
// channels lie side by side, and a block takes parts of `width` of them, so that a warp still reads what lies in a row.
#pragma once
#include "ops/cuda/prelude.cuh"

// Elements of a channel, images times positions, are counted in 32 bits; each part has `share` of them, the last one fewer.
struct Planes {
  int channels, size, elements, parts, share, width;

  __device__ __forceinline__ Count at(int channel, int element) const {
    const int image = element / size;
    return ((Count)image * channels + channel) * size + (element - image * size);
  }
};

struct Pair {
  double first, second;
};

// Sums `f(channel, index)` over the elements of each part of each channel.
template <class F> __device__ __forceinline__ void sum_parts(const Planes &p, double *parts, double *scratch, F f) {
  const int tiles = (p.channels + p.width - 1) / p.width;
  for (Count task = blockIdx.x; task < (Count)tiles * p.parts; task += gridDim.x) {
    const int tile = (int)(task / p.parts), part = (int)(task - (Count)tile * p.parts), channel = tile * p.width + threadIdx.x % p.width;
    const int from = part * p.share, left = p.elements - from, to = from + (left < p.share ? left : p.share);
    Pair sum = {0, 0};
    if (channel < p.channels)
      // The distance is computed again each time, because with one register more some kernels would spill.
      for (int i = from + threadIdx.x / p.width; i < to; i += blockDim.x / p.width) {
        const Pair more = f(channel, p.at(channel, i));
        sum.first += more.first;
        sum.second += more.second;
      }
    const double first = block_sums(sum.first, p.width, scratch), second = block_sums(sum.second, p.width, scratch);
    if (threadIdx.x < (unsigned int)p.width && channel < p.channels) {
      double *const to_part = parts + 2 * ((Count)channel * p.parts + part);
      to_part[0] = first;
      to_part[1] = second;
    }
  }
}

// The map of a channel, y = scale (x - centre) + shift; `by` has centre, scale and shift of each, one after another.
template <class Real> struct Affine {
  __device__ __forceinline__ Affine(const Real *by, Count channel)
      : centre(by[3 * channel]), scale(by[3 * channel + 1]), shift(by[3 * channel + 2]) {}
  __device__ __forceinline__ Real operator()(Real x) const { return scale * (x - centre) + shift; }
  Real centre, scale, shift;
};
