// What lies around the matrix products of a convolution, as in conv/cpu.rs: an image [M, C, H, W] to its columns [C kh kw, M oh ow]
// and back, a map [M, O, oh, ow] to [O, M oh ow] and back. A thread an element that is written.
#include "ops/cuda/prelude.cuh"

// Elements of a block of images and of its columns are counted in 31 bits, so that a grid's stride more fits 32.
typedef unsigned int Index;

// Laid out as launch.rs writes it.
struct Conv {
  unsigned int images, channels, height, width, kernel_height, kernel_width, map_height, map_width, stride, padding;

  __device__ __forceinline__ Index positions() const { return map_height * map_width; }
};

template <class Real>
__device__ __forceinline__ void to_columns(const Real *__restrict__ image, Real *__restrict__ columns, const Conv &g) {
  const Index positions = g.positions(), row = g.images * positions;
  const Index elements = g.channels * g.kernel_height * g.kernel_width * row;
  for (Index i = (Index)first_element(); i < elements; i += (Index)all_threads()) {
    const Index tap = i / row, m = i % row / positions, position = i % positions;
    const Index c = tap / (g.kernel_height * g.kernel_width), k = tap % (g.kernel_height * g.kernel_width);
    // Below zero they are huge.
    const Index y = position / g.map_width * g.stride + k / g.kernel_width - g.padding;
    const Index x = position % g.map_width * g.stride + k % g.kernel_width - g.padding;
    const bool inside = y < g.height && x < g.width;
    columns[i] = inside ? image[((m * g.channels + c) * g.height + y) * g.width + x] : Real(0);
  }
}

// The adjoint: each pixel adds, tap by tap, what its columns hold.
template <class Real>
__device__ __forceinline__ void from_columns(const Real *__restrict__ columns, Real *__restrict__ image, const Conv &g) {
  const Index positions = g.positions(), row = g.images * positions, plane = g.height * g.width;
  const Index elements = g.images * g.channels * plane;
  for (Index i = (Index)first_element(); i < elements; i += (Index)all_threads()) {
    const Index pixel = i % plane, c = i / plane % g.channels, m = i / plane / g.channels;
    const Index y = pixel / g.width + g.padding, x = pixel % g.width + g.padding;
    Real sum = 0;
    for (Index ky = 0; ky < g.kernel_height && ky <= y; ++ky) {
      const Index oy = (y - ky) / g.stride;
      if (oy * g.stride != y - ky || oy >= g.map_height) continue;
      for (Index kx = 0; kx < g.kernel_width && kx <= x; ++kx) {
        const Index ox = (x - kx) / g.stride;
        if (ox * g.stride != x - kx || ox >= g.map_width) continue;
        const Index tap = (c * g.kernel_height + ky) * g.kernel_width + kx;
        sum += columns[tap * row + m * positions + oy * g.map_width + ox];
      }
    }
    image[i] = sum;
  }
}

// [outer, inner, size] -> [inner, outer, size]
template <class Real>
__device__ __forceinline__ void exchange(const Real *__restrict__ xs, Real *__restrict__ ys, Index outer, Index inner,
                                         Index size) {
  for (Index i = (Index)first_element(); i < size * outer * inner; i += (Index)all_threads()) {
    const Index plane = i / size, of = plane % outer, in = plane / outer;
    ys[i] = xs[(of * inner + in) * size + i % size];
  }
}

#define COLUMNS_KERNELS(Real, suffix)                                                                                     \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      to_columns_##suffix(const Real *image, Real *columns, Conv g) {                                                     \
    to_columns(image, columns, g);                                                                                        \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      from_columns_##suffix(const Real *columns, Real *image, Conv g) {                                                   \
    from_columns(columns, image, g);                                                                                      \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK)                                                                 \
      exchange_##suffix(const Real *xs, Real *ys, int outer, int inner, int size) {                                       \
    exchange(xs, ys, outer, inner, size);                                                                                 \
  }                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAX_BLOCK) add_##suffix(Real *sum, const Real *part, Count elements) {     \
    for (Count i = first_element(); i < elements; i += all_threads()) sum[i] += part[i];                                  \
  }

COLUMNS_KERNELS(float, f32)
COLUMNS_KERNELS(double, f64)
