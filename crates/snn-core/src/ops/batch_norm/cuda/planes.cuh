// How kernels go over the channels of [M, C, S], and sum over each: a block a part of a channel, in one order. Where S is 1,
// channels lie side by side, and a block takes parts of `width` of them, so that a warp still reads what lies in a row.
#pragma once
#include "ops/cuda/prelude.cuh"

// Elements of a channel, images times positions, are counted in 32 bits; each part has `share` of them, the last one fewer.
struct Planes {
  int channels, size, elements, parts, share, width;

  __device__ __forceinline__ Count at(int channel, int element) const {
    if (size == 1) return (Count)element * channels + channel;
    const int image = element / size;
    return ((Count)image * channels + channel) * size + (element - image * size);
  }
};

template <class Real> struct Pair {
  Real first, second;
};

// Sums `f(channel, index)` over the elements of each part of each channel. A thread adds `CHUNK` of its own in the element type, whose
// loads do not wait for each other, and those sums in f64.
template <int CHUNK, class Real, class F>
__device__ __forceinline__ void sum_parts(const Planes &p, double *parts, double *scratch, F f) {
  const int tiles = (p.channels + p.width - 1) / p.width, rows = blockDim.x / p.width;
  for (Count task = blockIdx.x; task < (Count)tiles * p.parts; task += gridDim.x) {
    const int tile = (int)(task / p.parts), part = (int)(task - (Count)tile * p.parts);
    const int channel = tile * p.width + threadIdx.x % p.width;
    const int from = part * p.share, left = p.elements - from, to = from + (left < p.share ? left : p.share);
    Pair<double> sum = {0, 0};
    const auto add = [&](const Pair<Real> &more) {
      sum.first += (double)more.first;
      sum.second += (double)more.second;
    };
    if (channel < p.channels) {
      int i = from + threadIdx.x / p.width;
      for (; to - i > (CHUNK - 1) * rows; i += CHUNK * rows) {
        Pair<Real> some = f(channel, p.at(channel, i));
#pragma unroll
        for (int k = 1; k < CHUNK; ++k) {
          const Pair<Real> more = f(channel, p.at(channel, i + k * rows));
          some.first += more.first;
          some.second += more.second;
        }
        add(some);
      }
      if (CHUNK > 1)
        for (; i < to; i += rows) add(f(channel, p.at(channel, i)));
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
